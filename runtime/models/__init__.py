"""Model families, a file each: all that the runtime does specially for FLUX stands in ``flux.py``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from omni_config.plan import Plan
from runtime.errors import CannotRunError
from runtime.models.family import Family

# Found, not listed: a new family changes no code that decides about the others, so that their evidence stays.
_MODULES = [
    import_module(f"{__name__}.{module.name}")
    for module in iter_modules(__path__)
    if module.name not in ("family", "random_parts")
]
FAMILIES = tuple(value for module in _MODULES for value in vars(module).values() if isinstance(value, Family))


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
    return next(module.__name__ for module in _MODULES if any(value is family for value in vars(module).values()))


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
