"""SGLang-diffusion: ``sglang generate`` where the config says what to generate, ``sglang serve`` where it does not."""

from __future__ import annotations

from typing import Any

from omni_config.engines.formats.unwritten import Unwritten, command_line, guidance, lora
from omni_config.engines.sglang.offload import RESIDENT, SWITCHES
from omni_config.engines.sglang.read import DECODE_MODES, SETTINGS, SWITCH, VARIABLES
from omni_config.schema.components import COMPONENTS
from omni_config.schema.settings import FIELDS

_FLAGS = {setting: f"--{flag}" for flag, setting in reversed(SETTINGS.items()) if isinstance(setting, str)}
#: Of ours, what every version has by this name (runtime/layers/quantization/__init__.py).
_QUANTIZATIONS = ("fp8",)
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def write(unwritten: Unwritten) -> str:
    """The command of a config, with the variables that set Cache-DiT in front."""
    offline = any(FIELDS[name][0] == "sampling" for name in unwritten.settings)
    environment = _cache_dit(unwritten)
    groups = [[*environment, "sglang", "generate" if offline else "serve"], ["--model-path", unwritten.take("model")]]
    gpus = unwritten.take("gpus") or unwritten.world_size * (unwritten.settings.get("data_parallel_size") or 1)
    if gpus > 1:
        groups.append(["--num-gpus", str(gpus)])
    if unwritten.settings.get("cfg_parallel_size") == 2:
        groups.append(["--enable-cfg-parallel", "true"])
        unwritten.take("cfg_parallel_size")
    if (gathered := unwritten.settings.get("allgather_degree", 1)) > 1:  # so that it takes no CFG-parallel by itself
        groups.append(["--sp-degree", str(gathered)])
    if (dtype := unwritten.take("dtype")) is not None:
        groups.append(["--dit-precision", _PRECISIONS[dtype]])
    mode = next(
        (word for word, ours in DECODE_MODES.items() if ours == unwritten.settings.get("vae_parallel_mode")), None
    )
    if mode is not None:
        unwritten.take("vae_parallel_mode")
        groups.append(["--vae-config.parallel-decode-mode", mode])
    groups += guidance(unwritten, "--true-cfg-scale")
    groups += _residency(unwritten)
    if unwritten.take("enable_cpu_offload"):  # ours moves all components, each flag of its one
        groups += [["--dit-cpu-offload", "true"], ["--text-encoder-cpu-offload", "true"]]
    without = "quantization" if unwritten.settings.get("quantization") not in _QUANTIZATIONS else ""
    if unwritten.settings.get("pin_cpu_memory") is False:  # which it does unless it is told not to
        unwritten.take("pin_cpu_memory")
        groups.append([_FLAGS["pin_cpu_memory"], "false"])
    groups += unwritten.flags({name: flag for name, flag in _FLAGS.items() if name != without})
    return command_line(groups + lora(unwritten, scale=False))


def _residency(unwritten: Unwritten) -> list[list[str]]:
    """``--component-residency`` of each component, where the config says what is offloaded, the transformer with it."""
    moved = unwritten.settings.get("offload_components") or ()
    ways = [way for way, switch in SWITCHES.items() if unwritten.settings.get(switch)]
    if "dit" not in moved or len(ways) != 1:
        return []
    unwritten.take("offload_components")
    unwritten.take(SWITCHES[ways[0]])
    return [["--component-residency", *(f"{name}={ways[0] if name in moved else RESIDENT}" for name in COMPONENTS)]]


def _cache_dit(unwritten: Unwritten) -> list[str]:
    if not unwritten.take("cache_dit"):
        return []
    words = [f"{SWITCH}=true"]
    for variable, name in VARIABLES.items():
        value = unwritten.take(name)
        if value is not None:
            words.append(f"{variable}={_word(value)}")
    return words


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
