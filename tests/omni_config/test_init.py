"""The first minutes: ``omni init`` writes what checks clean, shells complete, and ``--explain`` has the reasons."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.output.first_config import first_config, numbers_of_gpus
from omni_config.resolving.target import target_of
from omni_config.schema.settings import DEFAULTS

runner = CliRunner()
OMNI = [sys.executable, "-m", "omni_config"]
BAD = "version: 1\nmodel: Qwen/Qwen-Image\nparallel: {ulysses_degree: 5}\n"


def written(*flags: str) -> str:
    done = runner.invoke(app(["init"]), ["init", "-", *flags])
    assert done.exit_code == 0, done.output
    assert set(re.findall(r"OMNI\d+", done.stderr)) <= known(done.stdout)
    return done.stdout


def known(text: str) -> set[str]:
    """What is said of the best there is: not verified by the engine itself; of ``tiny``, a Z-Image, on eight GPUs in
    SGLang, where each way has a warning, what its sequence ranks make of the guidance.
    """
    lines = {line.strip() for line in text.splitlines()}
    alone = {"model: tiny", "engine: sglang==0.5.23", "gpus: 8"} <= lines
    return {"OMNI505", "OMNI5203"} if alone else {"OMNI505"}


def faults(checked: CheckResult, text: str) -> list[str]:
    return [one.code for one in checked.findings if one.severity != "advice" and one.code not in known(text)]


def uncommented(text: str) -> list[str]:
    """The text with one of the keys in comments in force, each in turn."""
    found = []
    for key in re.finditer(r"^  # (\w+: \S.*)$", text, re.MULTILINE):
        head = text[: key.start()].rstrip().splitlines()
        section = max(number for number, line in enumerate(head) if re.match(r"(# )?\w+:$", line))
        head[section] = head[section].removeprefix("# ")
        found.append("\n".join(head) + f"\n  {key[1]}\n" + text[key.end() :])
    return found


@pytest.mark.parametrize("engine", catalog().matrix_engines)
def test_what_it_writes_checks_clean_and_so_does_all_that_it_says_is_possible(engine: str) -> None:
    card = catalog().engine(engine)
    assert card
    models = [name for name in catalog().charted_ids if card.claim(catalog().model(name)) is not None]
    possible = written_ = 0
    for model, gpus in zip(models[:: max(1, len(models) // 4)], (1, 2, 4, 8), strict=False):
        target = target_of(catalog().model(model), card)
        said = DEFAULTS | {"version": 1, "model": model, "engine": engine}
        if first_config(said, target, gpus) is None:
            assert gpus not in numbers_of_gpus(said, target, gpus)
            continue
        text = written("--model", model, "--engine", engine, "--gpus", str(gpus))
        written_ += 1
        (checked,) = check_bytes("config.yaml", text.encode())
        assert not faults(checked, text)
        assert checked.resolution
        assert checked.resolution.settings["gpus"] == gpus
        for more in uncommented(text):
            (checked,) = check_bytes("config.yaml", more.encode())
            assert not faults(checked, more), more
            possible += 1
    assert written_ > 1
    assert possible > 5


def test_it_says_the_reasons_in_comments() -> None:
    text = written("--model", "Qwen/Qwen-Image", "--engine", "vllm-omni==0.30", "--gpus", "4")
    assert "# Ulysses sequence parallelism" in text
    assert "engine: vllm-omni==0.30\n" in text
    assert "  #   ring_degree: 4\n" in text  # another way to use the GPUs
    assert 'negative_prompt: ""' in text  # or there would be no guidance


def test_where_nothing_runs_it_names_what_would() -> None:
    done = runner.invoke(
        app(["init"]),
        ["init", "-", "--model", "stabilityai/stable-audio-open-1.0", "--engine", "vllm-omni==0.30", "--gpus", "8"],
    )
    assert done.exit_code == 1
    assert done.stderr.endswith("next: --gpus 1\n")


def test_names_that_are_not_known_and_files_that_are_there_are_refused(tmp_path: Path) -> None:
    done = runner.invoke(app(["init"]), ["init", "-", "--model", "Qwen/Qwen-Imag"])
    assert done.exit_code == 2
    assert "did you mean Qwen/Qwen-Image" in done.stderr
    file = tmp_path / "config.yaml"
    file.write_text("mine\n")
    done = runner.invoke(app(["init"]), ["init", str(file), "--model", "tiny"])
    assert done.exit_code == 2
    assert file.read_text() == "mine\n"
    done = runner.invoke(app(["init"]), ["init", "-"])  # nobody can be asked
    assert done.exit_code == 2
    assert "--model" in done.stderr


def test_what_no_flag_says_is_asked(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [*OMNI, "init", str(tmp_path / "config.yaml"), "--engine", "native"], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, b"Qwen/Qwen-Imag\nQwen/Qwen-Image\n4\n")
    said = b""
    while True:
        try:
            part = os.read(ours, 1000)
        except OSError:  # it has ended
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert started.wait(60) == 0
    assert b"did you mean" in said
    text = (tmp_path / "config.yaml").read_text()
    assert "model: Qwen/Qwen-Image\n" in text
    assert "gpus: 4\n" in text
    assert subprocess.run([*OMNI, "check", str(tmp_path)], capture_output=True, text=True).stdout.startswith("All good")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("omni ini", "init"),
        ("omni check --base", "--baseline"),
        ("omni launch --model Qwen/Qwen-Image-Edit-25", "Qwen/Qwen-Image-Edit-2511"),
        ("omni plan --engine vllm-omni==0.3", "vllm-omni==0.30"),
        ("omni check --gpu h1", "h100"),
        ("omni explain OMNI10", "OMNI103"),
    ],
)
def test_shells_complete_commands_flags_and_names(words: str, wanted: str) -> None:
    asked = {"_OMNI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(OMNI, capture_output=True, text=True, env=os.environ | asked)
    assert wanted in done.stdout.split()


@pytest.mark.parametrize("command", [["check"], ["launch"], ["plan"], ["fix", "--unsafe", "--diff"]])
def test_explain_prints_the_pages_behind_the_findings(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "omni.yaml"
    file.write_text(BAD)
    for flags, count in (([], 0), (["--explain"], 1)):
        done = runner.invoke(app([command[0]]), [*command, str(file), *flags])
        assert done.output.count("OMNI103 ulysses-divides-heads") == count
        assert done.exit_code == (0 if command[0] == "fix" and not flags else done.exit_code)


def test_suggest_explains_what_is_wrong_with_the_config_that_it_starts_from(tmp_path: Path) -> None:
    file = tmp_path / "omni.yaml"
    file.write_text(BAD)
    asked = ["suggest", str(file), "--gpu", "h100", "--gpus", "4", "--top", "1"]
    plain, explained = (runner.invoke(app(["suggest"]), [*asked, *more]) for more in ((), ("--explain",)))
    assert "OMNI103" not in plain.output
    assert explained.stderr.count("OMNI103 ulysses-divides-heads") == 1
    assert explained.stderr.index("OMNI103 [error]") < explained.stderr.index("OMNI103 ulysses-divides-heads")
    assert (explained.stdout, explained.exit_code) == (plain.stdout, plain.exit_code) != ("", 2)


def test_of_a_rule_with_many_cases_only_those_are_explained_that_were_found(tmp_path: Path) -> None:
    rule = catalog().by_code["OMNI1301"]
    file = tmp_path / "run.sh"
    words = "--ulysses_degree 2 --vae_parallel_size 1"
    file.write_text(
        f"torchrun --nproc_per_node=2 examples/flux_example.py --model black-forest-labs/FLUX.1-dev {words}\n"
    )
    done = runner.invoke(app(["check"]), ["check", str(file), "--explain"])
    assert f"{rule.code} {rule.name}" in done.output
    assert 1 <= done.output.count("Where ") < len(rule.stated) // 2
