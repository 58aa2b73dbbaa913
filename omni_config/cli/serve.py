"""``omni serve``."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_config, document_of, with_server
from omni_config.cli.running import errors, fail, require_startable
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override
from omni_config.schema.settings import Settings


@partial(with_overrides, without=())
def serve(
    config: Annotated[str | None, typer.Argument(help="The config, or a model.", show_default=False)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check only; of another engine, print the command.")
    ] = False,
    emit: Annotated[
        str | None, typer.Option("--emit", help="Print what starts it: kubernetes, llm-d, ray or compose.")
    ] = None,
    keda: Annotated[
        str | None,
        typer.Option(
            "--keda", help="With --emit kubernetes or llm-d: scale by KEDA, which asks the Prometheus at this URL."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds in which a busy rank must go on.")] = 600,
    omni: Annotated[bool, typer.Option("--omni", hidden=True, help="Of vllm serve; nothing else is served.")] = False,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Keep one checked Plan warm, and serve it behind OpenAI's images or videos API.

    With parallel.data_parallel_size N, N groups of ranks serve it, each on GPUs of its own, behind one queue.
    A command of vLLM-Omni's guide works with its own flags: omni serve Qwen/Qwen-Image --port 8091 --usp 2.
    Where the config names another engine, that engine is started, or its command is printed where it is not installed.

    Exit code: 0 ended by SIGTERM or Ctrl-C after what was in work, 1 findings or cannot start, 2 a config that cannot
    be used, 75 the workers failed more often than server.max_restarts.
    """
    file = Path(config) if config is not None and _is_config(config) else None
    if config is not None and file is None:
        overrides = [Override(("model",), config, (config,)), *overrides]
    if emit is not None:
        from omni_config.cli.emit import emitted

        typer.echo(emitted(emit, document_of(file, overrides), policies, keda), nl=False)
        return
    if keda is not None:
        raise typer.BadParameter("--keda: give --emit kubernetes, too")
    if "OMNI_API_KEY" in os.environ and not any(override.path[-1] == "api_key" for override in overrides):
        overrides = [*overrides, Override(("server", "api_key"), os.environ["OMNI_API_KEY"], ("OMNI_API_KEY=***",))]
    checked = checked_config(with_server(document_of(file, overrides)), policies)
    plan = checked.plan
    assert plan is not None
    if plan.engine != "native":
        from omni_config.cli.other_engine import start_other

        raise typer.Exit(start_other("serve", checked, plan.engine, dry_run=dry_run))
    from runtime.serving.requests import ServedConfig

    served = ServedConfig(checked)
    if dry_run:
        typer.echo(json.dumps(served.to_dict(), indent=2))
        return
    key, adapters = _key(served.settings), served.settings["lora_folder"]
    if adapters is not None and not Path(adapters).is_dir():
        fail("serve", f"server.lora_folder {adapters} is no folder")
    require_startable("serve", plan, served.replicas)
    _require_server()
    from runtime.serving.server import serve as run

    def on_listening(address: str) -> None:
        typer.echo(f"{plan.model.id} at {address} (page), {address}/v1 (API), {address}/docs", err=True)

    with errors("serve"):
        raise typer.Exit(run(served, key, timeout=timeout, on_listening=on_listening))


def _is_config(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or Path(text).is_file()


def _key(settings: Settings) -> str | None:
    if settings["api_key_file"] is None:
        return settings["api_key"]  # type: ignore[no-any-return]
    try:
        key = Path(settings["api_key_file"]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail("serve", f"server.api_key_file {settings['api_key_file']} cannot be read: {error}")
    return key or fail("serve", f"server.api_key_file {settings['api_key_file']} is empty")


def _require_server() -> None:
    from importlib.util import find_spec

    names = {"fastapi": "fastapi", "uvicorn": "uvicorn", "multipart": "python-multipart"}
    names |= {"prometheus_client": "prometheus_client"}
    missing = [package for module, package in names.items() if find_spec(module) is None]
    if missing:
        fail("serve", f"{' and '.join(missing)} not installed; next: pip install 'omni-config[serve]'")
