"""Small pipelines of random weights, of the classes that no embedded model has, in diffusers' own folders.

Ranks must compute of them what one rank does; what they draw means nothing.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from runtime.models import FAMILIES
from runtime.pipeline.load import FOLDERS
from runtime.proof import small_pipelines
from runtime.proof.adapter import adapter as adapter

#: What builds each class.
PIPELINES = {name: builder for family in FAMILIES for name, builder in family.random.items()}


def build(pipeline: str, folder: Path) -> Path:
    """Save the pipeline of a class into ``folder``, the same weights each time.

    Raises:
        KeyError: the class is none of ``PIPELINES``, nor of those beside them.
    """
    transformers.logging.set_verbosity_error()  # the configs here name no tokens for a beginning and an end
    transformers.logging.disable_progress_bar()
    diffusers.logging.disable_progress_bar()
    torch.manual_seed(0)
    pipe = (PIPELINES | small_pipelines.PIPELINES)[pipeline]()
    for name, layer in pipe.transformer.named_modules():
        if name.endswith("to_v"):  # or attention would hardly matter, and a picture not show whether it is right
            layer.weight.data *= 100
    pipe.save_pretrained(folder)
    return folder


def transformer_of(source: str) -> Any:
    """The transformer of a diffusers folder, or of an embedded model."""
    return diffusers.AutoModel.from_pretrained(str(FOLDERS.get(source, source)), subfolder="transformer")
