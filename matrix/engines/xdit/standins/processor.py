"""Qwen's processor without torchvision, which the environment does not have: transformers (5.23) needs it for videos.

Qwen-Image-Edit looks at pictures only.
"""

from __future__ import annotations

from typing import Any

FOR = "a small environment"


def apply(xfuser: Any) -> None:
    """Before the import."""
    if xfuser is None:
        from transformers import Qwen2VLProcessor

        Qwen2VLProcessor.get_attributes = staticmethod(lambda: ["image_processor", "tokenizer"])
