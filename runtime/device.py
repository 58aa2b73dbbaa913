"""The device of a rank."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The device of this rank: its GPU where there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
