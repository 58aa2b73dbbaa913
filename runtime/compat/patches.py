"""Replaces a part of a library for the whole process, so that it can be put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Puts back what was replaced.
Undo = Callable[[], None]


def replaced(owner: Any, name: str, value: Any) -> Undo:
    """Set an attribute of a module or class; what is returned sets it to what it was."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    return lambda: setattr(owner, name, before)


def nothing() -> None:
    """The ``Undo`` where nothing was replaced, because it had been before."""
