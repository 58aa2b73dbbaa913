"""The pictures that the embedded model learns: one shape of one colour on a plain background, and captions for it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

SIZE = 64  # pixels
SCALE = 8  # drawn this much larger and averaged down, so that edges are smooth

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (240, 205, 40),
    "purple": (150, 60, 190),
    "orange": (245, 135, 30),
}
BACKGROUNDS = {"white": (245, 245, 245), "black": (20, 20, 20), "gray": (130, 130, 130)}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    colour: str
    shape: str
    background: str

    @property
    def caption(self) -> str:
        """The full caption: ``a red star on a white background``."""
        return f"a {self.colour} {self.shape} on a {self.background} background"

    def partial_captions(self) -> list[str]:
        """Captions that say less, from which the model learns what each word means on its own."""
        c, s, b = self.colour, self.shape, self.background
        return [f"a {s}", f"a {c} {s}", f"a {s} on a {b} background", f"a {c} shape", c, s, f"a {b} background"]


def all_scenes() -> list[Scene]:
    """Every combination of colour, shape and background."""
    return [Scene(c, s, b) for c in COLOURS for s in SHAPES for b in BACKGROUNDS]


def random_scene(rng: random.Random) -> Scene:
    """One combination, each equally likely."""
    return Scene(rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(list(BACKGROUNDS)))


def random_caption(scene: Scene, rng: random.Random) -> str:
    """64% the full caption, 26% a partial one, 10% nothing, so that guidance and negative prompts mean something."""
    draw = rng.random()
    if draw < 0.10:
        return ""
    return rng.choice(scene.partial_captions()) if draw < 0.36 else scene.caption


def all_captions() -> list[str]:
    """Every caption that training can see."""
    captions = {""}
    for scene in all_scenes():
        captions |= {scene.caption, *scene.partial_captions()}
    return sorted(captions)


def draw(scene: Scene, rng: random.Random) -> torch.Tensor:
    """A picture of the scene, (3, SIZE, SIZE) in [-1, 1], with place, size and turn drawn at random."""
    radius = rng.uniform(0.32, 0.40)
    x, y = (rng.uniform(0.44, 0.56) for _ in range(2))
    turn = math.radians(rng.uniform(-5, 5))
    side = SIZE * SCALE
    image = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    points = [
        (side * (x + radius * (px * math.cos(turn) - py * math.sin(turn))),
         side * (y + radius * (px * math.sin(turn) + py * math.cos(turn))))
        for px, py in _OUTLINES[scene.shape]
    ]  # fmt: skip
    ImageDraw.Draw(image).polygon(points, fill=COLOURS[scene.colour])
    pixels = np.asarray(image.reduce(SCALE), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1.0


def _regular(corners: int, start: float, radii: tuple[float, ...] = (1.0,)) -> list[tuple[float, float]]:
    angles = [start + 2 * math.pi * i / corners for i in range(corners)]
    return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / 60 for i in range(60)]
    return [
        (
            math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) + 2.5) / 16,
        )
        for a in angles
    ]


_UP = -math.pi / 2
_ARM = 0.34
#: Corners of each shape in a circle of radius 1, y downwards.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _regular(96, 0.0),
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": _regular(3, _UP),
    "star": _regular(10, _UP, (1.0, 0.42)),
    "cross": [
        (-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM),
        (_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM),
    ],
    "heart": _heart(),
}  # fmt: skip
