"""``omni launch --prompts``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import typer

from omni_config.checking.document import CheckResult
from omni_config.cli.running import bar, errors, fail, require_startable


def launch_prompts(checked: CheckResult, file: Path, *, dry_run: bool, as_json: bool, timeout: float) -> None:
    """Make the images of a file of prompts that are not in the output folder yet; exit code 1 where some failed."""
    plan = checked.plan
    assert plan is not None
    if plan.model.task != "text_to_image":
        fail("launch", f"--prompts is for models that make images of text; {plan.model.id} does {plan.model.task}")
    from runtime.serving.prompts import PromptsError, read
    from runtime.serving.requests import ServedConfig

    served = ServedConfig(checked)
    with errors("launch"):
        try:
            prompts = read(file, served)
        except PromptsError as error:
            fail("launch", str(error))
    for line, finding in prompts.warnings:
        typer.echo(f"{file}:{line}: {finding.code} [warning] {finding.message}", err=True)
    if prompts.repeated:
        typer.echo(f"{file}: {prompts.repeated} images are asked for before, with the same seed", err=True)
    if dry_run:
        there = sum(Path(plan.output, job.name).is_file() for job in prompts.jobs)
        _tell({"images": len(prompts.jobs), "there": there, "replicas": served.replicas}, as_json=as_json)
        return
    require_startable("launch", plan, served.replicas)
    if find_spec("prometheus_client") is None:
        fail("launch", "prometheus_client not installed; next: pip install 'omni-config[serve]'")
    from runtime.serving.many import make_all
    from runtime.serving.results import Results

    with errors("launch"), Results(Path(plan.output)) as results, bar() as show:
        missing = results.missing(prompts.jobs)
        begun = time.monotonic()
        failed = {}
        if missing:
            show("making", 0, len(missing))
            failed = make_all(
                served, missing, results, timeout=timeout, on_done=lambda done: show("making", done, len(missing))
            )
        seconds = time.monotonic() - begun
    for name, cause in failed.items():
        typer.echo(f"omni launch: {name}: {cause}", err=True)
    told = {"made": len(missing) - len(failed), "there": len(prompts.jobs) - len(missing), "failed": len(failed)}
    _tell(told | {"seconds": round(seconds, 1), "results": str(results.path)}, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _tell(values: Mapping[str, object], *, as_json: bool) -> None:
    typer.echo(json.dumps(values) if as_json else ", ".join(f"{name} {value}" for name, value in values.items()))
