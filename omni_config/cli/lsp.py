"""``omni lsp``."""

from __future__ import annotations

import typer

from omni_config.cli.policies import Rules, load_rules


def lsp(rules: Rules = []) -> None:  # noqa: B006
    """Serve editors on standard input and output: findings while typing, what a word means, completion, repairs.

    It needs pip install "omni-config[lsp]". Setup of editors: docs/editors.md.
    """
    try:
        import lsprotocol  # noqa: F401
        import pygls  # noqa: F401
    except ImportError:
        typer.echo('omni: the language server needs pygls; next: pip install "omni-config[lsp]"', err=True)
        raise typer.Exit(2) from None
    from omni_config.checking.choices import Choices
    from omni_config.lsp.server import serve

    serve(Choices(policies=load_rules(rules)))
