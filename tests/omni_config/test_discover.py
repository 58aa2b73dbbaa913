"""Which files a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_config.reading.discover import discover


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["."], ["a.yaml", "sub/b.yaml"]),
        (["./sub"], ["sub/b.yaml"]),
        (["a.yaml", "."], ["a.yaml", "sub/b.yaml"]),
        (["./a.yaml", ".", "sub"], ["./a.yaml", "sub/b.yaml"]),
        (["sub/../a.yaml", "a.yaml"], ["sub/../a.yaml"]),
        (["none.yaml"], ["none.yaml"]),
    ],
)
def test_each_file_once_under_the_name_it_was_first_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], found: list[str]
) -> None:
    for name in ("a.yaml", "sub/b.yaml", ".hidden/c.yaml", "sub/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    assert [name for name, _ in discover(names)] == found
