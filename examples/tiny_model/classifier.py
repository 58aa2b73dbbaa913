"""A small classifier that reads colour, shape and background off a picture: how the embedded model is judged."""

from __future__ import annotations

import itertools
import random

import torch
from shapes import BACKGROUNDS, COLOURS, SHAPES, Scene, draw, random_scene
from torch import nn

NAMES = (tuple(COLOURS), SHAPES, tuple(BACKGROUNDS))


def train_classifier(steps: int = 300, batch: int = 64, seed: int = 1) -> nn.Module:
    """Trained on freshly drawn pictures, under a minute on one core. Gives logits of 6 colours, 6 shapes, 3 grounds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rng = random.Random(seed)
        widths = (3, 16, 32, 64, 64)
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 2 * 2, sum(map(len, NAMES))))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(steps):
            scenes = [random_scene(rng) for _ in range(batch)]
            pictures = torch.stack([draw(scene, rng) for scene in scenes])
            # Noise, so that it reads shapes rather than exact pixel values; generated pictures are never exact.
            pictures = pictures + torch.randn_like(pictures) * torch.rand(batch, 1, 1, 1) * 0.2
            loss = torch.zeros(())
            for logits, targets in zip(_heads(model(pictures)), zip(*map(_numbers, scenes), strict=True), strict=True):
                loss = loss + nn.functional.cross_entropy(logits, torch.tensor(targets))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def read(model: nn.Module, pictures: torch.Tensor) -> list[Scene]:
    """What each picture shows; (n, 3, height, width) in [-1, 1]."""
    choices = [head.argmax(1).tolist() for head in _heads(model(pictures))]
    return [Scene(*(names[i] for names, i in zip(NAMES, row, strict=True))) for row in zip(*choices, strict=True)]


def _heads(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return logits.split([len(names) for names in NAMES], dim=1)


def _numbers(scene: Scene) -> tuple[int, ...]:
    parts = (scene.colour, scene.shape, scene.background)
    return tuple(names.index(part) for names, part in zip(NAMES, parts, strict=True))
