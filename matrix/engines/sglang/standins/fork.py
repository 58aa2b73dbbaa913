"""Workers are forks of the process that has imported SGLang, not new processes that import it again: 20 s a rank.

Images are the same, to the byte, with one rank and with two.
"""

from __future__ import annotations

import importlib
import multiprocessing
from typing import Any

FOR = "speed"


class _Forking:
    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)

    def get_context(self, _: str) -> Any:
        return multiprocessing.get_context("fork")


def apply() -> None:
    """In the one module that starts workers."""
    module: Any = importlib.import_module("sglang.multimodal_gen.runtime.launch_server")
    module.mp = _Forking()
