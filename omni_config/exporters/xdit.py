"""xDiT: its runner, ``xdit --model ...``."""

from __future__ import annotations

from omni_config.exporters import Said, command_line
from omni_config.importers.xdit import SETTINGS

_FLAGS = {
    setting: "--" + flag.replace("-", "_") for flag, setting in reversed(SETTINGS.items()) if isinstance(setting, str)
}


def write(said: Said) -> str:
    """The command of a config."""
    world = said.world_size
    card = said.resolution.card
    groups = [["xdit", "--model", said.take("model")]]
    said.take("gpus")  # the runner starts as many processes as its degrees ask for
    if said.settings.get("cfg_parallel_size") == 2:
        groups.append(["--use_cfg_parallel"])
        said.take("cfg_parallel_size")
    if said.settings.get("vae_patch_parallel_size") == world > 1:
        groups.append(["--use_parallel_vae"])
        said.take("vae_patch_parallel_size")
    if said.take("use_hsdp"):
        shards = said.take("hsdp_shard_size") or -1
        groups.append(["--fully_shard_degree", str(shards if shards > 0 else world)])
    if (quantization := said.take("quantization")) is not None:
        groups.append([f"--use_{quantization}_gemms"])
    own = card.guidance is not None and card.guidance.argument == "guidance_scale"
    scale = said.take("cfg_scale") if own else said.take("guidance_scale")
    if scale is not None:
        groups.append(["--guidance_scale", str(scale)])
    return command_line(groups + said.flags(_FLAGS))
