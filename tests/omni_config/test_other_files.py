"""Files of other purposes: none that is no deployment has an error or a traceback, and a hook can afford them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.checking.files import check, check_bytes
from omni_config.cli import app
from omni_config.output.run_check import is_config
from omni_config.reading.discover import discover

FILES = 1000
NAMES = ("api", "worker", "cache", "queue", "billing", "search", "mailer", "gateway", "metrics", "ingest")


def python(random: random.Random) -> Iterator[str]:
    yield from ('"""A service."""', "import json", "import os", "from dataclasses import dataclass", "", "")
    if random.random() < 0.3:  # a client of a server of language models
        yield from ("from openai import OpenAI", 'client = OpenAI(base_url="http://vllm:8000/v1")', "")
    if random.random() < 0.2:
        yield from (
            "from vllm import LLM, SamplingParams",
            'llm = LLM(model="Qwen/Qwen3-8B", tensor_parallel_size=2)',
            "",
        )
    if random.random() < 0.2:
        yield from ("import torch", "model = torch.nn.Linear(4, 4)", "print(model(torch.zeros(4)))", "")
    for number in range(random.randint(2, 12)):
        name = random.choice(NAMES)
        yield from (
            "@dataclass",
            f"class {name.title()}{number}:",
            f"    size: int = {random.randint(1, 99)}",
            "",
            f"    def {name}(self, values: list[int], *, limit: int = {number}) -> dict[str, int]:",
            "        found = {str(value): value * self.size for value in values if value > limit}",
            f"        return found or {{os.environ.get('{name.upper()}', 'none'): {number}}}",
            "",
        )
    yield from ('if __name__ == "__main__":', "    print(json.dumps([1, 2, 3]))")


def shell(random: random.Random) -> Iterator[str]:
    yield from ("#!/usr/bin/env bash", "set -euo pipefail", 'ROOT="$(cd "$(dirname "$0")" && pwd)"')
    if random.random() < 0.3:
        yield from (
            "MODEL=${MODEL:-meta-llama/Llama-3.1-8B}",
            'vllm serve "$MODEL" --tensor-parallel-size 4 --port 8000 &',
        )
    if random.random() < 0.2:
        yield "docker run --gpus 2 lmsysorg/sglang python3 -m sglang.launch_server --model-path Qwen/Qwen3-8B --tp 4"
    if random.random() < 0.2:
        yield from ("#SBATCH --gpus-per-node=8", "srun torchrun --nproc-per-node 8 train.py --config base.yaml")
    for _ in range(random.randint(3, 25)):
        name = random.choice(NAMES)
        yield from (
            f'if [[ -f "$ROOT/{name}.env" ]]; then',
            f'  source "$ROOT/{name}.env"  # settings',
            "fi",
            f"for host in a b c; do ssh \"$host\" 'systemctl restart {name}'; done",
            f"cat <<EOF > {name}.json",
            f'{{"name": "{name}"}}',
            "EOF",
        )


def manifest(random: random.Random) -> Iterator[str]:
    name = random.choice(NAMES)
    yield from ("apiVersion: apps/v1", "kind: Deployment", "metadata:", f"  name: {name}", "spec:")
    yield from (f"  replicas: {random.randint(1, 9)}", "  template:", "    spec:", "      containers:")
    for number in range(random.randint(1, 4)):
        yield from (f"        - name: {name}-{number}", f"          image: registry.example/{name}:1.{number}")
        if random.random() < 0.3:
            yield from ("          command: [vllm, serve, Qwen/Qwen3-8B]", '          args: ["-tp", "2"]')
        else:
            yield from (
                '          args: ["--listen", ":8080"]',
                "          env:",
                "            - {name: MODE, value: fast}",
            )
        yield from ("          resources:", "            limits: {cpu: 2, memory: 4Gi, nvidia.com/gpu: 1}")
    yield from ("---", "apiVersion: v1", "kind: Service", f"metadata: {{name: {name}}}", "spec: {ports: [{port: 80}]}")


def workflow(random: random.Random) -> Iterator[str]:
    yield from ("name: CI", "on: [push]", "env: {CUDA_VISIBLE_DEVICES: '0'}", "jobs:", "  test:")
    yield from ("    runs-on: ubuntu-latest", "    steps:", "      - uses: actions/checkout@v4")
    for _ in range(random.randint(1, 12)):
        yield from (
            f"      - name: {random.choice(NAMES)}",
            "        run: |",
            "          pip install vllm sglang diffusers",
        )
        yield "          pytest -k ${{ matrix.part }} tests"


def settings(random: random.Random) -> Iterator[str]:
    yield from ("model: llama", "parallel: true", "stages: [build, test]", "cache: {paths: [.cache]}")
    for number in range(random.randint(5, 60)):
        yield f"{random.choice(NAMES)}_{number}: {{size: {number}, tags: [a, b], model_path: /models/{number}}}"


def template(random: random.Random) -> Iterator[str]:
    yield from ("{{- if .Values.enabled }}", "apiVersion: v1", "kind: ConfigMap", "metadata:")
    yield from ('  name: {{ include "a.name" . }}', "data:")
    for number in range(random.randint(1, 20)):
        yield f"  {random.choice(NAMES)}_{number}: {{{{ .Values.size | quote }}}}  # of vllm"
    yield "{{- end }}"


KINDS: dict[str, tuple[Callable[[random.Random], Iterator[str]], float]] = {
    ".py": (python, 0.4),
    ".sh": (shell, 0.2),
    ".yaml": (manifest, 0.15),
    ".yml": (workflow, 0.1),
    ".config.yaml": (settings, 0.1),
    ".template.yaml": (template, 0.05),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = random.Random(21)
    root = tmp_path_factory.mktemp("others")
    for number in range(FILES):
        (suffix,) = chosen.choices(list(KINDS), [weight for _, weight in KINDS.values()])
        path = root / f"part{number % 10}" / f"{chosen.choice(NAMES)}{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(KINDS[suffix][0](chosen)) + "\n")
    return root


def test_no_file_of_another_purpose_is_taken_for_a_deployment(folder: Path) -> None:
    names = [name for name, _ in discover([str(folder)])]
    assert len(names) == FILES
    began = time.process_time()
    results = [result for name in names for result in check(name)]
    seconds = time.process_time() - began
    taken = [result for result in results if is_config(result)]
    assert [str(finding) for result in taken for finding in result.findings] == []
    assert taken == []
    assert seconds < FILES / 100  # a third of what it does on a core of its own


def test_the_folder_says_that_nothing_in_it_is_read(folder: Path) -> None:
    result = CliRunner().invoke(app(), ["check", str(folder)])
    assert result.exit_code == 2
    assert f"no file that is read here; {FILES} files are of other forms" in result.output
    assert "All good" not in result.output


@pytest.mark.parametrize(
    "data",
    [
        b"from diffusers import FluxPipeline\nx = " + b"(" * 100_000,
        b"from diffusers import FluxPipeline\nx = " + b"[" * 5_000 + b"]" * 5_000,
        b"from diffusers import FluxPipeline\nx = " + b"-" * 200_000 + b"1\n",
        b"from diffusers import FluxPipeline\nx = " + b"a." * 100_000 + b"a\n",
        b"from diffusers import FluxPipeline\n" + b"if a:\n" + b"".join(b" " * n + b"if a:\n" for n in range(1, 99)),
        b"from diffusers import FluxPipeline\n" + b"x = 1\n" * 1_700_000,
        b"from diffusers import FluxPipeline\x00\nx = 1\n",
        b"\x00" * 1_000_000,
        b"from vllm_omni import Omni\nOmni(" + b"**{" * 3_000,
        b"from diffusers import FluxPipeline\nx = '" + b"{{" * 100_000,
    ],
    ids=["open", "nested", "signs", "attributes", "indents", "10 MB", "null", "nulls", "stars", "braces"],
)
@pytest.mark.parametrize("name", ["hostile.py", "hostile.ipynb", "hostile.sh", "hostile.yaml"])
def test_a_hostile_file_ends_in_a_finding_within_a_second(name: str, data: bytes) -> None:
    began = time.process_time()
    results = check_bytes(name, data)
    assert time.process_time() - began < 1
    assert any(result.findings for result in results)
