"""Which of its own pipelines SGLang runs a model with, by what its registry says (registry.py:139 to 740 of 0.5.23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.engines.facts import Facts

if TYPE_CHECKING:
    from omni_config.engines.formats.draft import Draft

#: The classes that ``model_index.json`` of registered models names, where neither the pipeline nor the name of its
#: configuration tells.
_CLASSES = {
    "AnimaPipelineConfig": "AnimaModularPipeline",
    "Cosmos3Config": "Cosmos3OmniDiffusersPipeline",
    "Cosmos3SimAutoConfig": "Cosmos3NanoSimAutoPipeline",
    "CosmosDreamsConfig": "Cosmos3NanoSimBimanualPipeline",
    "CosmosDreamsTransferConfig": "Cosmos3NanoSimTransferPipeline",
    "HunyuanConfig": "HunyuanVideoPipeline",
    "LTX23PipelineConfig": "LTX2Pipeline",
    "LingBotVideoMoEPipelineConfig": "LingBotVideoPipeline",
    "MOVA360PConfig": "MOVAPipeline",
    "MOVA720PConfig": "MOVAPipeline",
    "QwenImageEditPlus_2511_PipelineConfig": "QwenImageEditPlusPipeline",
    "WanI2V480PConfig": "WanImageToVideoPipeline",
    "WanI2V720PConfig": "WanImageToVideoPipeline",
    "WanT2V480PConfig": "WanPipeline",
    "WanT2V720PConfig": "WanPipeline",
    "Wan2_2_T2V_A14B_Config": "WanPipeline",
    "Wan_Animate_2_14B_Config": "WanAnimate2Pipeline",
    "Wan_Animate_2_14B_Distilled_Config": "WanAnimate2Pipeline",
}
#: Parts of names for which it takes diffusers in any case.
_QUANTIZED = ("-4bit", "-awq", "-gptq")
_PATTERNS = "pipelines KNOWN_NON_DIFFUSERS_DIFFUSION_MODEL_PATTERNS"
_EXACT_ALONE = "pipelines SENSENOVA_U1_MODEL_IDS"


def native_pipeline(model: str, named: str, facts: Facts) -> str | None:
    """The class of its own that it runs a model with; empty where it takes diffusers, None where that is not known.

    ``named`` is the class that the model's card or folder names, or empty.
    """
    lower = model.lower().rstrip("/")
    if any(part in lower for part in _QUANTIZED):
        return ""
    if by_name := _by_pattern(lower, facts):
        return by_name
    entry = _registered(lower, facts) or _detected(lower, facts)
    pipeline = named or (_class_of(entry, facts) if entry else "")
    if entry and not facts.registers(pipeline) and lower in map(str.lower, entry["hub_ids"]):
        pipeline = _class_of(entry, facts)  # which a card knows by the name of another engine
    if not pipeline:
        return None
    if f"pipeline {pipeline}" not in facts.pipelines:
        return ""
    return pipeline if entry or _looked_for((lower, pipeline.lower()), facts) else ""


def entry_of(draft: Draft, facts: Facts) -> dict[str, Any]:
    """The classes of configuration and requests that it takes for a deployment's model; empty where not known."""
    backend = draft.options.get("backend")
    if backend is not None and backend.value == "diffusers":
        return {"sampling_params": "DiffusersGenericSamplingParams"}
    model = str(draft.get("model")).lower().rstrip("/") if draft.has("model") else ""
    if entry := _registered(model, facts) or _detected(model, facts):
        return entry
    pipeline = facts.pipelines.get(f"pipeline {draft.pipeline}", {})
    config = pipeline.get("pipeline_config_cls")
    found = next((one for one in facts.pipelines.values() if config and one.get("pipeline_config") == config), {})
    return {"sampling_params": pipeline.get("sampling_params_cls") or ""} | found


def is_registered(model: str, facts: Facts) -> bool:
    """Whether its registry has the model by name."""
    lower = model.lower().rstrip("/")
    return bool(_by_pattern(lower, facts)) or _registered(lower, facts) is not None


def _by_pattern(model: str, facts: Facts) -> str:
    if model in facts.table(_EXACT_ALONE):
        return "SenseNovaU1Pipeline"
    for pattern, pipeline in facts.table(_PATTERNS).items():
        if "/" not in pattern and pattern in model:
            return str(pipeline)
        if "/" in pattern and (_short(model) == _short(pattern) or _cached(pattern) in model):
            return str(pipeline)
    return ""


def _registered(model: str, facts: Facts) -> dict[str, Any] | None:
    """The entry of the longest registered id that is the model, or whose last part is in the model's."""
    alone = facts.table(_EXACT_ALONE)
    ids = {
        hub_id.lower(): entry
        for name, entry in facts.pipelines.items()
        if name.startswith("config ")
        for hub_id in entry["hub_ids"]
        if hub_id.lower() not in alone
    }
    if model in ids:
        return ids[model]
    longest = sorted(ids, key=len, reverse=True)
    found = next((one for one in longest if _short(one) in _short(model)), None)
    found = found or next((one for one in longest if _cached(one) in model), None)
    return ids[found] if found else None


def _detected(model: str, facts: Facts) -> dict[str, Any] | None:
    """The configuration whose detectors find all that they look for in the name of the model."""
    entries = (entry for entry in facts.pipelines.values() if entry.get("detectors"))
    return next((entry for entry in entries if all(text in model for text in entry["detectors"])), None)


def _class_of(entry: dict[str, Any], facts: Facts) -> str:
    config = entry["pipeline_config"]
    if config in _CLASSES:
        return _CLASSES[config]
    stem = config.removesuffix("Config")
    for name in (stem, f"{stem}Pipeline"):
        if f"pipeline {name}" in facts.pipelines:
            return str(name)
    for key, pipeline in facts.pipelines.items():
        if pipeline.get("pipeline_config_cls") == config and key.startswith("pipeline "):
            return key.removeprefix("pipeline ")
    return ""


def _looked_for(names: tuple[str, ...], facts: Facts) -> bool:
    """Whether a detector of a configuration may take one of these names for its own."""
    spelled = {form for name in names for form in (name, name.replace("-", "").replace("_", ""))}
    return any(
        text in name for entry in facts.pipelines.values() for text in entry.get("detectors", ()) for name in spelled
    )


def _short(model: str) -> str:
    return model.rpartition("/")[2]


def _cached(model: str) -> str:
    """How the cache of the Hub spells an id in its paths."""
    return f"models--{model.replace('/', '--')}"
