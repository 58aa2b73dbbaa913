"""What the configs of the matrix name on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LoRA adapter that the feature is switched on with; the rules only see whether it is there."""
    monkeypatch.chdir(tmp_path)
    Path("adapter.safetensors").touch()
