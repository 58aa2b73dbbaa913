"""``omni init``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from omni_config.checking.document import CheckResult, from_flags, judge
from omni_config.checking.files import check_bytes
from omni_config.cli.completion import engines, models
from omni_config.cli.explained import show_findings
from omni_config.schema.overrides import Override
from omni_config.schema.settings import validate

MOST_GPUS = 1024


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it; - for standard output.")] = Path("config.yaml"),
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id, local folder, or tiny.", autocompletion=models)
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, max=MOST_GPUS, help="How many GPUs there are.")] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Who runs it, such as vllm-omni==0.30.", autocompletion=engines)
    ] = None,
) -> None:
    """Write a first config, with comments: one that checks clean, and what else is possible for that model there.

    What no flag says is asked. Without a terminal nothing is asked: --model is needed, and one GPU and the built-in
    runtime are meant. `omni suggest --gpu` finds the fastest plan for a kind of GPU.

    Exit code: 0 written, 1 nothing runs there, 2 a file that is there already, or an unknown name.
    """
    if str(file) != "-" and file.exists():
        _fail(f"{file} is there already; next: name another file, or - for standard output")
    asks = sys.stdin.isatty()
    if model is None and not asks:
        _fail("nobody can be asked here; next: --model")
    model = model or _ask("Model (a hub id, a local folder, or tiny)", "model", "tiny")
    gpus = gpus or (typer.prompt("How many GPUs", 1, type=int, err=True) if asks else 1)
    engine = engine or (_ask("Engine (such as vllm-omni==0.30)", "engine", "native") if asks else "native")
    started = _started({"model": model, "engine": engine})
    if started.resolution is None or started.node is None:
        show_findings(started.findings)
        raise typer.Exit(2)
    from omni_config.output.first_config import first_config, numbers_of_gpus

    start, target = validate(started.node.value), started.resolution.target
    text = first_config(start, target, gpus)
    if text is None:
        works = ", ".join(map(str, numbers_of_gpus(start, target, gpus)))
        next_step = f"; next: --gpus {works}" if works else f"; next: omni check says why for --engine {engine}"
        _fail(f"{engine} runs {model} on {gpus} GPUs in no way{next_step}", 1)
    (checked,) = check_bytes(str(file), text.encode())
    show_findings([one for one in checked.findings if one.severity != "advice"])
    if str(file) == "-":
        typer.echo(text, nl=False)
    else:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            _fail(f"{file}: {(error.strerror or str(error)).lower()}")
        typer.echo(f"{file} is written; next: omni check {file}, omni plan {file}, omni launch {file}")


def _started(said: dict[str, str]) -> CheckResult:
    named = {"model": "tiny", "engine": "native"} | said
    return judge(from_flags([Override((name,), value, ()) for name, value in named.items()]))


def _ask(question: str, name: str, default: str) -> str:
    """An answer that is known; what is not is asked again."""
    while True:
        answer = str(typer.prompt(question, default, err=True))
        unknown = [one for one in _started({name: answer}).findings if one.code in ("OMNI501", "OMNI502")]
        if not unknown:
            return answer
        typer.echo(f"{unknown[0].message}; {unknown[0].next_step}", err=True)


def _fail(message: str, code: int = 2) -> NoReturn:
    typer.echo(f"omni init: {message}", err=True)
    raise typer.Exit(code)
