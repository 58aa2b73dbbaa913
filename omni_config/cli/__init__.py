"""``omni``: a thin layer over the Python API. A command imports what it needs when it runs, so that help and check
start fast; torch is never imported in this process.
"""

from __future__ import annotations

import sys

import typer

from omni_config.cli import check, explain, fix, launch, plan

app = typer.Typer(
    name="omni",
    help="Check, plan and launch deployments of diffusion transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(check.check)
app.command("fix")(fix.fix)
app.command("explain")(explain.explain)
app.command("rules")(explain.rules)
app.command("plan")(plan.plan)
app.command("launch")(launch.launch)
app.command("schema")(explain.schema)
app.command("docs")(explain.docs)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),
) -> None:
    if version:
        from omni_config import __version__

        typer.echo(f"omni {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output (head, say) has gone; that is no error of ours
        sys.exit(0)
