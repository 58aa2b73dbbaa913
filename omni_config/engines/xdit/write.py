"""xDiT: its runner, ``xdit --model ...``."""

from __future__ import annotations

from omni_config.engines.facts import facts_of
from omni_config.engines.formats.unwritten import Unwritten, command_line
from omni_config.engines.xdit.read import CACHES, SETTINGS

_FLAGS = {
    setting: "--" + flag.replace("-", "_") for flag, setting in reversed(SETTINGS.items()) if isinstance(setting, str)
} | {"text_encoder_tensor_parallel_size": "--text_encoder_tp_degree"}


def write(unwritten: Unwritten) -> str:
    """The command of a config."""
    world = unwritten.world_size
    card = unwritten.resolution.card
    groups = [["xdit", "--model", unwritten.take("model")], *_task(unwritten)]
    unwritten.take("gpus")  # the runner starts as many processes as its degrees ask for
    if unwritten.settings.get("cfg_parallel_size") == 2:
        groups.append(["--use_cfg_parallel"])
        unwritten.take("cfg_parallel_size")
    if unwritten.settings.get("vae_patch_parallel_size") == world > 1:
        groups.append(["--use_parallel_vae"])
        unwritten.take("vae_patch_parallel_size")
    shards = unwritten.settings.get("hsdp_shard_size", -1)
    if (degree := shards if shards > 0 else world) > 1 and unwritten.take("use_hsdp"):
        unwritten.take("hsdp_shard_size")
        groups.append(["--fully_shard_degree", str(degree)])
    if unwritten.settings.get("quantization") in ("fp8", "int8"):
        groups.append([f"--use_{unwritten.take('quantization')}_gemms"])
    for method, setting in CACHES.items():
        if unwritten.take(setting):
            groups.append(["--cache_method", method])
    guidance = card.guidance
    scale = None
    if guidance is not None and guidance.distilled_argument == "guidance_scale":
        scale = unwritten.take("guidance_scale")
    elif guidance is not None and guidance.argument in ("guidance_scale", "true_cfg_scale"):
        scale = unwritten.take("cfg_scale")
    if scale is not None:
        groups.append(["--guidance_scale", str(scale)])
    return command_line(groups + unwritten.flags(_FLAGS))


def _task(unwritten: Unwritten) -> list[list[str]]:
    """``--task`` for a model class that has several, and is refused without: by the input."""
    facts = facts_of(unwritten.resolution.engine.id)
    card = unwritten.resolution.card
    classes = [found for found in facts.pipelines.values() if card.id in found.get("names", ())] if facts else []
    tasks = classes[0].get("settings", {}).get("valid_tasks", ()) if classes else ()
    wanted = "i2v" if unwritten.settings.get("image") is not None or card.task.startswith("image_") else "t2v"
    return [["--task", wanted]] if wanted in tasks else []
