"""How a section that switches a feature on may be written."""

from __future__ import annotations

from typing import Any


def switch(value: Any) -> Any:
    """``true`` switches a feature on with its defaults; ``null`` could mean either, so it is refused."""
    if value is True:
        return {}
    if value is None:
        raise ValueError("is empty: write {} to switch it on with its defaults, or leave the key out")
    return None if value is False else value
