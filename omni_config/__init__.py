"""Check, plan and explain deployments of diffusion transformers; needs neither a GPU nor torch.

from omni_config import check, load, resolve
for checked in check("config.yaml"):
    print(checked.findings, checked.plan)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_config.checker import Checked, check, load
    from omni_config.document import Document
    from omni_config.findings import Finding
    from omni_config.plan import Plan
    from omni_config.resolver import Resolution, resolve

__all__ = ["Checked", "Document", "Finding", "Plan", "Resolution", "check", "load", "resolve"]
__version__ = "0.1.0"

_HOMES = {
    "Checked": "checker",
    "Document": "document",
    "Finding": "findings",
    "Plan": "plan",
    "Resolution": "resolver",
    "check": "checker",
    "load": "checker",
    "resolve": "resolver",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: a command pays for what it uses."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
