"""The sizes of a small model, from its config: the pipeline of Z-Image makes the published ones only.

vLLM-Omni 0.30 has a function for it, ``get_transformer_config_kwargs``, which its other pipelines use.
"""

from __future__ import annotations

import importlib
from typing import Any

FOR = "small models"


def apply(omni: Any) -> None:
    """After the import, in the module of the pipeline."""
    if omni is None:
        return
    pipeline: Any = importlib.import_module("vllm_omni.diffusion.models.z_image.pipeline_z_image")
    context: Any = importlib.import_module("vllm_omni.diffusion.forward_context")
    utils: Any = importlib.import_module("vllm_omni.diffusion.utils.tf_utils")
    whole = pipeline.ZImageTransformer2DModel

    class Sized(pipeline.ZImageTransformer2DModel):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            config = context.get_forward_context().omni_diffusion_config.tf_model_config
            super().__init__(**utils.get_transformer_config_kwargs(config, whole) | given)

    Sized.__name__ = whole.__name__
    pipeline.ZImageTransformer2DModel = Sized
