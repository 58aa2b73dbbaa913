"""What the estimate knows: GPUs, decoders and efficiencies, each from the YAML of that name beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omni_config.compiled_data import cached

if TYPE_CHECKING:
    from omni_config.estimate.measured import Measured

FOLDER = Path(__file__).parent
Bound = Literal["worst", "value", "best"]
BOUNDS: tuple[Bound, ...] = ("worst", "value", "best")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU by its datasheet. ``tflops`` dense BF16; ``memory`` in GiB; bandwidths in GB/s, links per direction."""

    id: str
    title: str
    architecture: str
    tflops: float
    memory: float
    bandwidth: float
    link_kind: str
    link: float
    host: float
    gpus_per_node: int
    source: str
    measured: Measured | None = None
    """What was measured of a machine, in the place of the datasheet."""
    learned: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """Efficiencies that this GPU's runs have shown, by id: at worst, best guess, at best."""

    def efficiencies(self, bound: Bound = "value") -> Mapping[str, float]:
        """Efficiencies by id: best guesses, or one end of their uncertainty."""
        place = BOUNDS.index(bound)
        return {**efficiencies(bound), **{name: values[place] for name, values in self.learned.items()}}


@dataclass(frozen=True, slots=True)
class Decoder:
    """A VAE's decoder: ``parameters`` in millions, ``flops`` and live ``values`` for one pixel of one frame."""

    id: str
    parameters: float
    flops: float
    values: float
    tile: int
    stride: int
    frames_at_once: int | None = None
    first_frame: float | None = None
    shared: Mapping[str, int] | None = None
    latent_channels: int | None = None
    always_tiled: bool = False

    def shared_by_ranks(self, width: int, height: int) -> Decoder:
        """The decoder with the tiles that ranks share of an image of so many pixels."""
        if self.shared is None or min(width, height) < self.shared["pixels"]:
            return self
        return replace(self, tile=self.shared["tile"], stride=self.shared["stride"])

    def tiles(self, width: int, height: int) -> int:
        """Tiles of an image of so many pixels; 1 where it is no larger than a tile."""
        if max(width, height) <= self.tile:
            return 1
        return ceil(width / self.stride) * ceil(height / self.stride)


@cache
def _data() -> dict[str, Any]:
    files = [FOLDER / f"{name}.yaml" for name in ("gpus", "vaes", "efficiencies")]
    return cached("estimate", [*files, Path(__file__)], lambda: {path.stem: _read(path) for path in files})


def _read(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def gpus() -> dict[str, Gpu]:
    """Known GPUs by id."""
    return {item["id"]: Gpu(**item) for item in _data()["gpus"]}


@cache
def decoders() -> dict[str, Decoder]:
    """Known VAE decoders by their diffusers class."""
    return {item["id"]: Decoder(**item) for item in _data()["vaes"]}


@cache
def efficiencies(bound: Bound = "value") -> Mapping[str, float]:
    """Efficiencies by id: best guesses, or one end of their uncertainty."""
    return {item["id"]: float(item[bound]) for item in _data()["efficiencies"]}


def efficiency_table() -> list[dict[str, Any]]:
    """The efficiencies with their sources, as the page about the estimate prints them."""
    return list(_data()["efficiencies"])
