"""``omni doctor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from omni_config.checking.document import judge
from omni_config.cli.inputs import document_of
from omni_config.doctor.diagnosis import diagnose
from omni_config.doctor.machine import Machine, this_machine
from omni_config.estimate.estimate import memory
from omni_config.resolving.resolver import Resolution

MARKS = {"problem": "[!!]", "warning": "[ !]", "fine": "[ok]"}


def doctor(
    file: Annotated[Path | None, typer.Argument(help="A config that is to run here.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what is on this machine, what that means for a config, and which link makes a degree a bad idea.

    The report can be pasted into a bug report. Exit code: 0 no problem, 1 a problem, 2 a config that cannot be used.
    """
    mesh = gib = None
    if file is not None:
        done = judge(document_of(file, []))
        if done.plan is None or done.resolution is None:
            typer.echo(f"omni doctor: {file} has findings; next: omni check {file}", err=True)
            raise typer.Exit(2)
        mesh = done.plan.mesh
        gib = _gib(done.resolution)
    machine = this_machine()
    notes = diagnose(machine, mesh, gib)
    if as_json:
        result = {"machine": machine.to_dict(), "notes": [vars(note) for note in notes], "estimated_gib": gib}
        typer.echo(json.dumps(result, indent=2))
    else:
        typer.echo(report(machine))
        for note in notes:
            typer.echo(f"{MARKS[note.level]} {note.text}" + (f"; next: {note.next}" if note.next else ""))
    raise typer.Exit(1 if any(note.level == "problem" for note in notes) else 0)


def _gib(resolution: Resolution) -> float | None:
    q = resolution.target.quantities(resolution.settings)
    return None if q["transformer_parameters"] is None else memory(q).peak


def report(machine: Machine) -> str:
    """The machine in plain lines, to be copied."""
    from omni_config import __version__

    lines = [
        f"omni-config {__version__}, Python {machine.python}, {machine.system}",
        f"{machine.cpus} CPUs, {machine.memory_gib or '?'} GiB of memory",
        f"{len(machine.gpus)} GPUs" + "".join(f"\n  GPU{i} {d.name}, {d.gib} GiB" for i, d in enumerate(machine.gpus)),
        "torch.distributed: " + (", ".join(machine.backends) or "none"),
        ", ".join(f"{name} {version or 'not installed'}" for name, version in machine.versions.items()),
    ]
    lines += [f"  GPU{a} - GPU{b}: {link}" for (a, b), link in machine.links.items()]
    lines += [f"{name}={value}" for name, value in sorted(machine.environment.items())]
    return "\n".join(lines)
