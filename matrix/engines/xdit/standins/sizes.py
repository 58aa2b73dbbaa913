"""The sizes of a small model: some wrappers of 0.7 drop the config of a checkpoint, and fit the published ones only.

Their ``__init__`` takes ``**kwargs``, and diffusers passes what an ``__init__`` names: nothing.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

FOR = "small models"


def apply(xfuser: Any) -> None:
    """After the import: such a wrapper names what its base names."""
    if xfuser is None:
        return
    for wrapper in _dropping():
        named = inspect.signature(wrapper.__mro__[1].__init__)
        wrapper.__init__.__signature__ = named


def _dropping() -> Iterator[Any]:
    from diffusers import ModelMixin

    package: Any = importlib.import_module("xfuser.model_executor.models.transformers")
    for module in pkgutil.iter_modules(package.__path__):
        try:
            importlib.import_module(f"{package.__name__}.{module.name}")
        except ImportError:  # of a model that diffusers is too old for
            continue
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for found in _below(ModelMixin):
        if found.__module__.startswith("xfuser.") and "__init__" in vars(found):
            _, *named = inspect.signature(found.__init__).parameters.values()
            if all(one.kind in kinds for one in named):
                yield found


def _below(of: Any) -> Iterator[Any]:
    for found in of.__subclasses__():
        yield found
        yield from _below(found)
