"""Files enter the output folder whole or not at all; events are read as they come."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runtime import Report
from runtime.events import Progress, Rank, Writer, path
from runtime.report import remove_partial, write, write_new


def test_write_new_never_overwrites(tmp_path: Path) -> None:
    names = [write_new(tmp_path / "a.png", lambda path, i=i: path.write_text(str(i))).name for i in range(3)]
    assert names == ["a.png", "a-2.png", "a-3.png"]
    assert [(tmp_path / name).read_text() for name in names] == ["0", "1", "2"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "a", lambda path: path.write_text("old"))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    for function in (write, write_new):
        with pytest.raises(OSError, match="No space"):
            function(tmp_path / "a", fail)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    half = tmp_path / f".omni-partial-{os.getpid()}-a.png"
    other = tmp_path / f".omni-partial-{os.getpid() + 1}-a.png"
    half.touch()
    other.touch()
    remove_partial(tmp_path, {os.getpid()})
    assert list(tmp_path.iterdir()) == [other]
    remove_partial(tmp_path / "nothing", {1})


def test_report_round_trip_and_refusal() -> None:
    report = Report(
        {"version": 1}, ("a.png",), 3.0, 1.0, 0.8, 0.1, 0.2, 7, 1, (1.0, 2.0), {"vae": {"tiling": True}}, {}
    )
    assert Report.from_json(json.dumps(report.to_dict())) == report
    assert report.to_dict()["version"] == 2
    with pytest.raises(ValueError, match="not a report of version 2"):
        Report.from_json('{"pictures": ["a.png"]}')  # as it was before versions
    for text in ('{"version": 2}', "[]"):
        with pytest.raises(ValueError, match="this is not a report: "):
            Report.from_json(text)


def test_events_are_taken_in_line_by_line(tmp_path: Path) -> None:
    rank = Rank(tmp_path, 0)
    assert rank.read() == []
    writer = Writer(tmp_path, 0)
    writer.progress("denoising", 2, 8)
    with path(tmp_path, 0).open("a") as file:
        file.write('{"time": 1, "err')  # a line that is still being written
    assert rank.read() == [Progress("starting"), Progress("denoising", 2, 8)]
    assert str(rank.progress) == "denoising, step 2 of 8"
    assert rank.read() == []
    with path(tmp_path, 0).open("a") as file:
        file.write('or": "ValueError: no", "secondary": false}\n')
    assert rank.read() == []
    assert (rank.pid, rank.error, rank.secondary) == (os.getpid(), "ValueError: no", False)
