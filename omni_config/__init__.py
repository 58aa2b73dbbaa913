"""Check, plan and explain deployments of diffusion transformers; needs neither a GPU nor torch.

from omni_config import check, load, resolve
for checked in check("config.yaml"):
    print(checked.findings, checked.plan)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_config.checking.files import Checked, check, load
    from omni_config.findings import Finding
    from omni_config.plan import Plan
    from omni_config.resolving.resolver import Resolution, resolve
    from omni_config.schema.document import Document

__all__ = ["Checked", "Document", "Finding", "Plan", "Resolution", "check", "load", "resolve"]
__version__ = "0.1.0"

_HOMES = {
    "Checked": "checking.files",
    "Document": "schema.document",
    "Finding": "findings",
    "Plan": "plan",
    "Resolution": "resolving.resolver",
    "check": "checking.files",
    "load": "checking.files",
    "resolve": "resolving.resolver",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: a command pays for what it uses."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
