"""Degrees are settled and checked as on a GPU: on its CPU platform SGLang 0.5.23 does less of both.

There ``_adjust_parallelism`` takes the tensor-parallel size for the number of all ranks, as each has a NUMA node, and
``_validate_parameters`` leaves ``_validate_parallelism`` out, which it calls just before ``_validate_cfg_parallel``.
What runs instead is the branch of the same methods that a GPU takes, of SGLang's own code: so a refusal is a GPU's.
"""

from __future__ import annotations

import importlib
from typing import Any

FOR = "no GPU"


class _NotTheCPU:
    def __init__(self, platform: Any) -> None:
        self.platform = platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self.platform, name)

    def is_cpu(self) -> bool:
        return False


def apply() -> None:
    """In the two methods; the module sees another platform only while the first of them runs."""
    module: Any = importlib.import_module("sglang.multimodal_gen.runtime.server_args.server_args")
    arguments = module.ServerArgs
    adjust, validate_cfg = arguments._adjust_parallelism, arguments._validate_cfg_parallel

    def adjusted(self: Any) -> None:
        platform = module.current_platform
        module.current_platform = _NotTheCPU(platform)
        try:
            adjust(self)
        finally:
            module.current_platform = platform

    def validated(self: Any) -> None:
        self._validate_parallelism()
        validate_cfg(self)

    arguments._adjust_parallelism, arguments._validate_cfg_parallel = adjusted, validated
