"""vLLM-Omni: ``vllm serve``, or the guide's offline script where the config says what to generate."""

from __future__ import annotations

import json

from omni_config.engines.formats.unwritten import Unwritten, command_line, guidance, lora
from omni_config.engines.vllm_omni.arguments import KERNELS, LACKING, RENAMED
from omni_config.engines.vllm_omni.scripts import FOLDER, SCRIPTS
from omni_config.schema.flag_names import ALIASES, dashed
from omni_config.schema.settings import FIELDS, PARAMETERS

_SHORT = {"ulysses_degree": ALIASES["ulysses_degree"][0], "ring_degree": ALIASES["ring_degree"][0]}
_ATTENTION = {kernel: name for name, kernel in KERNELS.items()}
#: Of sampling, what is written by the name that the model's pipeline has for it.
_GUIDANCE = ("cfg_scale", "guidance_scale")
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
    if unwritten.settings.get("attention_backend") in _ATTENTION:  # OMNI133 refuses the others
        groups.append(["--diffusion-attention-backend", _ATTENTION[unwritten.take("attention_backend")]])
    same = [name for name in FIELDS if FIELDS[name][0] in _SECTIONS and name not in LACKING]
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


def _short(name: str, offline: bool) -> str:
    own = dashed(RENAMED.get(name, name))
    return own if offline else _SHORT.get(name, own)
