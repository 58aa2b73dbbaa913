"""Where the facts of the engines lie, and the wheels that they are compiled from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from omni_config.facts.document import short_version
from omni_config.facts.engines import ENGINES, Engine
from omni_config.facts.wheel import WheelError

#: A folder an engine; its facts are in the folder ``facts``, a file a version.
FOLDER = Path(__file__).parent.parent / "engines"


def named(requirement: str) -> tuple[Engine, str]:
    """The engine and the version that ``NAME==VERSION`` names; the name may be the package's.

    Raises:
        WheelError: It has another form, or names no engine that is known.
    """
    name, found, version = requirement.partition("==")
    engine = next((one for one in ENGINES.values() if name in (one.name, one.distribution, one.folder)), None)
    if engine is None or not found or not version:
        raise WheelError(f"{requirement}: expected NAME==VERSION with a name of {', '.join(ENGINES)}")
    return engine, version


def facts_file(engine: Engine, version: str) -> Path:
    """The file of a version."""
    return FOLDER / engine.folder / "facts" / f"{short_version(version)}.json"


def load(requirement: str) -> dict[str, Any]:
    """The facts of ``NAME==VERSION``.

    Raises:
        WheelError: They were never compiled.
    """
    engine, version = named(requirement)
    file = facts_file(engine, version)
    if not file.exists():
        there = ", ".join(sorted(path.stem for path in file.parent.glob("*.json"))) or "none"
        raise WheelError(f"{requirement}: no facts of this version; there are {there}")
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts


def other_wheel(stated: str, folder: Path) -> Path:
    """The wheel of another package, stated as a file or as ``NAME==VERSION``, which pip fetches.

    Raises:
        WheelError: It is neither, or pip does not give it.
    """
    if stated.endswith(".whl"):
        return Path(stated)
    name, found, version = stated.partition("==")
    if not name or not found or not version:
        raise WheelError(f"{stated}: expected a wheel or NAME==VERSION")
    target = folder / name
    target.mkdir(exist_ok=True)
    return download(name, version, target)


def download(distribution: str, version: str, folder: Path) -> Path:
    """The wheel of a package from the package index, with pip. One for any version of Python will do: it is only read.

    Raises:
        WheelError: pip does not give it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary", ":all:"]
    target = ["--python-version", "3.12", "--platform", "manylinux_2_34_x86_64"]
    wanted = f"{distribution}=={version}"
    done = subprocess.run([*command, *target, "-d", str(folder), wanted], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise WheelError(f"{wanted}: pip does not give its wheel ({said[-1].strip() if said else 'it said nothing'})")
    return wheels[0]
