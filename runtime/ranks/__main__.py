"""What torchrun starts on every rank, by its path: ``__main__.py JOB ...``, with generate, serve, batch or calibrate.

It finds its own packages from there, whatever the working directory holds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, _ROOT)
import omni_config  # noqa: E402, F401
import runtime.ranks  # noqa: E402

sys.path.remove(_ROOT)  # both packages are found now; what else lies beside them must not shadow anything


def main(job: str, *arguments: str) -> None:
    """Run a job, which ends the process."""
    import_module(f"{runtime.ranks.__name__}.{job}").main(arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
