"""What the commands that start runs share: whether this machine can, a progress bar, and errors of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from omni_config.plan import Plan


def require_startable(command: str, plan: Plan, replicas: int = 1) -> None:
    """End the command with exit code 1 where this machine cannot carry out a Plan that is right as such."""
    if problem := _cannot_start(command, plan, replicas):
        fail(command, problem)


def fail(command: str, message: str) -> NoReturn:
    """End the command with one line and exit code 1."""
    typer.echo(f"omni {command}: {message}", err=True)
    raise typer.Exit(1)


@contextmanager
def errors(command: str) -> Iterator[None]:
    """Turn what runs raise into one line and exit code 1, or 130 after Ctrl-C."""
    from runtime import LaunchError

    try:
        yield
    except LaunchError as error:
        fail(command, str(error))
    except OSError as error:
        fail(command, f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".lstrip(": "))
    except KeyboardInterrupt:
        typer.echo(f"omni {command}: interrupted; every process has been ended", err=True)
        raise typer.Exit(130) from None


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal; it takes what is done now, and how many of how many (0 of 0: unchanged)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def show(what: str, step: int, steps: int) -> None:
            if steps:
                progress.update(task, description=what, completed=step, total=steps)
            else:
                progress.update(task, description=what)

        yield show


def _cannot_start(command: str, plan: Plan, replicas: int) -> str | None:
    from importlib.util import find_spec

    if plan.engine != "native":
        return f"this is for the built-in runtime, and the config says engine {plan.engine}; set engine: native"
    missing = [name for name in ("torch", "diffusers", "cache_dit") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed; next: pip install 'omni-config[runtime]'"
    from runtime.errors import CannotRunError
    from runtime.launcher.devices import gpu_count
    from runtime.pipeline.media import input_image, require_encoder

    try:
        require_encoder(plan)
        if plan.sampling.image is not None:
            input_image(plan.sampling.image)
    except CannotRunError as error:
        return str(error)
    if plan.mesh.nodes > 1 and command != "launch":
        return f"the plan is for {plan.mesh.nodes} nodes, and this runs on one; remove hardware.gpus_per_node"
    gpus, ranks = gpu_count(), plan.mesh.ranks_per_node
    if 0 < gpus < ranks * replicas:
        if ranks <= gpus:
            return f"{replicas} replicas need {ranks * replicas} GPUs and this machine has {gpus}; lower their number"
        on = " on each node" if plan.mesh.nodes > 1 else ""
        return f"the plan needs {ranks} GPUs{on} and this machine has {gpus}; lower the degrees, or add machines"
    return None
