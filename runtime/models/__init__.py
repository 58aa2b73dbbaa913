"""Model families, a file each: all that the runtime does specially for FLUX stands in ``flux.py``."""

from __future__ import annotations

from typing import Any

from runtime.errors import CannotRunError
from runtime.models import chroma, cog_video_x, flux, qwen_image, sana, wan, z_image
from runtime.models.family import Family

FAMILIES = (
    z_image.FAMILY,
    qwen_image.FAMILY,
    flux.FAMILY,
    chroma.FAMILY,
    wan.FAMILY,
    wan.VACE,
    sana.FAMILY,
    cog_video_x.FAMILY,
)


def of(pipe: Any) -> Family:
    """The family of a pipeline, by the class of its transformer.

    Raises:
        CannotRunError: it is of none that is known here.
    """
    name = type(pipe.transformer).__name__
    for family in FAMILIES:
        if family.transformer == name:
            return family
    known = ", ".join(family.transformer for family in FAMILIES)
    raise CannotRunError(f"the runtime does not know {name}; it knows {known}")


def transformers(pipe: Any) -> list[Any]:
    """The diffusion transformers of a pipeline: one, or, in Wan 2.2, two that take turns."""
    return [pipe.transformer, *([pipe.transformer_2] if getattr(pipe, "transformer_2", None) is not None else [])]


def arguments(pipeline: str, usual: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a pipeline class, from those that most classes take."""
    for family in FAMILIES:
        if pipeline in family.call:
            return family.call[pipeline](usual)
    return usual


def fills(pipeline: str) -> bool:
    """Whether a pipeline class makes new what is transparent in its input image."""
    return pipeline == "FluxFillPipeline"
