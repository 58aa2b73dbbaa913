"""Parts of small pipelines of random weights that several families have."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

import diffusers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<think>",
    "</think>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ENCODER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
T5: dict[str, Any] = {"vocab_size": 300, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}


def autoencoder_kl(levels: int = 4, tile: int = 32) -> Any:
    """A latent stands for ``2 ** (levels - 1)`` pixels in each direction; a tile is of ``tile`` pixels."""
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=tile,
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def vocabulary() -> dict[str, int]:
    """A token each byte, then the special ones."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL]
    return {name: number for number, name in enumerate(names)}


def byte_tokenizer(longest: int = 10_000) -> Any:
    """A token is a byte; for CLIP, which has places for 77, ``longest`` is that."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast


def calmed(transformer: Any, by: float = 0.3) -> Any:
    """A transformer whose output is smaller: of random weights, it would change too much from step to step to cache."""
    transformer.proj_out.weight.data *= by
    return transformer
