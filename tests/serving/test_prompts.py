"""``omni launch --prompts``: what a file asks for, and that each image is made once, whatever ends the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from omni_config.checking.files import check_bytes
from omni_config.cli import app as omni
from runtime.serving.prompts import PromptsError, read
from runtime.serving.requests import ServedConfig
from runtime.serving.results import InUse, Results

PROMPTS = 12
COMMAND = ("--model", "tiny", "--data-parallel-size", "2", "--num-inference-steps", "20", "--json")


def served(config: str = "sampling: {seed: 7}\n") -> ServedConfig:
    (checked,) = check_bytes("config.yaml", f"version: 1\nmodel: tiny\nserver: true\n{config}".encode())
    return ServedConfig(checked)


def written(folder: Path, text: str, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_line_is_a_prompt_and_the_same_one_is_made_once(tmp_path: Path) -> None:
    found = read(written(tmp_path, "a red star\r\n\n  a cross\na red star\n"), served())
    assert [(job.line, job.sampling.prompt, job.sampling.seed) for job in found.jobs] == [
        (1, "a red star", 7),
        (3, "a cross", 7),
    ]
    assert found.repeated == 1
    assert found.jobs[0].name.startswith("a-red-star-7-")


def test_json_lines_are_requests_and_seeds_count_up(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a", "n": 2, "seed": 4},
        {"prompt": "a", "seed": 5, "size": "32x64"},
        {"prompt": "a", "seed": 5},
    ]
    text = "\n".join(map(json.dumps, lines))
    found = read(written(tmp_path, text, "prompts.jsonl"), served())
    told = [(job.line, job.sampling.seed, job.sampling.width) for job in found.jobs]
    assert told == [(1, 4, 64), (1, 5, 64), (2, 5, 32)]
    assert found.repeated == 1
    assert all(job.sampling.num_images_per_prompt == 1 for job in found.jobs)


def test_another_plan_makes_other_files(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n")
    names = {
        read(path, served(config)).jobs[0].name
        for config in ("", "output: elsewhere\n", "cache: {tea_cache: {}}\n", "sampling: {num_inference_steps: 3}\n")
    }
    assert len(names) == 3  # where it goes changes nothing


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", " \n\n", "no line holds a prompt"),
        ("a.txt", "a\n" + "b" * 5000, "a.txt:2: at most 4096 characters"),
        ("a.jsonl", '{"prompt": "a"}\n\n{', "a.jsonl:3: no JSON"),
        ("a.jsonl", "[1]", "a.jsonl:1: the line: "),
        ("a.jsonl", '{"prompt": "a", "steps": 3}', "a.jsonl:1: steps: extra"),
        ("a.jsonl", '{"prompt": "a", "stream": true}', "stream is for omni serve"),
        ("a.jsonl", '{"prompt": "a", "size": "60x64"}', "OMNI504"),
        ("a.jsonl", '{"prompt": "a", "negative_prompt": 3}', "negative_prompt"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(PromptsError) as caught:
        read(written(tmp_path, text, name), served())
    assert words in str(caught.value)


def test_a_rule_that_warns_is_told_once_with_its_first_line(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "a", "negative_prompt": "red", "guidance_scale": 0})
    text = f'{{"prompt": "b"}}\n{line}\n{line.replace("red", "blue")}\n'
    found = read(written(tmp_path, text, "a.jsonl"), served())
    assert [(number, finding.code) for number, finding in found.warnings] == [(2, "OMNI509")]


@pytest.mark.parametrize(
    ("arguments", "server", "code", "words"),
    [
        ([], "", 1, "OMNI123"),
        ([], "server: true\n", 1, "next: --prompts"),
        (["--prompts", "prompts.txt", "--dry-run"], "", 0, "images 2, there 0, replicas 2"),
        (["--prompts", "prompts.txt", "--profile"], "", 2, "--prompts goes with"),
        (["--prompts", "prompts.txt", "--engine", "vllm-omni==0.30"], "", 1, "built-in runtime"),
        (["--prompts", "missing.txt"], "", 1, "no such file"),
        (["--prompts", "prompts.txt", "--model", "Qwen/Qwen-Image-Edit"], "", 1, "image_to_image"),
    ],
    ids=str,
)
def test_what_the_command_says_of_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], server: str, code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "a\nb\n")
    written(tmp_path, f"version: 1\nmodel: tiny\nparallel: {{data_parallel_size: 2}}\n{server}", "config.yaml")
    result = CliRunner().invoke(omni(), ["launch", "config.yaml", *arguments])
    assert (result.exit_code, words in result.output) == (code, True), result.output


def test_results_are_told_once_and_half_a_line_is_cut_off(tmp_path: Path) -> None:
    jobs = read(written(tmp_path, "a\nb\nc\n"), served()).jobs
    folder = tmp_path / "out"
    with Results(folder) as results:
        assert results.missing(jobs) == jobs
        results.add(jobs[0], b"an image")
        with pytest.raises(InUse):
            Results(folder)
    (folder / jobs[1].name).write_bytes(b"written, and then killed before it was told")
    (folder / f".omni-partial-1-{jobs[2].name}").write_bytes(b"half")
    with results.path.open("a") as out:
        out.write('{"image": "half')
    for _ in range(2):
        with Results(folder) as results:
            assert results.missing(jobs) == jobs[2:]
    told = [json.loads(line)["image"] for line in results.path.read_text().splitlines()]
    assert told == [jobs[0].name, jobs[1].name]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*told, "results.jsonl"])
    results.path.write_text("something else\n")
    with pytest.raises(OSError, match="not as omni launch"):
        Results(folder)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """``omni launch`` of twelve prompts over two replicas, which has made some of them."""
    written(tmp_path, "".join(f"a star number {number}\n" for number in range(PROMPTS)))
    process = start(tmp_path)
    end = time.monotonic() + 200
    while len(images(tmp_path)) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "omni_config", "launch", *COMMAND, "--prompts", "prompts.txt"]
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--output", "out"],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def images(folder: Path) -> dict[str, int]:
    """The whole images that are there, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("a-star*.png")}


def ranks(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        running = process.info["status"] != psutil.STATUS_ZOMBIE and "--folder" in line
        if running and "-m" not in line and str(folder) in " ".join(line):
            found.append(process)
    return found


def test_a_run_that_was_killed_goes_on_and_makes_nothing_twice(tmp_path: Path, launched: subprocess.Popen[str]) -> None:
    launched.kill()
    launched.wait()
    while ranks(tmp_path):  # they end as the launcher is gone
        time.sleep(0.05)
    before = images(tmp_path)
    again = start(tmp_path)
    end = time.monotonic() + 200
    while len(images(tmp_path)) == len(before):
        assert time.monotonic() < end
        time.sleep(0.01)
    ranks(tmp_path)[0].kill()  # what it was at is given to the other replica, or to the same one later
    told, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    values = json.loads(told)
    assert (values["made"], values["there"], values["failed"]) == (PROMPTS - len(before), len(before), 0)
    after = images(tmp_path)
    assert len(after) == PROMPTS
    assert {name: after[name] for name in before} == before
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(line["image"] for line in lines) == sorted(after)
    assert len({(tmp_path / "out" / name).read_bytes() for name in after}) == PROMPTS


def test_sigterm_ends_every_process_and_keeps_what_is_made(tmp_path: Path, launched: subprocess.Popen[str]) -> None:
    launched.send_signal(signal.SIGTERM)
    launched.wait(timeout=60)
    assert launched.returncode == 143
    assert ranks(tmp_path) == []
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["image"] for line in lines) == sorted(images(tmp_path))
