"""What runs have shown of the matrix, kept as JSON Lines: a file a pipeline, a line a cell, read without torch.

An entry is about the versions and the code that ran. Where either has changed since, it is stale and says so. Code is
compared without its comments and docstrings: words make nothing stale.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mode
from typing import Any

from matrix.cell import Cell, ask, asked_of
from omni_config.catalog.load import catalog

FOLDER = Path(__file__).with_name("evidence")
ROOT = FOLDER.parents[1]
#: Code that decides every cell that is run: modules or packages.
SHARED = (
    "runtime/device",
    "runtime/compat",
    "runtime/models/__init__",
    "runtime/models/family",
    "runtime/models/random_parts",
    "runtime/pipeline/apply",
    "runtime/pipeline/load",
    "runtime/pipeline/mesh",
    "runtime/ranks/batch",
    "runtime/ranks/generate",
    "runtime/ranks/job",
    "runtime/weights",
)
#: What most cells of a file have in common, and its first line says for them.
_COMMON = ("date", "versions", "shared")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One cell that was run. ``difference`` and ``psnr`` are those of the run, ``bound`` those that it had to keep.

    ``why`` is what the run showed, in words. ``shared`` has the digests of the code that decides every cell, ``code``
    those of its family and of the features that were on; both are empty where nothing could be run.
    """

    verdict: str
    proven: bool
    why: str
    model: str
    settings: dict[str, Any]
    date: str
    versions: dict[str, str]
    shared: dict[str, str]
    code: dict[str, str]
    difference: float | None = None
    psnr: float | None = None
    bound: dict[str, float | None] | None = None
    controls: dict[str, Any] | None = None

    def stale(self) -> str:
        """What has changed since the run, as one phrase; empty where nothing has."""
        changed = [name for name, then in (self.shared | self.code).items() if digest(ROOT / name) != then]
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
        limit = f", {allowed:g} is allowed" if allowed is not None else f"; image {self.psnr or 99:.0f} dB"
        return f"{self.why}: latents differ by {self.difference:.1g}{limit}"


def everything() -> dict[str, dict[str, Evidence]]:
    """Evidence of all cells that the rules decide as they did when it was run, by cell and pipeline class."""
    found: dict[str, dict[str, Evidence]] = {}
    for path in sorted(FOLDER.glob("*.jsonl")):
        for name, entry in read(path.stem).items():
            if entry.outdated(name.split("+")):
                continue
            found.setdefault(name, {})[path.stem] = entry
    return found


def is_of_a_plan(cell: Cell) -> bool:
    """Whether a run can show it: not where it works in a server only, of which tests/serving show what works."""
    return not dict(cell.settings).get("server")


def key(features: Iterable[str]) -> str:
    """Name of a cell: its features, in the order of the alphabet."""
    return "+".join(sorted(features))


@cache
def read(pipeline: str) -> dict[str, Evidence]:
    """Evidence about a pipeline class, by cell; empty where there is none."""
    path = FOLDER / f"{pipeline}.jsonl"
    if not path.is_file():
        return {}
    common, *cells = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {cell.pop("cell"): Evidence(**common | cell) for cell in cells}


def add(pipeline: str, found: dict[str, Evidence]) -> None:
    """Write evidence about a pipeline; that of other cells stays as it is."""
    entries = {name: asdict(entry) for name, entry in sorted((read(pipeline) | found).items())}
    common = {field: _usual(entry[field] for entry in entries.values()) for field in _COMMON}
    lines = [common]
    for name, entry in entries.items():
        told = {field: value for field, value in entry.items() if value is not None and value != common.get(field)}
        lines.append({"cell": name, **told})
    FOLDER.mkdir(exist_ok=True)
    partial = FOLDER / f"{pipeline}.partial"
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    partial.replace(FOLDER / f"{pipeline}.jsonl")  # whole or not at all, as a proof may be interrupted
    read.cache_clear()


def _usual(values: Iterable[Any]) -> Any:
    """The value that most have, of those that have one."""
    texts = [json.dumps(value) for value in values if value]
    return json.loads(mode(texts)) if texts else {}


@cache
def digest(path: Path) -> str:
    """The start of the SHA-256 of a module's or a package's code; empty where there is neither.

    What the parser makes of it is hashed, without empty fields, as newer versions of Python have more of them.
    """
    module = path.with_suffix(".py")
    files = [module] if module.is_file() else sorted(path.rglob("*.py"))
    trees = [(file.relative_to(path.parent).as_posix(), file.read_text(encoding="utf-8")) for file in files]
    text = "\n".join(f"{name} {''.join(_dump(ast.parse(code)))}" for name, code in trees)
    return sha256(text.encode()).hexdigest()[:16] if files else ""


def _dump(node: Any) -> Iterator[str]:
    """A syntax tree as text, without docstrings and what else stands there as a string, and without empty fields."""
    if isinstance(node, list):
        yield "["
        for item in node:
            if not (
                isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            ):
                yield from _dump(item)
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f"{name}="
                yield from _dump(value)
        yield ")"
    else:
        yield f"{node!r},"


@cache
def _installed(package: str) -> str:
    """The version of a package; empty on a machine without it, where nothing can be said."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
