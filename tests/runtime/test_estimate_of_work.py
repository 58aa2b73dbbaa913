"""The estimate against what diffusers computes: on the meta device, at full width and size, without a weight."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from omni_config.catalog.load import catalog
from omni_config.estimate.data import decoders
from omni_config.estimate.work import Work, work_of
from omni_config.resolving.target import target_of
from omni_config.schema.settings import validate

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from judge_memory import VALUES

HALF = torch.bfloat16


class LiveValues(TorchDispatchMode):
    """Counts the bfloat16 values that are live at once, views not counted twice, with the workspace of convolutions."""

    def __init__(self, *, workspace: bool = True) -> None:
        super().__init__()
        self.workspace = workspace
        self.live = self.peak = 0
        self.users: dict[int, list[int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.users:
                    self.users[storage._cdata] = [0, storage.nbytes() // 2]
                    self.live += storage.nbytes() // 2
                    self.peak = max(self.peak, self.live)
                self.users[storage._cdata][0] += 1
                weakref.finalize(tensor, self.leave, storage._cdata)
        if self.workspace and "convolution" in str(function):  # it copies its input and its output to channels last
            self.peak = max(self.peak, self.live + args[0].numel() + out.numel())
        return out

    def leave(self, key: int) -> None:
        self.users[key][0] -= 1
        if not self.users[key][0]:
            self.live -= self.users.pop(key)[1]


def measured(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Flops and the most live values of a call; attention is taken to keep no scores, as on a GPU."""
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        call()

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        return query.new_empty(*query.shape[:-1], value.shape[-1])

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    with torch.no_grad(), LiveValues() as values:
        call()
    return flops.get_total_flops(), values.peak


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=HALF)


def flux(model: Any, text: int) -> Any:
    names, one = torch.empty(4096, 3, device="meta"), empty(1)
    places = torch.empty(text, 3, device="meta")
    return lambda: model(
        empty(1, 4096, 64), empty(1, text, 4096), empty(1, 768), one, names, places, one, return_dict=False
    )


def qwen_image(model: Any, text: int) -> Any:
    hidden, prompt = empty(1, 4096, 64), empty(1, text, 3584)
    return lambda: model(hidden, prompt, None, empty(1), [[(1, 64, 64)]], return_dict=False)


def stable_diffusion_3(model: Any, text: int) -> Any:
    return lambda: model(empty(1, 16, 128, 128), empty(1, text, 4096), empty(1, 2048), empty(1), return_dict=False)


def wan(model: Any, text: int) -> Any:
    return lambda: model(empty(1, 16, 21, 60, 104), empty(1), empty(1, text, 4096), return_dict=False)


SD35 = {"sample_size": 128, "num_layers": 38, "num_attention_heads": 38, "attention_head_dim": 64}
SD35 |= {"joint_attention_dim": 4096, "caption_projection_dim": 2432, "pooled_projection_dim": 2048}
SD35 |= {"pos_embed_max_size": 192, "in_channels": 16, "out_channels": 16, "qk_norm": "rms_norm"}
#: The published transformers; what is not said is the constructor's default.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "black-forest-labs/FLUX.1-dev": ("FluxTransformer2DModel", {"guidance_embeds": True}),
    "Qwen/Qwen-Image": ("QwenImageTransformer2DModel", {}),
    "stabilityai/stable-diffusion-3.5-large": ("SD3Transformer2DModel", SD35),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": ("WanTransformer3DModel", {}),
    "Tongyi-MAI/Z-Image": ("ZImageTransformer2DModel", {}),
    "black-forest-labs/FLUX.2-dev": ("Flux2Transformer2DModel", {}),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v": ("HunyuanVideo15Transformer3DModel", {}),
    "AIDC-AI/Ovis-Image-7B": ("OvisImageTransformer2DModel", {}),
    "zai-org/GLM-Image": ("GlmImageTransformer2DModel", {"num_attention_heads": 32, "attention_head_dim": 128}),
    "Lightricks/LTX-2": ("LTX2VideoTransformer3DModel", {}),
    "krea/Krea-2-Raw": ("Krea2Transformer2DModel", {}),
    "BestWishYsh/Helios-Base": ("HeliosTransformer3DModel", {}),
}
#: Some with few blocks, as all are alike: their inputs, the constructor's numbers of blocks, and the card's.
SHALLOW: dict[str, tuple[Any, dict[str, int], dict[str, int]]] = {
    "black-forest-labs/FLUX.1-dev": (
        flux,
        {"num_layers": 2, "num_single_layers": 4},
        {"num_layers": 6, "double_stream_layers": 2},
    ),
    "Qwen/Qwen-Image": (qwen_image, {"num_layers": 4}, {"num_layers": 4, "double_stream_layers": 4}),
    "stabilityai/stable-diffusion-3.5-large": (
        stable_diffusion_3,
        {"num_layers": 4},
        {"num_layers": 4, "double_stream_layers": 4},
    ),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": (wan, {"num_layers": 4}, {"num_layers": 4}),
}


def work(name: str, blocks: dict[str, int]) -> tuple[Work, int]:
    """The work of a card with other numbers of blocks, and the tokens of its text."""
    card, engine = catalog().model(name), catalog().engine("vllm-omni")
    assert card
    assert engine
    card = replace(card, dims=card.dims | blocks)
    target = target_of(card, engine).by(())
    settings, _ = target.applied(validate({"version": 1, "model": name}))
    return work_of(target.quantities(settings)), card.dims["text_tokens"]


def parameters(model: torch.nn.Module) -> float:
    return sum(weight.numel() for weight in model.parameters()) / 1e6


@pytest.mark.parametrize("name", SHALLOW)
def test_flops_and_activations_are_those_of_the_transformer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, blocks, dims = SHALLOW[name]
    kind, options = TRANSFORMERS[name]
    ours, text = work(name, dims)
    with torch.device("meta"):
        model = getattr(diffusers, kind)(**options | blocks).to(HALF).eval()
    flops, values = measured(inputs(model, text), monkeypatch)
    assert ours.projection_flops + ours.ffn_flops + ours.attention_flops == pytest.approx(flops, rel=0.05)
    assert ours.live_values == pytest.approx(values, rel=0.15)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_card_has_the_parameters_of_its_transformer(name: str) -> None:
    card = catalog().model(name)
    kind, options = TRANSFORMERS[name]
    assert card
    with torch.device("meta"):
        model = getattr(diffusers, kind)(**options)
    assert card.dims["transformer_parameters"] == pytest.approx(parameters(model), rel=0.001)


KL = {"latent_channels": 16, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
KL |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
WAN_48 = {"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "in_channels": 12, "out_channels": 12, "patch_size": 2}
WAN_48 |= {"is_residual": True, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}
HUNYUAN_IMAGE = {"in_channels": 3, "out_channels": 3, "latent_channels": 64, "layers_per_block": 2, "sample_size": 384}
HUNYUAN_IMAGE |= {"block_out_channels": (128, 256, 512, 512, 1024, 1024), "spatial_compression_ratio": 32}
#: Each decoder with the latents that it is given here, and the pixels of a frame that they make.
LATENTS = {
    "AutoencoderKL": (KL, (16, 64, 64), 512 * 512),
    "AutoencoderKLFlux2": ({}, (32, 64, 64), 512 * 512),
    "AutoencoderKLQwenImage": ({}, (16, 1, 64, 64), 512 * 512),
    "AutoencoderKLWan": ({}, (16, 5, 60, 104), 480 * 832),
    "AutoencoderKLLTX2Video": ({}, (128, 9, 16, 16), 512 * 512),
    "AutoencoderKLHunyuanVideo15": ({}, (32, 5, 32, 32), 512 * 512),
    "AutoencoderKLWan48": (WAN_48, (48, 5, 16, 16), 256 * 256),
    "AutoencoderKLHunyuanVideo": ({}, (16, 9, 32, 32), 256 * 256),
    "AutoencoderKLCogVideoX": ({}, (16, 5, 30, 45), 240 * 360),
    "AutoencoderKLMochi": ({}, (12, 7, 30, 53), 240 * 424),
    "AutoencoderKLLTXVideo": ({}, (128, 9, 16, 24), 512 * 768),
    "AutoencoderKLMiniMaxH3": ({}, (24, 7, 16, 16), 256 * 256),
    "AutoencoderDC": ({}, (32, 16, 16), 512 * 512),
    "AutoencoderKLHunyuanImage": (HUNYUAN_IMAGE, (64, 16, 16), 512 * 512),
    "AutoencoderKLQwenImage21": ({}, (64, 1, 32, 32), 512 * 512),
}


@pytest.mark.parametrize("name", LATENTS)
def test_flops_and_memory_of_a_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, shape, frame = LATENTS[name]
    known = decoders()[name]
    with torch.device("meta"):
        vae = getattr(diffusers, name.removesuffix(str(known.latent_channels)))(**options).to(HALF).eval()
    latents, pictures = empty(1, *shape), []
    flops, values = measured(lambda: pictures.append(vae.decode(latents, return_dict=False)[0].shape), monkeypatch)
    pixels = pictures[0].numel() / pictures[0][1]
    assert known.flops == pytest.approx(flops / pixels, rel=0.05)
    assert known.parameters == pytest.approx(parameters(vae), rel=0.01)
    assert known.values == pytest.approx(
        values / (frame * known.frames_at_once if known.frames_at_once else pixels), rel=0.15
    )


def test_every_decoder_is_counted() -> None:
    assert LATENTS.keys() == decoders().keys()


def test_live_values_of_the_decoder_that_the_judge_of_memory_builds() -> None:
    quarter = KL | {"block_out_channels": (32, 64, 128, 128), "norm_num_groups": 8}
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(**quarter).to(HALF).eval()
    with torch.no_grad(), LiveValues(workspace=False) as values:
        vae.decode(empty(1, 16, 32, 32), return_dict=False)
    assert values.peak / 256**2 == pytest.approx(VALUES, rel=0.01)
