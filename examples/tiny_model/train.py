"""Train the embedded model: a small, genuine ZImagePipeline that draws coloured shapes.

    python examples/tiny_model/train.py --out runtime/tiny_model

Seeded; under an hour on 2 CPU cores. Top to bottom: the tokenizer from the captions, the VAE on the pictures,
its decoder alone, then the transformer and the text encoder together on the VAE's latents, by flow matching in the
conventions of the pipeline: x_sigma = (1 - sigma) x0 + sigma noise, the model is told 1 - sigma, predicts x0 - noise.
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

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from muon import Muon
from shapes import SIZE, all_captions, draw, random_caption, random_scene
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

LATENT_CHANNELS = 8
TEXT_WIDTH = 64
VAE_LR = 2e-3
ADAMW_LR = 2e-3  # embeddings, norms, biases, first and last layers
MUON_LR = 1.5e-3  # weight matrices of the blocks
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over the captions: their words are single tokens, and any other text still has some."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*all_captions(), "user\n", "assistant\n"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[2], chat_template=CHAT_TEMPLATE
    )


def train_vae(steps: int, batch: int, rng: random.Random) -> AutoencoderKL:
    """The VAE: factor 4, so that a picture is LATENT_CHANNELS x 16 x 16."""
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,  # a group is normalised over the picture, which takes away how bright a flat colour is
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), lr=VAE_LR, weight_decay=0.0, betas=(0.9, 0.99))
    start = time.time()
    for step in range(steps):
        _set_lr(optimizer, step, steps)
        pictures = torch.stack([draw(random_scene(rng), rng) for _ in range(batch)])
        posterior = vae.encode(pictures).latent_dist
        error = vae.decode(posterior.sample()).sample - pictures
        edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
        loss = error.abs().mean() + error.square().mean() + edges + 2e-6 * posterior.kl().mean()
        _step(loss, [optimizer], vae.parameters())
        if step % 50 == 0 or step == steps - 1:
            print(f"vae {step}/{steps} psnr {_psnr(error):.1f} dB {time.time() - start:.0f} s", flush=True)
    return vae.eval().requires_grad_(False)


def train_decoder(vae: AutoencoderKL, steps: int, batch: int, rng: random.Random) -> None:
    """Go on with the decoder alone, on less noisy latents: sharper edges, and the latents stay as they are."""
    vae.decoder.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=VAE_LR, weight_decay=0.0, betas=(0.9, 0.99))
    start = time.time()
    for step in range(steps):
        _set_lr(optimizer, step, steps)
        pictures = torch.stack([draw(random_scene(rng), rng) for _ in range(batch)])
        with torch.no_grad():
            posterior = vae.encode(pictures).latent_dist
        latents = posterior.mean + 0.5 * posterior.std * torch.randn_like(posterior.mean)
        error = vae.decode(latents).sample - pictures
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
def encode_pictures(vae: AutoencoderKL, count: int, rng: random.Random) -> tuple[torch.Tensor, list[list[str]]]:
    """Latents of ``count`` pictures, normalised, and 8 captions for each. Sets the VAE's shift and scale from them."""
    latents, captions = [], []
    for _ in range(count // 64):
        scenes = [random_scene(rng) for _ in range(64)]
        latents.append(vae.encode(torch.stack([draw(scene, rng) for scene in scenes])).latent_dist.mean)
        captions += [[random_caption(scene, rng) for _ in range(8)] for scene in scenes]
    result = torch.cat(latents)
    shift, scale = result.mean().item(), 1.0 / result.std().item()
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    return (result - shift) * scale, captions


def train_transformer(
    latents: torch.Tensor,
    captions: list[list[str]],
    tokenizer: PreTrainedTokenizerFast,
    cycles: list[int],
    batch: int,
) -> tuple[ZImageTransformer2DModel, Qwen3Model, float]:
    """The transformer and the text encoder, jointly; returns their averaged weights and the last mean loss.

    ``cycles`` are numbers of steps, of a cosine each; one begins with the averaged weights of the one before.
    """
    transformer = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=144,
        n_layers=6,
        n_refiner_layers=1,
        n_heads=6,
        n_kv_heads=6,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 8, 8],
        axes_lens=[512, 64, 64],
    )
    for name, parameter in transformer.named_parameters():  # start as the identity, as DiTs do
        if "adaLN_modulation" in name or (name.startswith("all_final_layer") and "linear" in name):
            torch.nn.init.zeros_(parameter)
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=128,
            num_hidden_layers=3,  # the pipeline reads the last but one
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=16,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    modules = torch.nn.ModuleList([transformer, text_encoder]).train()
    tokens = {text: _tokens(tokenizer, text) for row in captions for text in row}
    loss = math.nan
    for cycle, steps in enumerate(cycles):
        loss = _train_cycle(modules, latents, captions, tokens, steps, batch, f"dit {cycle}")
    return transformer.eval(), text_encoder.eval(), loss


def _train_cycle(
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
    in_blocks = ("layers.", "noise_refiner.", "context_refiner.")
    matrices = [p for n, p in modules.named_parameters() if p.ndim == 2 and any(part in n for part in in_blocks)]
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
        features = _encode(text_encoder, [tokens[text] for text in texts])
        predicted = transformer(list(noisy.unsqueeze(2).unbind(0)), 1 - sigma, features, return_dict=False)[0]
        loss = torch.nn.functional.mse_loss(torch.stack(list(predicted)).squeeze(2), x0 - noise)
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


def _tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of a prompt as the pipeline writes it."""
    message = [{"role": "user", "content": text}]
    written = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    return tokenizer(written).input_ids


def _encode(text_encoder: Qwen3Model, rows: list[list[int]]) -> list[torch.Tensor]:
    """Features of each prompt, (tokens, TEXT_WIDTH), without padding. Equal prompts are encoded once."""
    unique = sorted({tuple(row) for row in rows})
    longest = max(map(len, unique))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in unique])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in unique])
    hidden = text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    place = {row: i for i, row in enumerate(unique)}
    return [hidden[place[tuple(row)], : len(row)] for row in rows]


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
    tokenizer = make_tokenizer()
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    rng = random.Random(arguments.seed)
    vae = train_vae(arguments.vae_steps, 8, rng)
    train_decoder(vae, arguments.decoder_steps, 8, rng)
    latents, captions = encode_pictures(vae, arguments.pictures, rng)
    print(f"latents {tuple(latents.shape)} {time.time() - start:.0f} s", flush=True)
    transformer, text_encoder, loss = train_transformer(latents, captions, tokenizer, arguments.cycles, arguments.batch)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline = ZImagePipeline(scheduler, vae, text_encoder, tokenizer, transformer)
    pipeline.to(torch.bfloat16).save_pretrained(arguments.out)
    forget_paths(arguments.out)
    print(json.dumps({"loss": round(loss, 4), "seconds": round(time.time() - start), **vars(arguments)}, default=str))


if __name__ == "__main__":
    main()
