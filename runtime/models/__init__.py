"""Model families, a file each: all that the runtime does specially for FLUX stands in ``flux.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from omni_config.plan import Plan
from runtime.errors import CannotRunError
from runtime.models import (
    chroma,
    cog_video_x,
    flux,
    flux_2,
    hunyuan_video_1_5,
    ltx_2,
    qwen_image,
    sana,
    stable_diffusion_3,
    wan,
    z_image,
)
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
    stable_diffusion_3.FAMILY,
    flux_2.FAMILY,
    hunyuan_video_1_5.FAMILY,
    ltx_2.FAMILY,
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


def module_of(family: Family) -> str:
    """The name of the module that has a family."""
    return next(
        value.__name__
        for value in globals().values()
        if isinstance(value, ModuleType) and any(one is family for one in vars(value).values())
    )


def transformers(pipe: Any) -> list[Any]:
    """The diffusion transformers of a pipeline: one, or, in Wan 2.2, two that take turns."""
    return [pipe.transformer, *([pipe.transformer_2] if getattr(pipe, "transformer_2", None) is not None else [])]


def for_image(pipe: Any) -> Any:
    """The pipeline for a call with an input image: that of Wan 2.2's 5B is another class with the same parts.

    Raises:
        CannotRunError: a Wan that makes videos of text only.
    """
    import diffusers

    if not isinstance(pipe, diffusers.WanPipeline):
        return pipe
    if not pipe.config.expand_timesteps:
        raise CannotRunError(
            "this Wan takes no input image; next: remove sampling.image, or choose an I2V or TI2V model"
        )
    other = diffusers.WanImageToVideoPipeline(
        **pipe.components, image_encoder=None, image_processor=None, expand_timesteps=True
    )
    other.set_progress_bar_config(disable=True)
    return other


def arguments(plan: Plan, usual: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of the Plan's pipeline class, from those that most classes take.

    Raises:
        CannotRunError: the class cannot be called so.
    """
    for family in FAMILIES:
        if plan.model.pipeline in family.call:
            return family.call[plan.model.pipeline](plan, usual)
    return usual


def mode_of_image(pipeline: str) -> str:
    """PIL's mode of the input image of a pipeline class."""
    return "RGBA" if any(pipeline in family.transparent for family in FAMILIES) else "RGB"
