"""The extension of VS Code: it says what it starts for, and its own tools package it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "vscode"


def test_it_is_started_for_the_languages_that_it_asks_the_server_about() -> None:
    manifest = json.loads((FOLDER / "package.json").read_text())
    code = (FOLDER / manifest["main"]).read_text()
    (languages,) = re.findall(r"languages = \[(.*)\]", code)
    assert manifest["activationEvents"] == [f"onLanguage:{name}" for name in json.loads(f"[{languages}]")]
    command = manifest["contributes"]["configuration"]["properties"]["omni.command"]
    assert command["default"] == ["omni", "lsp"]
    assert command["scope"] == "machine"  # so that no repository says what is run


@pytest.mark.slow
def test_its_own_tools_package_it(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on PATH")
    folder = Path(shutil.copytree(FOLDER, tmp_path / "vscode", ignore=shutil.ignore_patterns("node_modules", "*.vsix")))
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install: {installed.stderr[-300:]}")
    subprocess.run([npm, "run", "package"], cwd=folder, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(folder / "omni-config.vsix") as package:
        names = package.namelist()
        assert package.read("extension/extension.js").decode() == (FOLDER / "extension.js").read_text()
    assert any(name.startswith("extension/node_modules/vscode-languageclient/") for name in names)
