"""The arguments of a diffusion stage, in a file of stages or ``--stage-overrides``, into settings of ours."""

from __future__ import annotations

from collections.abc import Mapping

from omni_config.engines.formats.draft import Draft, Key
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.schema.settings import DEFAULTS, FIELDS, PARAMETERS

#: Parallel settings that it has none of.
LACKING = ("attention_2d", "async_ulysses")

#: Settings by its names, where those are not ours.
RENAMED = {"text_encoder_tensor_parallel_size": "text_encoder_tp_size"}

#: Keys of the diffusion stage under ``parallel_config``, with their settings.
PARALLEL = {
    RENAMED.get(name, name): name for name, path in FIELDS.items() if path[0] == "parallel" and name not in LACKING
}

#: Other parallel settings of the engine, which no setting of ours stands for.
OTHER_PARALLEL = ("sequence_parallel_size",)

#: The registry of attention backends (diffusion/attention/backends/registry.py).
BACKENDS = "attention DiffusionAttentionBackendEnum"
#: Those that have a name of ours.
KERNELS = {"TORCH_SDPA": "native", "CUDNN_ATTN": "_native_cudnn", "FLASH_ATTN": "flash", "SAGE_ATTN": "sage"}

#: The classes of what single attention backends take.
_OF_BACKENDS = {"skip_softmax": "SkipSoftmaxSpec", "quant": "AttnQuantSpec", "block_sparse": "BlockSparseSpec"}

_SECTIONS = ("memory", "vae", "execution")

#: The default sampling of a stage, by our settings.
SAMPLING = {
    **{name: name for name in ("num_inference_steps", "height", "width", "num_frames", "seed")},
    "num_outputs_per_prompt": "num_images_per_prompt",
    "true_cfg_scale": "cfg_scale",
}

#: Keys of a stage on which nothing depends that is judged here, and those that are read elsewhere.
_QUIET = {
    *("cache_config", "parallel_config", "default_sampling_params", "engine_args", "stage_id", "stage_type"),
    *("devices", "runtime", "trust_remote_code", "engine_output_type", "final_output"),
    *("final_output_type", "is_comprehension", "engine_input_source", "input_sources", "distributed_executor_backend"),
    *("gpu_memory_utilization", "enable_prefix_caching", "enable_chunked_prefill", "max_num_batched_tokens"),
}


def take(draft: Draft, arguments: Mapping[str, YamlNode], of_command: bool = False) -> None:
    """Take over the arguments of a diffusion stage; those of a command are flags, and parallel ones need no section."""
    nested = arguments.get("parallel_config")
    inside = nested.children if nested else {}
    for key, child in arguments.items():
        taken = True
        if key == "stage_id":
            continue  # the number of the stage, not the flag of this name
        if of_command and key in PARALLEL:
            draft.set(PARALLEL[key], child.value, child.span)
        elif key in (*PARALLEL, *OTHER_PARALLEL):
            _beside(draft, key, child, bool(inside))
        elif key in ("model", "dtype", "quantization") or (key in FIELDS and FIELDS[key][0] in _SECTIONS):
            draft.set(key, child.value, child.span)
        elif key == "num_gpus":
            draft.set("gpus", child.value, child.span)
        elif key == "cache_backend":
            cache_backend(draft, str(child.value), child.span)
        elif key == "diffusion_attention_backend":
            attention_backend(draft, child)
        elif key == "enforce_eager" and isinstance(child.value, bool):
            draft.set("compile", not child.value, child.span)
        elif key == "diffusion_attention_config":
            attention_config(draft, child)
        elif key == "diffusion_offload_config":
            keys_of(draft, "ParsedDiffusionOffloadConfig", child)
        else:
            taken = key in _QUIET
        draft.keys.append(Key("OmniDiffusionConfig", str(key), child, taken))
    if (parameters := arguments.get("cache_config")) and isinstance(parameters.value, dict):
        cache_config(draft, parameters, parameters.span)
    for key, child in inside.items():
        if key in PARALLEL:
            draft.set(PARALLEL[key], child.value, child.span)
        else:
            draft.keys.append(Key("DiffusionParallelConfig", str(key), child))
    sampling(draft, arguments.get("default_sampling_params"))


def _beside(draft: Draft, key: str, child: YamlNode, has_config: bool) -> None:
    """A parallel key that stands where a language model's stage reads it."""
    if child.value in (DEFAULTS.get(key, 1), None) or (child.value == 1 and child.value is not True):
        return
    span = child.key_span or child.span
    if has_config:
        draft.note("OMNI607", f"{key} {child.value} beside parallel_config is not read", span)
        return
    draft.note(
        "OMNI607", f"{key} {child.value} at the top of a diffusion stage: older versions drop it", span, "warning"
    )
    if key in PARALLEL:
        draft.set(PARALLEL[key], child.value, child.span)


def sampling(draft: Draft, node: YamlNode | None) -> None:
    """Take over the default sampling of a diffusion stage."""
    for key, child in node.children.items() if node else ():
        if key in SAMPLING:
            draft.set(SAMPLING[key], child.value, child.span)
        elif key == "guidance_scale":
            draft.guidance(child.value, child.span)


def attention_backend(draft: Draft, node: YamlNode) -> None:
    """The attention backend of all roles; what a version has no kernel for is found later."""
    draft.registered.append((BACKENDS, "attention backend", node))
    if (kernel := KERNELS.get(str(node.value).upper())) is not None:
        draft.set("attention_backend", kernel, node.span)


def attention_config(draft: Draft, node: YamlNode) -> None:
    """The attention backends of a stage: one for all, and one for each role, at any depth."""
    keys_of(draft, "AttentionConfig", node)
    if (default := node.children.get("default")) is not None:
        _attention_spec(draft, default)
    pending = [node.children["per_role"]] if "per_role" in node.children else []
    while pending:
        for child in pending.pop().children.values():
            if isinstance(child.value, str) or "backend" in child.children:
                _attention_spec(draft, child)
            else:
                pending.append(child)


def _attention_spec(draft: Draft, node: YamlNode) -> None:
    backend = node if isinstance(node.value, str) else node.children.get("backend")
    if backend is not None:
        draft.registered.append((BACKENDS, "attention backend", backend))
    keys_of(draft, "AttentionSpec", node)
    for key, owner in _OF_BACKENDS.items():
        if key in node.children:
            keys_of(draft, owner, node.children[key])


def keys_of(draft: Draft, owner: str, node: YamlNode) -> None:
    """The keys of a mapping that a class of settings takes."""
    draft.keys += [Key(owner, str(key), child) for key, child in node.children.items()]


def cache_backend(draft: Draft, name: str, span: Span) -> None:
    """Switch a cache on by its name; caches that are not ours are passed by."""
    if name in ("tea_cache", "cache_dit"):
        for other in ("tea_cache", "cache_dit"):
            if other != name:
                draft.drop(other)
        draft.set(name, True, span)
    elif name != "none":
        draft.leave_unjudged(f"cache backend {name}", span)


def cache_config(draft: Draft, node: YamlNode, span: Span) -> None:
    """The parameters of the cache that is on."""
    backend = next((name for name in ("tea_cache", "cache_dit") if draft.has(name)), None)
    if backend is None:
        draft.leave_unjudged("cache config of no known backend", span)
        return
    for key, child in node.children.items():
        if key in PARAMETERS[backend]:
            draft.set(key, child.value, child.key_span or child.span)
        else:
            draft.keys.append(Key("DiffusionCacheConfig", str(key), child))
