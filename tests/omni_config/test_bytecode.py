"""Runs keep the bytecode of their libraries, whatever the environment says, and ``omni doctor`` names what says so."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_doctor import L40S, PCIE, machine

from omni_config.doctor import bytecode
from omni_config.doctor.diagnosis import diagnose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library whose folder cannot be written to, by anybody."""
    folder = tmp_path / "library"
    (folder / "__pycache__").mkdir(parents=True)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: folder not in Path(path, "_").parents and access(path, mode))
    monkeypatch.setattr(bytecode, "_library_folders", lambda: [folder])
    return folder


def test_a_run_does_not_inherit_it() -> None:
    assert bytecode.with_bytecode({"PYTHONDONTWRITEBYTECODE": "1", "A": "b"}) == {"A": "b"}


def test_a_folder_that_cannot_be_written_to_has_another(library: Path) -> None:
    found = bytecode.with_bytecode({"HOME": "/home/me", "PYTHONDONTWRITEBYTECODE": "1"})
    assert found == {"HOME": "/home/me", "PYTHONPYCACHEPREFIX": "/home/me/.cache/omni-config/bytecode"}
    found = bytecode.with_bytecode({"XDG_CACHE_HOME": "/cache"})
    assert found["PYTHONPYCACHEPREFIX"] == "/cache/omni-config/bytecode"
    assert bytecode.with_bytecode({"PYTHONPYCACHEPREFIX": "/mine"}) == {"PYTHONPYCACHEPREFIX": "/mine"}


def test_bytecode_that_is_there_is_used_where_it_is(library: Path) -> None:
    (library / "__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc").touch()
    assert bytecode.with_bytecode({"HOME": "/home/me"}) == {"HOME": "/home/me"}


def test_doctor_names_it() -> None:
    here = machine(PCIE, L40S)
    assert not [note for note in diagnose(here) if "bytecode" in note.text.lower()]
    warned = replace(here, environment={"PYTHONDONTWRITEBYTECODE": "1"}, bytecode_folder="/home/me/bytecode")
    notes = {note.level: note for note in diagnose(warned) if "bytecode" in note.text.lower()}
    assert notes["warning"].next == "unset PYTHONDONTWRITEBYTECODE"
    assert notes["fine"].text.endswith("so runs keep bytecode in /home/me/bytecode")


def test_make_does_not_inherit_it(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text() + "\nshow:\n\t@env\n")
    line = ["make", "-C", str(tmp_path), "show"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMNI_TEST": "1"}
    shown = subprocess.run(line, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout
    assert "OMNI_TEST=1" in shown
    assert "PYTHONDONTWRITEBYTECODE" not in shown
