"""vLLM-Omni's YAML: stages (``stage_args``), deploys (``stages``) and the files of ``--config``.

Only the diffusion stages are judged; the file names no model (the command that uses it does).
"""

from __future__ import annotations

from omni_config.engines.formats.draft import Draft, Key
from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import File
from omni_config.engines.vllm_omni.arguments import take
from omni_config.engines.vllm_omni.flags import ENGINE, FLAGS
from omni_config.reading.nodes import YamlNode

#: Old names of keys, which the engine still takes (diffusion/data.py:50 to 75 of 0.28.0, 86 to 95 of 0.30.0).
OLD_NAMES = frozenset(
    (
        "static_lora_scale",
        "kv_cache_dtype",
        "kv_cache_skip_steps",
        "kv_cache_skip_layers",
        "max_batch_size",
        "diffusion_quantization_config",
    )
)

#: Keys that no file of flags has: of our format, and of the values of a chart.
_OF_OTHERS = {"version", "image", "resources", "replicaCount", "service", "services"}

#: Keys that only a diffusion stage has, where a deploy does not say the type of its stages.
_MARKS = {"parallel_config", "model_class_name", "cache_backend", "diffusion_attention_backend", "vae_use_tiling"}


def read(node: YamlNode, file: File) -> list[Draft] | None:
    """A Draft for each diffusion stage; None where this is no file of stages."""
    if not isinstance(node.value, dict):
        return None
    key = next((key for key in ("stage_args", "stages") if isinstance(node.value.get(key), list)), None)
    if key is None:
        return None
    stages = list(node.children[key].children.values())
    if not stages or not all(isinstance(stage.value, dict) and "stage_id" in stage.value for stage in stages):
        return None
    drafts = []
    passed = []
    for stage in stages:
        if _is_diffusion(stage, len(stages)):
            drafts.append(_stage(stage, file))
        else:
            passed.append((f"stage {stage.value['stage_id']}", stage.children["stage_id"].span))
    if not drafts:
        drafts = [Draft(file, "", node.children[key].key_span or node.span)]
    drafts[0].keys.append(Key("DeployConfig", key, node.children[key], taken=True))
    for name, span in passed:
        drafts[0].leave_unjudged(f"{name} (no diffusion stage)", span)
    if (platforms := node.children.get("platforms")) is not None:
        drafts[0].leave_unjudged("platforms", platforms.key_span or platforms.span)
    return drafts


def _is_diffusion(stage: YamlNode, stages: int) -> bool:
    kind = stage.value.get("stage_type")
    if kind is not None:
        return bool(kind == "diffusion")
    inner = stage.value.get("engine_args")
    if any(key in _MARKS for key in (*stage.value, *(inner if isinstance(inner, dict) else ()))):
        return True
    sampling = stage.value.get("default_sampling_params")
    return isinstance(sampling, dict) and "num_inference_steps" in sampling


def _stage(stage: YamlNode, file: File) -> Draft:
    place = stage.children["stage_id"]
    draft = Draft(file, ENGINE, place.key_span or place.span)
    draft.old_names = OLD_NAMES
    take(draft, {**stage.children, **(inner.children if (inner := stage.children.get("engine_args")) else {})})
    draft.finish()
    return draft


def read_config(node: YamlNode, file: File) -> Draft | None:
    """A file for ``vllm serve --config``: the flags as keys; None where none of them is this engine's."""
    if not isinstance(node.value, dict) or not _OF_OTHERS.isdisjoint(node.value):
        return None
    if any(isinstance(node.value.get(key), dict) for key in ("model", "omni")):
        return None
    names = {str(key).replace("_", "-") for key in node.value}
    if not names & {"omni", "usp", "ring", "cfg-parallel-size", "vae-patch-parallel-size", "cache-backend"}:
        return None
    draft = Draft(file, ENGINE, next(iter(node.children.values())).key_span or node.span)
    words = []
    for key, child in node.children.items():
        if child.key_span is None or isinstance(child.value, list):
            continue
        start = child.key_start
        text = file.text[start : start + len(str(key))]
        flag = Word(type(text)(f"--{key}", [start, start, *text.offsets], file))
        if child.value is False:
            continue
        words.append(flag)
        if child.value is not True:
            words.append(Word(file.scalar(child)))
    FLAGS.read(draft, words)
    draft.finish()
    return draft


def from_yaml(node: YamlNode, file: File) -> list[Draft]:
    """The deployments of a document that is one of vLLM-Omni's."""
    return read(node, file) or [draft for draft in [read_config(node, file)] if draft]
