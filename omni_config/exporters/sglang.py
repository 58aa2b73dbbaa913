"""SGLang-diffusion: ``sglang generate`` where the config says what to generate, ``sglang serve`` where it does not."""

from __future__ import annotations

from typing import Any

from omni_config.exporters import Said, command_line
from omni_config.exporters.vllm_omni import guidance, lora
from omni_config.importers.sglang import SETTINGS, SWITCH, VARIABLES
from omni_config.settings import FIELDS

_FLAGS = {setting: f"--{flag}" for flag, setting in reversed(SETTINGS.items()) if isinstance(setting, str)}
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def write(said: Said) -> str:
    """The command of a config, with the variables that set Cache-DiT in front."""
    offline = any(FIELDS[name][0] == "sampling" for name in said.settings)
    environment = _cache_dit(said)
    groups = [[*environment, "sglang", "generate" if offline else "serve"], ["--model-path", said.take("model")]]
    gpus = said.take("gpus") or said.world_size
    if gpus > 1:
        groups.append(["--num-gpus", str(gpus)])
    if said.settings.get("cfg_parallel_size") == 2:
        groups.append(["--enable-cfg-parallel", "true"])
        said.take("cfg_parallel_size")
    if (dtype := said.take("dtype")) is not None:
        groups.append(["--dit-precision", _PRECISIONS[dtype]])
    groups += guidance(said, "--true-cfg-scale")
    groups += said.flags(_FLAGS)
    return command_line(groups + lora(said, scale=False))


def _cache_dit(said: Said) -> list[str]:
    if not said.take("cache_dit"):
        return []
    words = [f"{SWITCH}=true"]
    for variable, name in VARIABLES.items():
        value = said.take(name)
        if value is not None:
            words.append(f"{variable}={_word(value)}")
    return words


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
