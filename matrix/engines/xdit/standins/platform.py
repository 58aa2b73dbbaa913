"""The version of the device, and the backend of torch.distributed, of a machine without an accelerator.

``xfuser.envs`` of 0.6 and 0.7 raises for both, and looks for CUDA before it looks for yunchang, whose process groups
sequence parallelism takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

FOR = "no GPU"


def apply(xfuser: Any) -> None:
    """Before the import, the functions of the module ``envs``, without the package; after it, the process groups."""
    if xfuser is None:
        spec = importlib.util.find_spec("xfuser")
        assert spec is not None
        sys.modules["xfuser"] = importlib.util.module_from_spec(spec)
        envs = importlib.import_module("xfuser.envs")
        del sys.modules["xfuser"]
        vars(envs).update(get_device_version=lambda: "12.8", get_torch_distributed_backend=lambda: "gloo")
        envs.PACKAGES_CHECKER.packages_info["has_long_ctx_attn"] = True
        return
    xfuser.envs = sys.modules["xfuser.envs"]
    groups = importlib.import_module("yunchang.globals").PROCESS_GROUP
    for name in ("usp", "usp_legacy"):
        vars(importlib.import_module(f"xfuser.model_executor.layers.{name}"))["PROCESS_GROUP"] = groups
