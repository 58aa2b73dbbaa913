"""The Plan: what will run, complete and decided. The workers read it from disk and add nothing to it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from omni_config.mesh import Mesh

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION: Literal[3] = 3  # raised with each field that a Plan needs; 3: hsdp, quantization, several prompts

#: The models that come with the runtime, by name: their folders in it.
EMBEDDED = {"tiny": "tiny_model", "tiny-qwen": "tiny_qwen_model"}


@dataclass(frozen=True, slots=True)
class Model:
    """Which pipeline is loaded, from where."""

    id: str
    source: str  # a hub id, a local folder, or an embedded model
    pipeline: str  # the diffusers class that the folder must hold
    task: str
    dtype: Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class TeaCache:
    """TeaCache runs. ``coefficients``, highest power first, are None where neither config nor model card has them."""

    rel_l1_thresh: float
    coefficients: tuple[float, ...] | None
    backend: Literal["tea_cache"] = "tea_cache"


@dataclass(frozen=True, slots=True)
class CacheDiT:
    """Cache-DiT runs; its parameters by the names of the config."""

    Fn_compute_blocks: int
    Bn_compute_blocks: int
    max_warmup_steps: int
    max_cached_steps: int
    max_continuous_cached_steps: int
    residual_diff_threshold: float
    enable_taylorseer: bool
    taylorseer_order: int
    scm_steps_mask_policy: Literal["slow", "medium", "fast", "ultra"] | None
    scm_steps_policy: Literal["dynamic", "static"]
    backend: Literal["cache_dit"] = "cache_dit"


@dataclass(frozen=True, slots=True)
class Lora:
    """One adapter: a safetensors file, and what it is multiplied by."""

    path: str
    scale: float


@dataclass(frozen=True, slots=True)
class Hsdp:
    """Ranks hold ``replicate`` copies of the transformer's weights, each sharded over ``shard`` ranks."""

    replicate: int
    shard: int


@dataclass(frozen=True, slots=True)
class Vae:
    """How latents are decoded."""

    use_tiling: bool
    use_slicing: bool
    patch_parallel_size: int


@dataclass(frozen=True, slots=True)
class Video:
    """Length of a video. Frames are None only for engines that take them from elsewhere; OMNI521 asks for them."""

    num_frames: int | None
    fps: int | None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Arguments of one call of the pipeline. ``guidance`` is by the pipeline's own argument names."""

    prompt: str | list[str]  # several make an image each, in one call
    negative_prompt: str | None
    image: str | None  # path of the input image of an editing model
    width: int
    height: int
    num_images_per_prompt: int
    video: Video | None  # None: an image is made
    num_inference_steps: int
    guidance: dict[str, float]
    guidance_branches: int  # predictions a step that classifier-free guidance needs; 1 where it is off
    seed: int

    @property
    def prompts(self) -> list[str]:
        """All prompts of the call; ``num_images_per_prompt`` images of each follow each other."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


#: How the vae of a plain pipeline decodes.
WHOLE = Vae(use_tiling=False, use_slicing=False, patch_parallel_size=1)
#: Fields of a Plan that its reference run shares. Every other field says in its metadata what ``off`` is.
SHARED = ("version", "engine", "model", "guidance_calls", "lora", "sampling", "output")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the runtime needs; nothing in it means "decide later"."""

    version: Literal[3]
    engine: str
    model: Model
    guidance_calls: Literal["two", "batched"] | None  # of the transformer a step, where guidance has two branches
    mesh: Mesh = field(metadata={"off": Mesh()})
    hsdp: Hsdp | None = field(metadata={"off": None})
    cache: TeaCache | CacheDiT | None = field(metadata={"off": None})
    offload: Literal["none", "model", "layerwise"] = field(metadata={"off": "none"})
    lora: list[Lora]
    quantization: Literal["fp8", "int8", "fp8_weight_only", "int8_weight_only"] | None = field(metadata={"off": None})
    text_encoder_quantization: Literal["fp8_weight_only", "int8_weight_only"] | None = field(metadata={"off": None})
    text_encoder_tensor_parallel: bool = field(metadata={"off": False})
    compile: bool = field(metadata={"off": False})
    attention_backend: str = field(metadata={"off": "native"})
    vae: Vae = field(metadata={"off": WHOLE})
    sampling: Sampling
    output: str

    @property
    def decoding_ranks(self) -> range:
        """The ranks that decode latents: all that share the tiles, from the first on."""
        return range(self.vae.patch_parallel_size)

    def plain(self) -> Plan:
        """The reference run: the plain pipeline on one rank, with the same model, adapters and sampling.

        It decodes in tiles where this Plan does, because tiles make another image; only where tiles are all that this
        Plan switches on does it decode the whole image.
        """
        values = {
            item.name: getattr(self, item.name) if item.name in SHARED else item.metadata["off"]
            for item in fields(self)
        }
        plain = Plan(**values | {"output": ""})
        tiled = replace(plain, vae=replace(WHOLE, use_tiling=self.vae.use_tiling or len(self.decoding_ranks) > 1))
        return plain if tiled == replace(self, output="") else tiled

    def to_dict(self) -> dict[str, Any]:
        """The Plan as JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_json(text: str | bytes) -> Plan:
        """Read a Plan written by ``json.dumps(plan.to_dict())``.

        Raises:
            ValueError: it is a Plan of another version, in one line; or, pydantic's own, the text is no Plan.
        """
        import json

        data = None
        with suppress(ValueError):  # of text that is no JSON, pydantic says more
            data = json.loads(text)
        if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
            found = f"this Plan is of version {data['version']}, and {VERSION} is read"
            raise ValueError(f"{found}; next: omni plan --json makes it anew")
        return _adapter().validate_json(text, strict=True)


def sampling_from(values: dict[str, Any]) -> Sampling:
    """Read ``asdict(sampling)``."""
    video = values["video"]
    return Sampling(**values | {"video": video and Video(**video)})


@cache
def _adapter() -> TypeAdapter[Plan]:
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)
