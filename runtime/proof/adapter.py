"""A LoRA adapter of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def adapter(transformer: Any, folder: Path, seed: int = 0, rank: int = 4) -> Path:
    """Save a LoRA adapter of random weights for the attention and the feed-forward of a transformer."""
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(seed)
    layers = r".*(to_[qkv]|to_out\.0|w[13]|net\.2|single_transformer_blocks\.\d+\.proj_(mlp|out))"
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers, init_lora_weights=False))
    weights = {f"transformer.{key}": weight for key, weight in get_peft_model_state_dict(transformer).items()}
    transformer.delete_adapters("default")
    path = folder / f"lora-{seed}.safetensors"
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path)
    return path
