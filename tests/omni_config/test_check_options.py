"""What ``omni check`` is asked for: codes, baselines, changed files, the table of a repository, and watching."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.output.run_check import run
from omni_config.reading.project import forget

HEAD = "version: 1\nmodel: tiny\n"
# An error (OMNI101), a warning of another area (OMNI401), and nothing else.
BAD = (
    HEAD
    + "hardware: {gpus: 4}\nparallel: {ulysses_degree: 2, vae_patch_parallel_size: 8}\nvae: {vae_use_tiling: true}\n"
)
SERVE = "vllm serve Qwen/Qwen-Image --omni --port 8000\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text(HEAD)
    forget()
    return tmp_path


def check(*arguments: str) -> Result:
    forget()
    return CliRunner().invoke(app(["check", "explain"]), ["check", *arguments])


def codes(*arguments: str) -> list[str]:
    return [finding["code"] for finding in json.loads(check("--json", *arguments).stdout)["findings"]]


# Codes


def test_codes_are_selected_and_ignored_and_the_longest_beginning_decides() -> None:
    assert codes("bad.yaml") == ["OMNI101", "OMNI401"]
    assert codes("--select", "OMNI1", "bad.yaml") == ["OMNI101"]
    assert codes("--select", "omni401", "bad.yaml") == ["OMNI401"]
    assert codes("--ignore", "OMNI1", "bad.yaml") == ["OMNI401"]
    assert codes("--ignore", "OMNI1,OMNI4", "bad.yaml") == []
    assert codes("--select", "OMNI101", "--ignore", "OMNI1", "bad.yaml") == ["OMNI101"]
    assert codes("--select", "OMNI", "--ignore", "OMNI101", "--ignore", "OMNI401", "bad.yaml") == []


def test_a_code_is_not_the_beginning_of_a_longer_one() -> None:
    from omni_config.checking.selection import Selection
    from omni_config.findings import Finding

    chosen = Selection(ignore=("OMNI110",))
    assert not chosen.wants(Finding("OMNI110", "x"))
    assert chosen.wants(Finding("OMNI1101", "x"))
    assert not Selection(ignore=("OMNI1",)).wants(Finding("OMNI1101", "x"))


def test_what_is_left_out_fails_nothing_and_is_counted() -> None:
    result = check("--ignore", "OMNI101", "bad.yaml")
    assert result.exit_code == 0
    assert "1 not selected (OMNI101)." in result.stdout
    assert "Nearest configurations" not in result.stdout
    assert check("--select", "OMNI1", "bad.yaml").exit_code == 1


def test_a_code_that_no_rule_has_is_no_selection() -> None:
    result = check("--select", "OMNI77", "bad.yaml")
    assert result.exit_code == 2
    assert "OMNI77" in result.stderr


def test_a_text_that_cannot_be_used_is_never_left_out() -> None:
    Path("odd.yaml").write_text(HEAD + "a: 1\n")
    assert check("--ignore", "OMNI9", "--select", "OMNI1", "odd.yaml").exit_code == 2


def test_an_organisations_codes_are_selected_too() -> None:
    policy = (
        "- {code: ACME001, name: small, kind: requires, when: width >= 64, needs: vae_use_tiling, message: m, why: w,\n"
        "   fix: f, fields: [vae_use_tiling], repairs: [{vae_use_tiling: true}]}\n"
    )
    Path("policy.yaml").write_text(policy)
    assert codes("--rules", "policy.yaml", "--select", "ACME", "good.yaml", "bad.yaml") == ["ACME001"]
    assert codes("--rules", "policy.yaml", "--ignore", "ACME001", "good.yaml") == []


def test_exit_zero_hides_no_finding() -> None:
    result = check("--exit-zero", "bad.yaml")
    assert result.exit_code == 0
    assert "OMNI101" in result.stdout
    assert check("--exit-zero", "none/*.x").exit_code == 0  # a file that is not there is a finding
    assert check("--exit-zero", "--select", "OMNI77", "bad.yaml").exit_code == 2


# Advice


def test_advice_is_one_line_until_it_is_asked_for() -> None:
    Path("run.sh").write_text("vllm serve acme/unknown --omni --usp 2\n")
    result = check("run.sh")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert "1 piece of advice (OMNI604): --advice shows it." in result.stdout
    assert "OMNI604 [advice] no card for model acme/unknown" in check("--advice", "run.sh").stdout
    assert codes("run.sh") == ["OMNI604"]
    github = check("--output-format", "github", "run.sh").stdout.splitlines()
    assert github == ["::notice::1 piece of advice (OMNI604): --advice shows it."]
    assert "title=OMNI604" in check("--output-format", "github", "--advice", "run.sh").stdout


# Baselines


def test_a_baseline_accepts_what_was_there_and_nothing_else() -> None:
    written = check("--baseline", "known.json", "--write-baseline", ".")
    assert written.exit_code == 0
    assert "2 findings written to known.json" in written.stdout
    same = check("--baseline", "known.json", "--strict", ".")
    assert same.exit_code == 0
    assert same.stdout == "All good: 2 configs checked. 2 accepted by the baseline. 1 other file set aside.\n"
    Path("good.yaml").write_text(HEAD + "hardware: {gpus: 4}\n")
    assert check("--baseline", "known.json", ".").exit_code == 1
    assert codes("--baseline", "known.json", ".") == ["OMNI101"]


def test_lines_may_move_and_a_second_one_is_new() -> None:
    check("--baseline", "known.json", "--write-baseline", "bad.yaml")
    Path("bad.yaml").write_text("# moved\n\n" + BAD.replace("hardware:", "hardware:  "))
    assert codes("--baseline", "known.json", "bad.yaml") == []
    Path("bad.yaml").write_text(BAD + "---\n" + BAD)
    assert codes("--baseline", "known.json", "bad.yaml") == ["OMNI101", "OMNI401"]
    Path("bad.yaml").write_text(BAD.replace("gpus: 4", "gpus: 8"))
    result = check("--baseline", "known.json", "bad.yaml")
    assert result.exit_code == 1
    assert "1 of the baseline is gone: write it again." in result.stdout


def test_a_baseline_is_found_from_elsewhere_and_keeps_files_that_were_not_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.yaml").write_text(BAD)
    check("--baseline", "known.json", "--write-baseline", ".")
    check("--baseline", "known.json", "--write-baseline", "bad.yaml")
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder / "inner")
    assert codes("--baseline", "../known.json", "..") == []
    assert "BAD" not in Path("../known.json").read_text()
    (folder / "other.yaml").unlink()
    check("--baseline", "../known.json", "--write-baseline", "../bad.yaml")
    entries = json.loads(Path("../known.json").read_text())["findings"]
    assert {entry["file"] for entry in entries} == {"bad.yaml"}


def test_a_baseline_that_is_none_is_said() -> None:
    assert "--write-baseline writes one" in check("--baseline", "gone.json", ".").stderr
    assert check("--baseline", "bad.yaml", ".").exit_code == 2
    assert check("--write-baseline", ".").exit_code == 2


# Git


def git(*words: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *names, *words], check=True, capture_output=True)


def test_only_what_differs_from_a_revision_is_checked() -> None:
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    result = check("--changed")
    assert result.exit_code == 0
    assert "no file that is read here and differs from HEAD" in result.stderr
    Path("new.yaml").write_text(BAD)
    Path(".gitignore").write_text("left.yaml\n")
    Path("left.yaml").write_text(BAD)
    assert "1 config checked" in check("--changed").stdout
    git("add", ".")
    git("commit", "-m", "two")
    assert "no file" in check("--changed").stderr
    assert "1 config checked" in check("--since", "HEAD~1", ".").stdout
    assert "no file" in check("--since", "HEAD~1", "good.yaml").stderr


def test_since_asks_where_the_branch_left() -> None:
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "mine")
    Path("mine.yaml").write_text(HEAD)
    git("add", ".")
    git("commit", "-m", "mine")
    git("checkout", "main")
    Path("bad.yaml").write_text(HEAD)
    git("commit", "-am", "theirs")
    git("checkout", "mine")
    result = check("--since", "main")
    assert (result.exit_code, "1 config checked" in result.stdout) == (0, True)


def test_what_git_cannot_say_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
    assert "not a git repository" in check("--changed").stderr
    git("init")
    assert check("--since", "nowhere").exit_code == 2


# The table of a repository


def test_the_nearest_table_says_what_is_wanted_and_flags_stand_over_it() -> None:
    Path("pyproject.toml").write_text('[tool.omni]\nignore = ["OMNI101"]\n')
    assert codes("bad.yaml") == ["OMNI401"]
    assert codes("--ignore", "OMNI401", "bad.yaml") == ["OMNI101"]
    Path("inner").mkdir()
    Path("inner/bad.yaml").write_text(BAD)
    assert codes("inner") == ["OMNI401"]
    Path("inner/pyproject.toml").write_text("[project]\nname = 'omni'\n")  # says nothing of us
    assert codes("inner") == ["OMNI401"]
    Path("inner/omni.toml").write_text('select = ["OMNI1"]\n')
    assert codes("inner") == ["OMNI101"]


def test_the_quick_way_without_options_reads_the_table_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("omni.toml").write_text('ignore = ["OMNI1"]\n')
    assert run(["bad.yaml"]) == 0
    assert "1 not selected (OMNI101)" in capsys.readouterr().out


def test_files_are_excluded_and_ignored_one_by_one() -> None:
    Path("old").mkdir()
    Path("old/bad.yaml").write_text(BAD)
    Path("omni.toml").write_text('exclude = ["old"]\n[per-file-ignores]\n"bad.*" = ["OMNI4"]\n')
    result = check(".")
    assert "2 configs checked" in result.stdout
    assert "1 file excluded." in result.stdout
    assert codes(".") == ["OMNI101"]
    assert codes("old/bad.yaml") == ["OMNI101"]  # named: it is checked
    assert check("--set-aside", "old/bad.yaml").exit_code == 0


def test_engines_and_a_gpu_are_said_for_files_that_do_not() -> None:
    Path("run.sh").write_text(SERVE)
    Path("omni.toml").write_text('engines = ["sglang==0.5.22", "vllm-omni==0.28"]\ngpu = "l4"\n')
    result = check("run.sh")
    assert "Judged by vllm-omni==0.28, as omni.toml says." in result.stdout
    assert "OMNI801" in result.stdout
    assert "vllm-omni==0.30, as was asked" in check("--engine", "vllm-omni==0.30", "run.sh").stdout
    assert "OMNI801" not in check("--gpu", "h200", "run.sh").stdout
    Path("run.sh").write_text("docker run vllm/vllm-omni:v0.30.0 " + SERVE)
    assert "Judged by vllm-omni==0.30.0, as the file says" in check("run.sh").stdout
    Path("run.sh").write_text(SERVE)
    Path("omni.toml").write_text('engines = ["vllm-omni==0.1"]\n')
    assert "nothing is known of vllm-omni==0.1, which omni.toml names" in check("run.sh").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('selects = ["OMNI1"]', "unknown key 'selects'; did you mean select?"),
        ('select = "OMNI1"', "select must be a list of texts"),
        ("gpu = 3", "gpu must be a text"),
        ("per-file-ignores = {a = 1}", "per-file-ignores must be a table of lists"),
        ('ignore = ["OMNI77"]', "no rule has a code that begins with OMNI77"),
        ('engines = ["sglagn==0.5.22"]', "no engine sglagn==0.5.22"),
        ("select = [", "omni.toml: "),
    ],
)
def test_a_table_that_cannot_be_used_is_said(text: str, words: str) -> None:
    Path("omni.toml").write_text(text)
    result = check("bad.yaml")
    assert result.exit_code == 2
    assert words in result.stderr


def test_repairs_follow_the_table_and_the_version_that_was_asked_for() -> None:
    Path("omni.toml").write_text('exclude = ["old"]\nignore = ["OMNI401"]\n')
    Path("old").mkdir()
    text = HEAD + "hardware: {gpus: 1}\nparallel: {vae_patch_parallel_size: 8}\nvae: {vae_use_tiling: true}\n"
    for name in ("a.yaml", "old/b.yaml"):
        Path(name).write_text(text)
    fix = ["fix", "."]
    forget()
    assert CliRunner().invoke(app(["fix", "check"]), fix).exit_code == 1  # of bad.yaml
    assert Path("a.yaml").read_text() == text
    Path("omni.toml").write_text('exclude = ["old"]\n')
    forget()
    CliRunner().invoke(app(["fix", "check"]), fix)
    assert "vae_patch_parallel_size: 1" in Path("a.yaml").read_text()
    assert Path("old/b.yaml").read_text() == text
    Path("omni.toml").write_text("fix = 1\n")
    forget()
    refused = CliRunner().invoke(app(["fix", "check"]), fix)
    assert (refused.exit_code, "unknown key 'fix'" in refused.stderr) == (2, True)


def test_a_repair_is_of_the_version_that_was_asked_for() -> None:
    Path("run.sh").write_text(SERVE.replace("--port 8000", "--usp 5"))
    found = json.loads(check("--json", "--engine", "vllm-omni==0.28", "run.sh").stdout)
    by_code = {finding["code"]: finding for finding in found["findings"]}
    assert by_code["OMNI103"]["edits"] == ["- --usp 5", "+ --usp 6"]
    log = json.loads(check("--output-format", "sarif", "--engine", "vllm-omni==0.28", "run.sh").stdout)
    (result,) = [one for one in log["runs"][0]["results"] if one["ruleId"] == "OMNI103"]
    assert result["fixes"][0]["artifactChanges"][0]["replacements"][0]["insertedContent"]["text"] == "6"


# Watching


def test_a_change_is_checked_again(folder: Path) -> None:
    command = [sys.executable, "-m", "omni_config", "check", "--watch", "."]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job, whose child this is, ignores it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    lines: list[str] = []
    threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True).start()

    def until(words: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not any(words in line for line in lines):
            assert time.monotonic() < end, lines
            time.sleep(0.02)

    try:
        until("1 error, 1 warning; 2 configs checked.")
        until("Watching")
        (folder / "bad.yaml").write_text(HEAD)
        until("All good: 2 configs checked.")
        (folder / "third.yaml").write_text(HEAD)
        until("All good: 3 configs checked.")
        (folder / "omni.toml").write_text('exclude = ["third.yaml"]\n')
        until("1 file excluded.")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
