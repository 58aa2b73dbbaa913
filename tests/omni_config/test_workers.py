"""A folder of many files is checked by several processes: the same findings in the same order, and none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_config.catalog.policies import load_policies
from omni_config.checking.choices import Choices
from omni_config.output import run_check, workers
from omni_config.output.run_check import Options, run
from omni_config.reading.project import forget

HEAD = "version: 1\nmodel: Qwen/Qwen-Image\n"
TEXTS = {
    "good.yaml": HEAD,
    "accepted.yaml": HEAD + "parallel: {ulysses_degree: 5}  # omni: ignore[OMNI103]\n",
    "bad.yaml": HEAD + "parallel: {ulysses_degree: 5}\n",
    "warned.yaml": HEAD + "parallel: {vae_patch_parallel_size: 8}\nvae: {vae_use_tiling: true}\n",
    "advised.yaml": HEAD + "sampling: {cfg_scale: 4.0}\n",
    "unreadable.yaml": HEAD + "a: [\n",
    "other.yaml": "name: build\nsteps: []\n",
    "run.sh": "vllm serve Qwen/Qwen-Image --omni --usp 4\n",
    "plain.sh": "echo hello\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        for name, text in TEXTS.items():
            (tmp_path / f"{number:02}_{name}").write_text(text)
    monkeypatch.setattr(workers, "MANY", 30)
    monkeypatch.setattr(workers, "PART", 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    forget()
    yield tmp_path
    forget()


@pytest.mark.parametrize("output_format", ["text", "json", "sarif", "github", "junit"])
@pytest.mark.parametrize("advice", [False, True])
def test_several_processes_say_what_one_says(
    output_format: str, advice: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    begin = workers._parts
    monkeypatch.setattr(workers, "_parts", lambda files: (asked.append(1) or part for part in begin(files)))
    options = Options(output_format, advice=advice)
    code = run(["."], options)
    together = capsys.readouterr()
    assert len(asked) == -(-12 * len(TEXTS) // 7)
    monkeypatch.setattr(workers, "MANY", 10**9)
    assert run(["."], options) == code == 2
    assert capsys.readouterr() == together
    assert together.out


def test_rules_of_ones_own_and_codes_count_in_all_processes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policy.yaml").write_text(
        "- code: ACME001\n  name: no-ulysses\n  kind: advise\n  when: ulysses_degree == 5\n  fields: [ulysses_degree]\n"
        "  severity: warning\n  message: five\n  why: ours\n  fix: four\n  source: us\n"
    )
    run(["."], Options("github"), Choices(ignore=("OMNI103",), policies=load_policies("policy.yaml")))
    shown = capsys.readouterr().out
    assert shown.count("ACME001") == 24
    assert "OMNI103" not in shown


def test_a_table_that_cannot_be_used_ends_the_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "omni.toml").write_text("nothing = 1\n")
    (folder / "deep" / "a.yaml").write_text(HEAD)
    assert run(["."]) == 2
    assert "unknown key 'nothing'" in capsys.readouterr().err


def test_a_process_that_is_killed_is_no_clean_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = os.getpid()
    light = run_check._light

    def deadly(output_format: str, documents: list[object]) -> object:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return light(output_format, documents)

    monkeypatch.setattr(run_check, "_light", deadly)
    assert run(["."]) == 2
    assert "ended from outside" in capsys.readouterr().err


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    given = 0

    def files() -> Iterator[tuple[str, bool]]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield "00_good.yaml", False

    most = done = 0
    for _ in workers.by_workers(files(), Choices(), lambda results: run_check._light("text", results)):
        done += 1
        most = max(most, given - done)
    assert done == 1000
    assert most <= workers.MANY + workers.PART * (2 * workers.WAITING + 1)
