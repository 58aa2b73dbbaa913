"""Train an embedded model: a small, genuine ZImagePipeline or QwenImagePipeline that draws coloured shapes.

    python examples/tiny_model/train.py --out runtime/tiny_model
    python examples/tiny_model/train.py --pipeline qwen-image --out runtime/tiny_qwen_model

Seeded; under an hour on 2 CPU cores. Top to bottom: the tokenizer from the captions, the VAE on the pictures,
its decoder alone, then the transformer and the text encoder together on the VAE's latents, by flow matching:
x_sigma = (1 - sigma) x0 + sigma noise, and noise - x0 is predicted. z_image.py and qwen_image.py hold what differs.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import qwen_image
import torch
import z_image
from diffusers import ModelMixin
from muon import Muon
from shapes import draw, random_caption, random_scene
from transformers import PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = {"z-image": z_image, "qwen-image": qwen_image}
ADAMW_LR = 2e-3  # embeddings, norms, biases, first and last layers
MUON_LR = 1.5e-3  # weight matrices of the blocks


def train_vae(family: ModuleType, steps: int, batch: int, rng: random.Random) -> ModelMixin:
    """The VAE, encoder and decoder together."""
    vae = family.make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=family.VAE_LR, weight_decay=0.0, betas=(0.9, 0.99))
    start = time.time()
    for step in range(steps):
        _set_lr(optimizer, step, steps)
        pictures = torch.stack([draw(random_scene(rng), rng) for _ in range(batch)])
        posterior = family.encode(vae, pictures)
        error = family.decode(vae, posterior.sample()) - pictures
        edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
        loss = error.abs().mean() + error.square().mean() + edges + 2e-6 * posterior.kl().mean()
        _step(loss, [optimizer], vae.parameters())
        if step % 50 == 0 or step == steps - 1:
            print(f"vae {step}/{steps} psnr {_psnr(error):.1f} dB {time.time() - start:.0f} s", flush=True)
    return vae.eval().requires_grad_(False)


def train_decoder(family: ModuleType, vae: ModelMixin, steps: int, batch: int, rng: random.Random) -> None:
    """Go on with the decoder alone, on less noisy latents: sharper edges, and the latents stay as they are."""
    vae.decoder.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=family.VAE_LR, weight_decay=0.0, betas=(0.9, 0.99))
    start = time.time()
    for step in range(steps):
        _set_lr(optimizer, step, steps)
        pictures = torch.stack([draw(random_scene(rng), rng) for _ in range(batch)])
        with torch.no_grad():
            posterior = family.encode(vae, pictures)
        latents = posterior.mean + 0.5 * posterior.std * torch.randn_like(posterior.mean)
        error = family.decode(vae, latents) - pictures
        edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
        loss = error.abs().mean() + error.square().mean() + edges
        _step(loss, [optimizer], vae.decoder.parameters())
        if step % 50 == 0 or step == steps - 1:
            print(f"decoder {step}/{steps} psnr {_psnr(error):.1f} dB {time.time() - start:.0f} s", flush=True)
    vae.eval().requires_grad_(False)


def _psnr(error: torch.Tensor) -> float:
    """Of pictures in [-1, 1], in dB."""
    return 10 * math.log10(4 / error.square().mean().item())


@torch.no_grad()
def encode_pictures(
    family: ModuleType, vae: ModelMixin, count: int, rng: random.Random
) -> tuple[torch.Tensor, list[list[str]]]:
    """Latents of ``count`` pictures, normalised, and 8 captions for each."""
    latents, captions = [], []
    for _ in range(count // 64):
        scenes = [random_scene(rng) for _ in range(64)]
        latents.append(family.encode(vae, torch.stack([draw(scene, rng) for scene in scenes])).mean)
        captions += [[random_caption(scene, rng) for _ in range(8)] for scene in scenes]
    return family.normalise(vae, torch.cat(latents)), captions


def train_transformer(
    family: ModuleType,
    latents: torch.Tensor,
    captions: list[list[str]],
    tokenizer: PreTrainedTokenizerFast,
    cycles: list[int],
    batch: int,
) -> tuple[ModelMixin, PreTrainedModel, float]:
    """The transformer and the text encoder, jointly; returns their averaged weights and the last mean loss.

    ``cycles`` are numbers of steps, of a cosine each; one begins with the averaged weights of the one before.
    """
    transformer = family.make_transformer()
    for name, parameter in transformer.named_parameters():
        if any(part in name for part in family.ZERO):
            torch.nn.init.zeros_(parameter)
    text_encoder = family.make_text_encoder(tokenizer)
    modules = torch.nn.ModuleList([transformer, text_encoder]).train()
    tokens = {text: family.prompt_tokens(tokenizer, text) for row in captions for text in row}
    loss = math.nan
    for cycle, steps in enumerate(cycles):
        loss = _train_cycle(family, modules, latents, captions, tokens, steps, batch, f"dit {cycle}")
    return transformer.eval(), text_encoder.eval(), loss


def _train_cycle(
    family: ModuleType,
    modules: torch.nn.ModuleList,
    latents: torch.Tensor,
    captions: list[list[str]],
    tokens: dict[str, list[int]],
    steps: int,
    batch: int,
    name: str,
) -> float:
    """One cosine; leaves the averaged weights in ``modules`` and returns the mean loss of its last 100 steps."""
    transformer, text_encoder = modules
    averaged = copy.deepcopy(modules).requires_grad_(False)
    matrices = [p for n, p in modules.named_parameters() if p.ndim == 2 and any(part in n for part in family.BLOCKS)]
    others = [p for p in modules.parameters() if not any(p is matrix for matrix in matrices)]
    optimizers = [
        Muon(matrices, lr=MUON_LR),
        torch.optim.AdamW(others, lr=ADAMW_LR, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    start, recent = time.time(), []
    for step in range(steps):
        for optimizer in optimizers:
            _set_lr(optimizer, step, steps)
        index = torch.randint(len(latents), (batch,))
        texts = [random.choice(captions[i]) for i in index.tolist()]
        x0, noise = latents[index], torch.randn(batch, *latents.shape[1:])
        sigma = _noise_levels(batch)
        noisy = torch.lerp(x0, noise, sigma[:, None, None, None])
        prompts = [tokens[text] for text in texts]
        predicted = family.predict(transformer, text_encoder, noisy, sigma, prompts)
        loss = torch.nn.functional.mse_loss(predicted, noise - x0)
        _step(loss, optimizers, modules.parameters())
        decay = min(0.99, (step + 1) / (step + 10))
        for average, parameter in zip(averaged.parameters(), modules.parameters(), strict=True):
            average.lerp_(parameter.detach(), 1 - decay)
        recent = [*recent[-99:], loss.item()]
        if step % 50 == 0 or step == steps - 1:
            mean = sum(recent) / len(recent)
            print(f"{name} {step}/{steps} loss {mean:.4f} {time.time() - start:.0f} s", flush=True)
    modules.load_state_dict(averaged.state_dict())
    return sum(recent) / len(recent)


def _noise_levels(count: int) -> torch.Tensor:
    """Mostly high sigma, where shapes are decided: flat colours are so redundant that low noise hides nothing."""
    high = torch.sigmoid(torch.randn(count) * 1.1 + 1.5)
    return torch.where(torch.rand(count) < 0.85, high, torch.rand(count)).clamp(1e-3, 1.0)


def _set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Linear warm-up, then a cosine down to a fiftieth."""
    warm = min(1.0, (step + 1) / 50)
    for group in optimizer.param_groups:
        peak = group.setdefault("peak", group["lr"])
        group["lr"] = peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _step(loss: torch.Tensor, optimizers: list[torch.optim.Optimizer], parameters: Iterator[torch.Tensor]) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def forget_paths(folder: Path) -> None:
    """Remove what the configurations say of the folders that their parts were loaded from."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Train all parts and write the pipeline's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", choices=FAMILIES, default="z-image")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--vae-steps", type=int, default=900)
    parser.add_argument("--decoder-steps", type=int, default=800)
    parser.add_argument("--cycles", type=int, nargs="+", default=[600, 300, 800], help="steps of the transformer")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    start = time.time()
    family = FAMILIES[arguments.pipeline]
    tokenizer = family.make_tokenizer()
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    rng = random.Random(arguments.seed)
    vae = train_vae(family, arguments.vae_steps, 8, rng)
    train_decoder(family, vae, arguments.decoder_steps, 8, rng)
    latents, captions = encode_pictures(family, vae, arguments.pictures, rng)
    print(f"latents {tuple(latents.shape)} {time.time() - start:.0f} s", flush=True)
    transformer, text_encoder, loss = train_transformer(
        family, latents, captions, tokenizer, arguments.cycles, arguments.batch
    )
    pipeline = family.make_pipeline(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer)
    pipeline.to(torch.bfloat16).save_pretrained(arguments.out)
    forget_paths(arguments.out)
    print(json.dumps({"loss": round(loss, 4), "seconds": round(time.time() - start), **vars(arguments)}, default=str))


if __name__ == "__main__":
    main()
