"""Errors that a rank raises on purpose; their text is one line that says what to do next."""

from __future__ import annotations


class CannotRunError(RuntimeError):
    """The Plan asks for something that the runtime, the checkpoint or this machine cannot do."""
