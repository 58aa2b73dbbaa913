"""What runs have shown of the matrix, kept as JSON: a file a pipeline, an entry a cell, read without torch.

An entry is about the versions and the code that ran. Where either has changed since, it is stale and says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matrix.cell import ask, asked_of
from omni_config.catalog.load import catalog

FOLDER = Path(__file__).with_name("evidence")
ROOT = FOLDER.parents[1]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One cell that was run. ``difference`` and ``psnr`` are those of the run, ``bound`` those that it had to keep.

    ``why`` is what the run showed, in words; ``code`` has the files of the features that were on, with their hashes.
    """

    verdict: str
    proven: bool
    why: str
    model: str
    settings: dict[str, Any]
    date: str
    versions: dict[str, str]
    code: dict[str, str]
    difference: float | None = None
    psnr: float | None = None
    bound: dict[str, float | None] | None = None
    controls: dict[str, Any] | None = None

    def stale(self) -> str:
        """What has changed since the run, as one phrase; empty where nothing has."""
        changed = [name for name, then in self.code.items() if digest(ROOT / name) != then]
        changed += [name for name, then in self.versions.items() if _installed(name) not in (then, "")]
        return f"stale: {', '.join(changed)} changed" if changed else ""

    def outdated(self, features: Iterable[str]) -> bool:
        """Whether the rules decide the cell otherwise now than when it was run."""
        card, engine = catalog().model(self.model), catalog().engine("native")
        return card is None or engine is None or ask(features, asked_of(card, engine)).verdict != self.verdict

    def status(self) -> str:
        """``proven`` or ``refuted``, and whether that is stale."""
        stale = self.stale()
        return ("proven" if self.proven else "refuted") + (f" ({stale})" if stale else "")

    def spoken(self) -> str:
        """What the run showed, with its numbers, in one phrase."""
        if self.difference is None:
            return self.why
        allowed = (self.bound or {}).get("difference")
        limit = f", {allowed:g} is allowed" if allowed is not None else f"; picture {self.psnr or 99:.0f} dB"
        return f"{self.why}: latents differ by {self.difference:.1g}{limit}"


def everything() -> dict[str, dict[str, Evidence]]:
    """Evidence of all cells that the rules decide as they did when it was run, by cell and pipeline class."""
    found: dict[str, dict[str, Evidence]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        for name, entry in read(path.stem).items():
            if entry.outdated(name.split("+")):
                continue
            found.setdefault(name, {})[path.stem] = entry
    return found


def key(features: Iterable[str]) -> str:
    """Name of a cell: its features, in the order of the alphabet."""
    return "+".join(sorted(features))


@cache
def read(pipeline: str) -> dict[str, Evidence]:
    """Evidence about a pipeline class, by cell; empty where there is none."""
    path = FOLDER / f"{pipeline}.json"
    if not path.is_file():
        return {}
    return {name: Evidence(**entry) for name, entry in json.loads(path.read_text(encoding="utf-8")).items()}


def add(pipeline: str, found: dict[str, Evidence]) -> Path:
    """Write evidence about a pipeline; that of other cells stays as it is."""
    path = FOLDER / f"{pipeline}.json"
    entries = {name: asdict(entry) for name, entry in (read(pipeline) | found).items()}
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", encoding="utf-8")
    read.cache_clear()
    return path


def digest(path: Path) -> str:
    """The start of a file's SHA-256; empty where there is no such file."""
    return sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


@cache
def _installed(package: str) -> str:
    """The version of a package; empty on a machine without it, where nothing can be said."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
