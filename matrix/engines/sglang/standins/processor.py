"""Qwen's processor without its part for videos: the small model's is made without torchvision, and has none.

SGLang 0.5.23 gives the processor of an edit images alone.
"""

from __future__ import annotations

import importlib
from typing import Any

FOR = "small models"


def apply() -> None:
    """In transformers, for all models of the process."""
    processors: Any = importlib.import_module("transformers")
    processors.Qwen2VLProcessor.get_attributes = staticmethod(lambda: ["image_processor", "tokenizer"])
