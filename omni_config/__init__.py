"""Check, plan and explain deployments of diffusion transformers; needs neither a GPU nor torch.

from omni_config import check, load, resolve
for checked in check("config.yaml"):
    print(checked.findings, checked.plan)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_config.checking.document import CheckResult
    from omni_config.checking.files import check, load
    from omni_config.findings import Finding
    from omni_config.plan import Plan
    from omni_config.resolving.resolver import Resolution, resolve
    from omni_config.resolving.target import Target, target_of
    from omni_config.schema.document import Document

__all__ = [
    "CheckResult",
    "Document",
    "Finding",
    "Plan",
    "Resolution",
    "Target",
    "check",
    "load",
    "resolve",
    "target_of",
]
__version__ = "0.1.0"

_HOMES = {
    "CheckResult": "checking.document",
    "Document": "schema.document",
    "Finding": "findings",
    "Plan": "plan",
    "Resolution": "resolving.resolver",
    "Target": "resolving.target",
    "check": "checking.files",
    "load": "checking.files",
    "resolve": "resolving.resolver",
    "target_of": "resolving.target",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: a command pays for what it uses."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
