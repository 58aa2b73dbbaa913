"""The arguments of a diffusion stage, in a file of stages or ``--stage-overrides``, into settings of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from omni_config.engines.formats.draft import Draft, Key
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.schema.settings import DEFAULTS, FIELDS, PARAMETERS

#: Parallel settings that it has none of.
LACKING = ("attention_2d", "async_ulysses")

#: Settings that stand inside of mappings: diffusion_offload_config and diffusion_attention_config.
INSIDE = ("offload_components", "attention_quantization", *PARAMETERS["attention_quantization"])

#: A parallel setting of ours that is none of its parallel_config.
STRATEGY = "hsdp_weight_load_strategy"
STRATEGIES = ("full", "pre_sharded")

#: Settings by its names, where those are not ours.
RENAMED = {"text_encoder_tensor_parallel_size": "text_encoder_tp_size"}

#: Keys of the diffusion stage under ``parallel_config``, with their settings.
PARALLEL = {
    RENAMED.get(name, name): name
    for name, path in FIELDS.items()
    if path[0] == "parallel" and name not in (*LACKING, STRATEGY)
}

#: Other parallel settings of the engine, which no setting of ours stands for.
OTHER_PARALLEL = ("sequence_parallel_size",)

#: The registry of attention backends (diffusion/attention/backends/registry.py).
BACKENDS = "attention DiffusionAttentionBackendEnum"
#: Those that have a name of ours.
KERNELS = {"TORCH_SDPA": "native", "CUDNN_ATTN": "_native_cudnn", "FLASH_ATTN": "flash", "SAGE_ATTN": "sage"}

#: The classes of what single attention backends take.
_OF_BACKENDS = {"skip_softmax": "SkipSoftmaxSpec", "quant": "AttnQuantSpec", "block_sparse": "BlockSparseSpec"}

#: The word for 8-bit floats in ``quant`` (AttnQuantSpec of diffusion/data.py).
FP8 = "fp8_e4m3"
#: What TRTLLM_ATTN makes of queries and keys, and its blocks; values are 8-bit floats with a scale each.
SAGE_TYPES = {"int8": "int8", FP8: "fp8"}
SAGE = {"q_block_size": 1, "k_block_size": 16, "v_block_size": 1}
_KEYS = {"qk_dtype": "dtype_qk", "v_dtype": "dtype_vo"}
#: What its offload can be told to move.
COMPONENTS = ("dit", "text_encoder")
DISTRIBUTED = "enable_distributed_layerwise_offload"

_SECTIONS = ("memory", "vae", "execution")

_DIRECT = {"model", *(name for name, path in FIELDS.items() if path[0] in _SECTIONS and name not in INSIDE)}

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
        elif key == STRATEGY:
            strategy(draft, child.value, child.span)
        elif key in _DIRECT:
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
            offload_config(draft, child)
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
    keys_of(draft, "AttentionConfig", node, ("default",))
    if (default := node.children.get("default")) is not None:
        backend, quant = default.children.get("backend"), default.children.get("quant")
        ours = backend and quant and _quantization(draft, str(backend.value).upper(), quant)
        _attention_spec(draft, default, ours=bool(ours))
    pending = [node.children["per_role"]] if "per_role" in node.children else []
    while pending:
        for child in pending.pop().children.values():
            if isinstance(child.value, str) or "backend" in child.children:
                _attention_spec(draft, child)
            else:
                pending.append(child)


def strategy(draft: Draft, value: Any, span: Span) -> None:
    """How HSDP's weights are loaded; its rules refuse other words."""
    if value in STRATEGIES:
        draft.set(STRATEGY, value, span)


def offload_config(draft: Draft, node: YamlNode) -> None:
    """``diffusion_offload_config``: what is moved, whole or by blocks (diffusion/offloader/config.py of 0.30.0)."""
    keys_of(draft, "ParsedDiffusionOffloadConfig", node, ("mode", "components", "pin_memory"))
    if not isinstance(node.value, dict):
        return
    mode, components, pinned = (node.children.get(key) for key in ("mode", "components", "pin_memory"))
    gathers = node.find(("layer_options", "dit", "weight_transfer"))
    layered = DISTRIBUTED if gathers is not None and gathers.value == "allgather" else "enable_layerwise_offload"
    switch = {"module": "enable_cpu_offload", "layer": layered}.get(str(mode.value)) if mode else None
    named = components.value if components and isinstance(components.value, list) else []
    if mode is None or switch is None or components is None or not named or not {*named} <= {*COMPONENTS}:
        return  # which its rules refuse
    draft.set(switch, True, mode.key_span or mode.span)
    draft.set("offload_components", [name for name in COMPONENTS if name in named], components.span)
    if pinned is not None and isinstance(pinned.value, bool):
        draft.set("pin_cpu_memory", pinned.value, pinned.span)


def _quantization(draft: Draft, backend: str, node: YamlNode) -> bool:
    """Whether ``quant`` of all roles is a setting of ours, as its two backends read it (trtllm_attn.py and
    flashinfer_attn.py of diffusion/attention/backends, 0.26.0 to 0.32.0rc1).
    """
    said = {str(key): child.value for key, child in node.children.items()}
    if backend == "TRTLLM_ATTN" and said.get("dtype_qk") in SAGE_TYPES:
        values = {"qk_dtype": SAGE_TYPES[said["dtype_qk"]], **{name: said.get(name) or SAGE[name] for name in SAGE}}
    elif backend == "FLASHINFER_ATTN" and said.get("dtype_vo") == FP8 and said.get("dtype_qk") in (None, "bfloat16"):
        values = {}
    else:
        return False
    place = node.key_span or node.span
    draft.set("attention_quantization", True, place)
    for name, value in values.items():
        child = node.children.get(_KEYS.get(name, name))
        draft.set(name, value, child.span if child else place)
    return True


def _attention_spec(draft: Draft, node: YamlNode, *, ours: bool = False) -> None:
    """The backend of a role and what it takes; ``ours``: a setting of ours stands for its quantization."""
    backend = node if isinstance(node.value, str) else node.children.get("backend")
    if backend is not None:
        draft.registered.append((BACKENDS, "attention backend", backend))
    keys_of(draft, "AttentionSpec", node, ("backend", "quant") if ours else ())
    for key, owner in _OF_BACKENDS.items():
        if key in node.children:
            taken = ("dtype_qk", "dtype_vo", "q_block_size", "k_block_size") if ours else ()
            keys_of(draft, owner, node.children[key], taken)


def keys_of(draft: Draft, owner: str, node: YamlNode, taken: Collection[str] = ()) -> None:
    """The keys of a mapping that a class of settings takes; settings of ours stand for those that are ``taken``."""
    draft.keys += [Key(owner, str(key), child, str(key) in taken) for key, child in node.children.items()]


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
