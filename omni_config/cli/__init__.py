"""``omni``: a thin layer over the Python API. A command is imported when it runs, so that help and check start fast;
torch is never imported in this process.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from keyword import iskeyword

import typer

from omni_config.cli.explained import explainable

#: Each command with the module that holds it, in the order of the help.
COMMANDS = {
    "init": "init",
    "check": "check",
    "fix": "fix",
    "lsp": "lsp",
    "explain": "explain",
    "rules": "explain",
    "plan": "plan",
    "suggest": "suggest",
    "doctor": "doctor",
    "launch": "launch",
    "serve": "serve",
    "matrix": "matrix",
    "prove": "prove",
    "bench": "bench",
    "calibrate": "calibrate",
    "import": "exchange",
    "export": "exchange",
    "diff": "diff",
    "schema": "explain",
    "docs": "explain",
    "engine": "engine",
    "model": "model",
}

#: Those that judge configs and show findings on stderr; ``omni check`` has the option itself.
_EXPLAINED = ("fix", "plan", "suggest", "launch", "serve", "prove", "bench", "calibrate", "import", "export", "diff")


def app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands."""
    result = typer.Typer(
        name="omni",
        help="Check, plan and launch deployments of diffusion transformers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    result.callback()(_options)
    for name in names:
        function = f"{name}_" if iskeyword(name) else name
        command = getattr(import_module(f"omni_config.cli.{COMMANDS[name]}"), function)
        if name in _EXPLAINED:
            command = explainable(command)
        result.add_typer(command, name=name) if isinstance(command, typer.Typer) else result.command(name)(command)
    return result


def _version(wanted: bool) -> None:
    if wanted:
        from omni_config import __version__

        typer.echo(f"omni {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    """Check, plan and launch deployments of diffusion transformers."""
