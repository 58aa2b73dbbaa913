"""The configuration document: one YAML file, typed, where every key is known and every value has a range.

The leaf names are unique over all sections, so that a rule may say ``ulysses_degree`` and mean
``parallel.ulysses_degree`` (``settings.FIELDS`` maps one to the other; a test keeps it so).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from omni_config.schema.switch import switch

Degree = Annotated[int, Field(ge=1, le=1024)]
Block = Annotated[int, Field(ge=0, le=1024)]
Pixels = Annotated[int, Field(ge=16, le=16384)]


Prompts = Annotated[tuple[str, ...], Field(min_length=1, max_length=64, strict=False)]


# Those of diffusers that download no code: its names with `hub` do.
AttentionBackend = Literal[
    "auto",
    "native",
    "_native_cudnn",
    "_native_efficient",
    "_native_flash",
    "_native_math",
    "flex",
    "flash",
    "_flash_3",
    "sage",
    "xformers",
]


#: Parts of a pipeline that can wait on the CPU: all transformers, all text encoders, ...
Component = Literal["dit", "text_encoder", "image_encoder", "vae"]


class _Section(BaseModel):
    """A mapping of the document: unknown keys and loose types (``"2"`` for 2, ``yes`` for 1) are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True, allow_inf_nan=False)


class Hardware(_Section):
    """What the deployment may use."""

    gpus: int | None = Field(
        default=None,
        ge=1,
        description="GPUs (processes) of the deployment; left out, it is the product of the degrees.",
    )
    gpus_per_node: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="GPUs (processes) of a machine; left out, one machine has them all."
    )
    gpu: str | None = Field(
        default=None, min_length=1, description="A known GPU, such as h100: its memory, speed and links."
    )
    machine: str | None = Field(
        default=None,
        min_length=1,
        description="File of a machine's measured rates (omni calibrate machine), in the place of a GPU's datasheet.",
    )
    memory: Annotated[float, Field(gt=0, le=4096)] | None = Field(
        default=None, description="GiB of memory a GPU has; left out, that of the known GPU."
    )


class Parallel(_Section):
    """Degrees of parallelism; their product is the number of GPUs."""

    ulysses_degree: Degree = Field(default=1, description="Ulysses sequence parallelism (all-to-all over heads).")
    ring_degree: Degree = Field(default=1, description="Ring attention (keys and values travel round a ring).")
    allgather_degree: Degree = Field(
        default=1, description="Sequence parallelism in which each rank gathers all keys and values (K/V-gather)."
    )
    attention_2d: tuple[Degree, Degree] | None = Field(
        default=None,
        strict=False,
        description="Rows and columns of ranks: queries are gathered along one, keys and values along the other.",
    )
    async_ulysses: bool = Field(default=False, description="Overlap Ulysses' all-to-all with the projections.")
    pipeline_parallel_size: Degree = Field(
        default=1, description="Stages that hold the DiT's blocks in turn; xDiT passes parts of the image (PipeFusion)."
    )
    cfg_parallel_size: Degree = Field(default=1, description="Branches of classifier-free guidance run side by side.")
    tensor_parallel_size: Degree = Field(default=1, description="Tensor parallelism of the DiT blocks.")
    text_encoder_tensor_parallel: bool = Field(
        default=False, description="Split the text encoder over the tensor ranks too."
    )
    text_encoder_tensor_parallel_size: Degree = Field(
        default=1, description="Ranks that share the text encoder, whatever tensor_parallel_size is."
    )
    vae_patch_parallel_size: Degree = Field(default=1, description="Ranks of the DiT group that share the VAE decode.")
    vae_parallel_mode: (
        Literal["auto", "tile", "patch", "batch", "spatial_shard", "spatial_shard_height", "spatial_shard_width"] | None
    ) = Field(default=None, description="What the ranks share of the VAE decode; left out, the engine's own way.")
    data_parallel_size: Degree | None = Field(
        default=None, description="Whole replicas; left out, 1. vLLM-Omni 0.30 infers it from spare GPUs."
    )
    ulysses_mode: Literal["strict", "advanced_uaa"] = Field(
        default="strict", description="advanced_uaa pads heads and sequence where they do not divide."
    )
    use_hsdp: bool = Field(
        default=False, description="Shard the weights over the ranks (FSDP2) and gather them per block."
    )
    hsdp_shard_size: int = Field(default=-1, ge=-1, description="Ranks that share one copy of the weights; -1: all.")
    hsdp_replicate_size: Degree = Field(default=1, description="Copies of the sharded weights.")
    hsdp_weight_load_strategy: Literal["full", "pre_sharded"] | None = Field(
        default=None, description="Whether each rank loads whole weights, or its own shards; left out, whole ones."
    )
    enable_expert_parallel: bool = Field(default=False, description="Spread the experts of a MoE model over the ranks.")


class TeaCache(_Section):
    """TeaCache (Liu et al., 2024): reuses a step's residual while its modulated input changes little."""

    rel_l1_thresh: float = Field(default=0.2, gt=0, description="Accumulated relative L1 distance that ends reuse.")
    coefficients: tuple[float, ...] | None = Field(
        default=None,
        min_length=5,
        max_length=5,
        strict=False,
        description="Polynomial, highest power first, that rescales the distance; left out, the model card's.",
    )


class CacheDiT(_Section):
    """Cache-DiT's DBCache: the first blocks decide whether the middle ones are computed or reused."""

    Fn_compute_blocks: int = Field(default=1, ge=1, description="Blocks at the front that are always computed.")
    Bn_compute_blocks: int = Field(default=0, ge=0, description="Blocks at the back that are always computed.")
    max_warmup_steps: int = Field(default=4, ge=0, description="Steps at the start that are never cached.")
    max_cached_steps: int = Field(default=-1, ge=-1, description="Most steps that may be cached; -1: no limit.")
    max_continuous_cached_steps: int = Field(
        default=3, ge=-1, description="Most steps in a row that may be cached; -1: no limit."
    )
    residual_diff_threshold: float = Field(
        default=0.24,
        ge=0,
        description="Relative change of the first blocks' residual below which a step is cached.",
    )
    enable_taylorseer: bool = Field(default=False, description="Extrapolate cached residuals (TaylorSeer).")
    taylorseer_order: int = Field(default=1, ge=1, le=4, description="Order of TaylorSeer's expansion.")
    scm_steps_mask_policy: Literal["slow", "medium", "fast", "ultra"] | None = Field(
        default=None, description="Steps computing mask (SCM): which steps may be cached, decided beforehand."
    )
    scm_steps_policy: Literal["dynamic", "static"] = Field(
        default="dynamic", description="Whether the mask's cached steps still need a small residual, or never."
    )


class Cache(_Section):
    """Step caches; at most one can be active."""

    tea_cache: Annotated[TeaCache | None, BeforeValidator(switch, json_schema_input_type=bool | TeaCache)] = Field(
        default=None, description="Switch TeaCache on: true, or its parameters."
    )
    cache_dit: Annotated[CacheDiT | None, BeforeValidator(switch, json_schema_input_type=bool | CacheDiT)] = Field(
        default=None, description="Switch Cache-DiT on: true, or its parameters."
    )


class Memory(_Section):
    """What trades time for GPU memory. The VAE stays on the GPU in both kinds of offload."""

    enable_cpu_offload: bool = Field(default=False, description="Model-level offload: components wait on the CPU.")
    enable_layerwise_offload: bool = Field(default=False, description="Layerwise offload: blocks wait on the CPU.")
    enable_distributed_layerwise_offload: bool = Field(
        default=False, description="Layerwise offload whose ranks each fetch a part of a block, and gather it."
    )
    offload_components: tuple[Component, ...] | None = Field(
        default=None,
        min_length=1,
        strict=False,
        description="What the offload that is on moves; left out, the engine's own choice.",
    )
    pin_cpu_memory: bool | None = Field(
        default=None,
        description="Keep what is offloaded in pinned memory, which is copied faster; left out, the engine's own way.",
    )


class Vae(_Section):
    """How latents are decoded."""

    vae_use_tiling: bool = Field(default=False, description="Decode tile by tile, which bounds the peak memory.")
    vae_use_slicing: bool = Field(default=False, description="Decode one image of a batch at a time.")


class AttentionQuantization(_Section):
    """Attention on quantized queries, keys and values: their types, and how many share a scale (0: by the type)."""

    qk_dtype: Literal["bf16", "int8", "fp8", "mxfp8", "nvfp4"] = Field(
        default="bf16", description="Type of queries and keys."
    )
    v_dtype: Literal["fp8", "mxfp8", "nvfp4"] = Field(default="fp8", description="Type of values.")
    q_block_size: Block = Field(default=0, description="Queries that share a scale.")
    k_block_size: Block = Field(default=0, description="Keys that share a scale.")
    v_block_size: Block = Field(default=0, description="Values that share a scale.")


class Execution(_Section):
    """How the engine runs the model."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="Precision of the weights; left out, the model's own default."
    )
    quantization: Literal["fp8", "int8", "fp8_weight_only", "int8_weight_only"] | None = Field(
        default=None,
        description="Quantize the DiT's weights, and, unless weight_only, what they are multiplied with.",
    )
    text_encoder_quantization: Literal["fp8_weight_only", "int8_weight_only"] | None = Field(
        default=None, description="Quantize the weights of the text encoders' blocks, too, or alone."
    )
    compile: bool = Field(
        default=False,
        description="torch.compile of the repeated blocks. One word for it: vLLM-Omni's enforce_eager is its opposite.",
    )
    attention_backend: AttentionBackend | None = Field(
        default=None,
        description="Kernel of the DiT's attention, by diffusers' names, or auto; left out, the engine's default.",
    )
    attention_quantization: Annotated[
        AttentionQuantization | None, BeforeValidator(switch, json_schema_input_type=bool | AttentionQuantization)
    ] = Field(default=None, description="Quantize what the DiT's attention multiplies: its types and blocks.")
    step_execution: bool = Field(
        default=False, description="Schedule single denoising steps rather than whole requests."
    )


class Lora(_Section):
    """One LoRA adapter."""

    path: str = Field(min_length=1, description="Local safetensors file.")
    scale: float = Field(default=1.0, ge=-10, le=10, description="Strength; 0 switches the adapter off.")


class Sampling(_Section):
    """What is generated; a server takes these from each request instead."""

    prompt: str | Prompts = Field(default="", description="What the image shows; a list makes an image of each.")
    negative_prompt: str | None = Field(default=None, description="What it must not show; '' is a negative prompt too.")
    image: str | None = Field(default=None, description="Path of the input image of an editing model.")
    width: Pixels | None = Field(default=None, description="Pixels; left out, the model's own default.")
    height: Pixels | None = Field(default=None, description="Pixels; left out, the model's own default.")
    num_frames: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Frames of a video; left out, the model's own default."
    )
    fps: Annotated[int, Field(ge=1, le=240)] | None = Field(
        default=None, description="Frames a second of the video's file; left out, the model's own default."
    )
    num_images_per_prompt: int = Field(default=1, ge=1, le=64, description="Images a prompt.")
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Denoising steps; left out, the model's own default."
    )
    cfg_scale: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="Strength of classifier-free guidance; left out, the model's own default."
    )
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="Distilled guidance, fed to the model as an input; it needs no second branch."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the initial noise.")


class Server(_Section):
    """How `omni serve` answers; what is generated comes with each request, over the defaults in `sampling`."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 is every one.")
    port: int = Field(default=8091, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_key: str | None = Field(
        default=None, min_length=1, description="Key that requests must carry; rather in OMNI_API_KEY, or in a file."
    )
    api_key_file: str | None = Field(default=None, min_length=1, description="File that holds the key.")
    max_queue: int = Field(default=64, ge=1, le=100_000, description="Requests that may wait; more get a 429.")
    max_batch_size: int = Field(default=1, ge=1, le=64, description="Images that are made in one call of the model.")
    request_timeout: float = Field(default=600.0, gt=0, le=86_400, description="Seconds from request to answer.")
    max_restarts: int = Field(default=3, ge=0, le=1000, description="Times that a failed replica is started again.")
    drain_timeout: float = Field(
        default=60.0, ge=0, le=86_400, description="Seconds that requests get to end in after SIGTERM."
    )
    max_images: int = Field(default=10, ge=1, le=64, description="Images a request (n).")
    max_pixels: int = Field(default=4_194_304, ge=256, le=2**28, description="Pixels an image or frame, made or sent.")
    max_frames: int = Field(default=257, ge=1, le=4096, description="Frames a video.")
    max_steps: int = Field(default=200, ge=1, le=1000, description="Denoising steps a request.")
    max_prompt_length: int = Field(default=4096, ge=1, le=1_000_000, description="Characters of a prompt.")
    max_body: float = Field(default=32.0, gt=0, le=1024, description="MiB of a request.")
    store: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of images behind URLs, and of videos; left out, one that ends with the server.",
    )
    max_store: float = Field(default=1024.0, gt=0, le=2**24, description="MiB in the store; the oldest go first.")
    video_lifetime: float = Field(
        default=86_400.0, ge=1, le=31_536_000, description="Seconds that a finished video is kept."
    )
    url_lifetime: float = Field(
        default=3600.0, ge=1, le=31_536_000, description="Seconds that a URL leads to its image."
    )
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+[^\s?#/]$",
        description="Where clients reach the server; left out, URLs begin as the address of the request.",
    )
    lora_folder: str | None = Field(
        default=None, min_length=1, description="Folder of the LoRA adapters that requests may name; left out, none."
    )
    max_loras: int = Field(default=4, ge=1, le=64, description="Adapters of requests that stay loaded.")
    json_logs: bool = Field(default=False, description="Log one JSON object a line.")
    log_prompts: bool = Field(default=False, description="Log prompts; otherwise no log holds them.")


class Document(_Section):
    """One deployment of one diffusion transformer."""

    version: Literal[1] = Field(description="Version of this format.")
    model: str = Field(min_length=1, description="Hub id, local diffusers folder, or embedded: `tiny`, `tiny-qwen`.")
    engine: str = Field(default="native", description="Who runs it: `native` is the built-in runtime.")
    hardware: Hardware = Hardware.model_construct()
    parallel: Parallel = Parallel.model_construct()
    cache: Cache = Cache.model_construct()
    memory: Memory = Memory.model_construct()
    vae: Vae = Vae.model_construct()
    execution: Execution = Execution.model_construct()
    lora: tuple[Lora, ...] = Field(default=(), strict=False, description="LoRA adapters, loaded in this order.")
    sampling: Sampling = Sampling.model_construct()
    server: Annotated[Server | None, BeforeValidator(switch, json_schema_input_type=bool | Server)] = Field(
        default=None, description="The config is for `omni serve`: true, or how it answers."
    )
    output: str = Field(default="outputs", min_length=1, description="Folder for images and report.json.")
