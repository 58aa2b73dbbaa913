"""Flags of vLLM's language models, which its parser takes and no diffusion stage is given."""

from __future__ import annotations

from omni_config.catalog.load import catalog
from omni_config.engines.facts import facts_of
from omni_config.engines.formats.draft import Draft

#: What of vLLM's own settings is asked of a deployment often, and is none of a diffusion stage: only fields of
#: OmniDiffusionConfig reach it (config/config_factory.py:679 of 0.30.0).
_SETTINGS = frozenset(
    {
        "cpu_offload_gb",
        "cpu_offload_params",
        "kv_offloading_size",
        "kv_offloading_backend",
        "block_size",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "max_num_batched_tokens",
        "max_model_len",
        "gpu_memory_utilization",
        "speculative_config",
        "num_gpu_blocks_override",
        "scheduling_policy",
        "async_scheduling",
        "decode_context_parallel_size",
        "enable_eplb",
        "limit_mm_per_prompt",
        "structured_outputs_config",
        "optimization_level",
        "attention_backend",
    }
)
#: Families whose deployments have a language model's stage, too, which takes these flags.
STAGED = ("bagel", "glm", "hunyuan", "mammoth", "ming", "lance", "omnivoice", "sensenova", "nextstep", "dreamzero")


def of_version(draft: Draft, engine: str) -> None:
    """Note the flags that have no effect on a diffusion model that is served alone."""
    facts = facts_of(engine)
    card = catalog().model(str(draft.get("model"))) if draft.has("model") else None
    alone = card is not None and not card.family.lower().startswith(STAGED)
    if facts is None or not alone or draft.says_more:
        return
    for typed in draft.typed:
        flag = facts.flag(typed.name)
        if flag is None or not flag.of or flag.setting not in _SETTINGS:
            continue
        if not facts.has_field("OmniDiffusionConfig", flag.setting):
            message = f"{typed.name} is for language models and has no effect on a diffusion stage of {engine}"
            draft.note("OMNI618", message, typed.span, "warning", next_step="remove the flag")
