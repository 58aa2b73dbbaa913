"""The Plan: what will run, complete and decided. The workers read it from disk and add nothing to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION: Literal[1] = 1

# Outermost first. CFG moves the fewest bytes and tensor parallelism the most, so tensor ranks are neighbours.
AXES = ("cfg", "ring", "ulysses", "tensor")

#: The models that come with the runtime, by name: their folders in it.
EMBEDDED = {"tiny": "tiny_model", "tiny-qwen": "tiny_qwen_model"}


@dataclass(frozen=True, slots=True)
class Mesh:
    """Sizes of the device mesh, outermost axis first."""

    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    tensor: int = 1
    nodes: int = 1  # machines, each with the same number of ranks, in order: whole ulysses and tensor groups

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return prod(getattr(self, axis) for axis in AXES)

    @property
    def ranks_per_node(self) -> int:
        """Number of ranks of a machine."""
        return self.world_size // self.nodes

    def coordinates(self, rank: int) -> dict[str, int]:
        """Coordinates of a rank on each axis; the last axis varies fastest. The one place that orders ranks.

        Raises:
            IndexError: the mesh has no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise IndexError(f"rank {rank} of a mesh of {self.world_size}")
        result = {}
        for axis in reversed(AXES):
            rank, result[axis] = divmod(rank, getattr(self, axis))
        return {axis: result[axis] for axis in AXES}


@dataclass(frozen=True, slots=True)
class Model:
    """Which pipeline is loaded, from where."""

    id: str
    source: str  # a hub id, a local folder, or an embedded model
    pipeline: str  # the diffusers class that the folder must hold
    task: str
    dtype: Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Cache:
    """Which step cache runs, with every parameter that it takes."""

    backend: Literal["none", "tea_cache", "cache_dit"]
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lora:
    """One adapter: a safetensors file, and what it is multiplied by."""

    path: str
    scale: float


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

    prompt: str
    negative_prompt: str | None
    image: str | None  # path of the input picture of an editing model
    width: int
    height: int
    num_images_per_prompt: int
    video: Video | None  # None: a picture is made
    num_inference_steps: int
    guidance: dict[str, float]
    guidance_branches: int  # predictions a step that classifier-free guidance needs; 1 where it is off
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the runtime needs; nothing in it means "decide later"."""

    version: Literal[1]
    engine: str
    model: Model
    mesh: Mesh
    cache: Cache
    offload: Literal["none", "model", "layerwise"]
    lora: list[Lora]
    text_encoder_tensor_parallel: bool
    compile: bool
    attention_backend: str
    vae: Vae
    sampling: Sampling
    output: str

    def to_dict(self) -> dict[str, Any]:
        """The Plan as JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_json(text: str | bytes) -> Plan:
        """Read a Plan written by ``json.dumps(plan.to_dict())``.

        Raises:
            pydantic.ValidationError: the text is not a Plan of this version.
        """
        return _adapter().validate_json(text, strict=True)


def sampling_from(values: dict[str, Any]) -> Sampling:
    """Read ``asdict(sampling)``."""
    video = values["video"]
    return Sampling(**values | {"video": video and Video(**video)})


@cache
def _adapter() -> TypeAdapter[Plan]:
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)
