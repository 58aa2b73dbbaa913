"""Score an embedded model: how many of 100 prompts it draws right, and a sheet of pictures to look at.

python examples/tiny_model/evaluate.py runtime/tiny_model --sheet sheet.png
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import qwen_image
import torch
import z_image
from classifier import read, train_classifier
from diffusers import DiffusionPipeline
from PIL import Image
from shapes import COLOURS, SHAPES, SIZE, Scene, all_scenes, draw, random_scene
from torch import nn

FAMILIES = {"ZImagePipeline": z_image, "QwenImagePipeline": qwen_image}


def load(folder: Path) -> DiffusionPipeline:
    """The pipeline in float32, silent."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def prompts(count: int = 100, seed: int = 20_000) -> list[Scene]:
    """Scenes to draw, all different; a seed that nothing else uses."""
    return random.Random(seed).sample(all_scenes(), count)


def generate(
    pipeline: DiffusionPipeline,
    captions: list[str],
    guidance: float = 2.0,
    steps: int = 20,
    seed: int = 20_000,
    negative: str = "",
) -> torch.Tensor:
    """Pictures of the captions, (n, 3, SIZE, SIZE) in [-1, 1]; picture i from the noise of seed + i.

    ``guidance`` is how much of the difference from the negative prompt is added; 0 is none.
    """
    result = pipeline(
        prompt=list(captions),
        negative_prompt=[negative] * len(captions),
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        **FAMILIES[type(pipeline).__name__].call_arguments(guidance),
        generator=[torch.Generator().manual_seed(seed + i) for i in range(len(captions))],
        max_sequence_length=64,
        output_type="pt",
    )
    return result.images.float() * 2 - 1


def score(classifier: nn.Module, pictures: torch.Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Share of pictures that show the right colour, shape, background, and all three."""
    seen = read(classifier, pictures)
    parts = ("colour", "shape", "background")
    rights = [[getattr(a, part) == getattr(b, part) for part in parts] for a, b in zip(seen, scenes, strict=True)]
    shares = {part: sum(column) / len(rights) for part, column in zip(parts, zip(*rights, strict=True), strict=True)}
    return shares | {"all": sum(map(all, rights)) / len(rights)}


def vae_psnr(pipeline: DiffusionPipeline, count: int = 64, seed: int = 20_000) -> float:
    """Of the VAE on pictures it was not trained on, in dB."""
    family, vae = FAMILIES[type(pipeline).__name__], pipeline.vae
    rng = random.Random(seed)
    pictures = torch.stack([draw(random_scene(rng), rng) for _ in range(count)])
    with torch.no_grad():
        decoded = family.decode(vae, family.encode(vae, pictures).mean).clamp(-1, 1)
    return 10 * math.log10(4 / (decoded - pictures).square().mean().item())


def save_sheet(pipeline: DiffusionPipeline, path: Path, guidance: float, steps: int) -> None:
    """Every shape (columns) in every colour (rows), enlarged twice."""
    grounds = ("white", "black", "gray")
    scenes = [Scene(c, s, grounds[(i + j) % 3]) for i, c in enumerate(COLOURS) for j, s in enumerate(SHAPES)]
    pictures = generate(pipeline, [scene.caption for scene in scenes], guidance, steps)
    rows = [torch.cat(list(row), dim=2) for row in pictures.split(len(SHAPES))]
    pixels = ((torch.cat(rows, dim=1).clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheet", type=Path, help="write every shape in every colour here")
    parser.add_argument("--guidance", type=float, nargs="*", default=[0.0, 1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int, nargs="*", default=[8, 20])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load(arguments.folder)
    print(f"vae {vae_psnr(pipeline):.1f} dB", flush=True)
    if arguments.sheet:
        save_sheet(pipeline, arguments.sheet, guidance=2.0, steps=20)
    classifier = train_classifier()
    scenes = prompts()
    for steps in arguments.steps:
        for guidance in arguments.guidance:
            start = time.time()
            pictures = generate(pipeline, [scene.caption for scene in scenes], guidance, steps)
            shares = score(classifier, pictures, scenes)
            print(f"steps {steps} guidance {guidance} {shares} {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
