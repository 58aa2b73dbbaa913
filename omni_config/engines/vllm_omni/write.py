"""vLLM-Omni: ``vllm serve``, or the guide's offline script where the config says what to generate."""

from __future__ import annotations

import json
from typing import Any

from omni_config.engines.formats.unwritten import Unwritten, command_line, guidance, lora
from omni_config.engines.vllm_omni.arguments import (
    COMPONENTS,
    DISTRIBUTED,
    FP8,
    INSIDE,
    KERNELS,
    LACKING,
    RENAMED,
    SAGE,
    SAGE_TYPES,
)
from omni_config.engines.vllm_omni.scripts import FOLDER, SCRIPTS
from omni_config.schema.flag_names import ALIASES, dashed
from omni_config.schema.settings import FIELDS, PARAMETERS

_SHORT = {"ulysses_degree": ALIASES["ulysses_degree"][0], "ring_degree": ALIASES["ring_degree"][0]}
_ATTENTION = {kernel: name for name, kernel in KERNELS.items()}
#: Of sampling, what is written by the name that the model's pipeline has for it.
_GUIDANCE = ("cfg_scale", "guidance_scale")
#: Its modes of diffusion_offload_config, by the switches that say the same.
_OFFLOADS = {"enable_cpu_offload": "module", "enable_layerwise_offload": "layer", DISTRIBUTED: "layer"}
SERVER = ("host", "port", "api_key")
_SECTIONS = ("parallel", "memory", "vae", "execution")


def write(unwritten: Unwritten) -> str:
    """The command of a config."""
    card = unwritten.resolution.card
    served = unwritten.take("server")
    offline = not served and any(FIELDS[name][0] == "sampling" for name in unwritten.settings)
    unwritten.own_parser = not offline
    model = unwritten.take("model")
    if offline:
        groups = [["python", str(FOLDER / SCRIPTS[card.task][0])], ["--model", model]]
        groups += guidance(unwritten, "--cfg-scale")
        requested = (name for name in FIELDS if FIELDS[name][0] == "sampling" and name not in _GUIDANCE)
        groups += unwritten.flags({name: dashed(name) for name in requested})
    else:
        groups = [["vllm", "serve", model, "--omni"]]
        groups += unwritten.flags({name: dashed(name) for name in SERVER})
    if unwritten.take("compile") is False:  # which the engine does unless it is told not to
        groups.append(["--enforce-eager"])
    groups += _offload(unwritten)
    if not offline:
        groups += _pinned(unwritten)
    if unwritten.settings.get("attention_quantization"):
        groups += _quantized(unwritten)
    elif unwritten.settings.get("attention_backend") in _ATTENTION:  # OMNI133 refuses the others
        groups.append(["--diffusion-attention-backend", _ATTENTION[unwritten.take("attention_backend")]])
    others: tuple[str, ...] = (*LACKING, *INSIDE, "pin_cpu_memory")
    if "weight_only" in (unwritten.settings.get("quantization") or ""):  # for which it has other words, or none
        others += ("quantization",)
    same = [name for name in FIELDS if FIELDS[name][0] in _SECTIONS and name not in others]
    groups += unwritten.flags({name: _short(name, offline) for name in same})
    gpus = unwritten.take("gpus")
    if gpus is not None and gpus != unwritten.world_size:
        groups.append(["--num-gpus", str(gpus)])
    for backend in ("tea_cache", "cache_dit"):
        parameters = {name: unwritten.take(name) for name in PARAMETERS[backend] if name in unwritten.settings}
        if unwritten.take(backend):
            groups.append(["--cache-backend", backend])
            if parameters:
                groups.append(["--cache-config", json.dumps(parameters)])
    return command_line(groups + lora(unwritten, scale=True))


def _offload(unwritten: Unwritten) -> list[list[str]]:
    """``--diffusion-offload-config``, where the config says what is moved."""
    components = unwritten.settings.get("offload_components")
    switches = [name for name in _OFFLOADS if unwritten.settings.get(name)]
    if not components or len(switches) != 1 or not {*components} <= {*COMPONENTS}:
        return []
    flag = "--diffusion-offload-config"
    gathers = switches[0] == DISTRIBUTED
    if not unwritten.has(flag) or (gathers and "dit" not in components):
        return []
    unwritten.take("offload_components")
    unwritten.take(switches[0])
    config: dict[str, Any] = {"mode": _OFFLOADS[switches[0]], "components": list(components)}
    if gathers:
        config["layer_options"] = {"dit": {"weight_transfer": "allgather"}}
    if (pinned := unwritten.take("pin_cpu_memory")) is not None:
        config["pin_memory"] = pinned
    return [[flag, json.dumps(config)]]


def _pinned(unwritten: Unwritten) -> list[list[str]]:
    """``pin_cpu_memory``, for which there is no flag but that of a stage's arguments."""
    pinned = unwritten.take("pin_cpu_memory")
    return [] if pinned is None else [["--stage-overrides", json.dumps({"0": {"pin_cpu_memory": pinned}})]]


def _quantized(unwritten: Unwritten) -> list[list[str]]:
    """``quant`` of ``--diffusion-attention-config``, on the backend that takes the types."""
    names = PARAMETERS["attention_quantization"]
    qk, v, *blocks = (unwritten.resolution.settings[name] for name in names)
    word = next((word for word, ours in SAGE_TYPES.items() if ours == qk), None)
    if unwritten.settings.get("attention_backend") or v != "fp8":
        return []
    if word is not None and {*blocks[:2]} <= {1, 4, 16} and blocks[2] == SAGE["v_block_size"]:
        quant = {"dtype_qk": word, "q_block_size": blocks[0], "k_block_size": blocks[1]}
        spec = {"backend": "TRTLLM_ATTN", "quant": quant}
    elif qk == "bf16" and not any(blocks):
        spec = {"backend": "FLASHINFER_ATTN", "quant": {"dtype_vo": FP8}}
    else:
        return []
    for name in ("attention_quantization", *names):
        unwritten.take(name)
    return [["--diffusion-attention-config", json.dumps({"default": spec})]]


def _short(name: str, offline: bool) -> str:
    own = dashed(RENAMED.get(name, name))
    return own if offline else _SHORT.get(name, own)
