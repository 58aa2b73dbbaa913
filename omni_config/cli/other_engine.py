"""Starting another engine from a config of ours: by the command that ``omni export`` prints."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import typer

from omni_config.checking.document import CheckResult
from omni_config.checking.export import export
from omni_config.cli.explained import show_findings
from omni_config.engines import ENGINES


def start_other(command: str, checked: CheckResult, engine: str, *, dry_run: bool) -> int:
    """Run the engine for our command, in the foreground; its exit code, or 1 where it is not installed or cannot."""
    assert checked.resolution is not None
    known = ENGINES.get(checked.resolution.engine.family)
    if known is not None and not known.exported:
        return _fail(command, f"engine {engine} is started by a script of one's own, which omni check reads")
    if known is None or not known.commands:
        return _fail(command, f"engine {engine} has no command; next: omni export --to {engine}, for its file")
    text, findings = export(checked)
    if text is None:
        show_findings(findings)
        return 1
    words = shlex.split(text.replace("\\\n", " "))
    names = dict(word.split("=", 1) for word in words if word.partition("=")[0].isupper())
    words = words[len(names) :]
    if dry_run or not _is_here(words):
        typer.echo(text, nl=False)
        where = "is not installed here; the command above starts it where it is"
        return 0 if dry_run else _fail(command, f"{engine} {where}")
    try:
        return subprocess.run(words, env=os.environ | names, check=False).returncode
    except KeyboardInterrupt:
        return _fail(command, "interrupted", 130)


def _is_here(words: list[str]) -> bool:
    """Whether the program is, and the script where it runs one."""
    return shutil.which(words[0]) is not None and (words[0] != "python" or Path(words[1]).is_file())


def _fail(command: str, message: str, code: int = 1) -> int:
    typer.echo(f"omni {command}: {message}", err=True)
    return code
