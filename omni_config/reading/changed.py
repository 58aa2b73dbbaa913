"""Which files git says have changed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from omni_config.reading.discover import CannotCheck


def changed_since(revision: str, names: Iterable[str]) -> set[str]:
    """Real paths of files in the repositories of these names: of those that differ from where the branch left a
    revision, and of those that git neither knows nor ignores.

    Raises:
        CannotCheck: there is no repository, no such revision, or no git.
    """
    found: set[str] = set()
    for top in {_git(_folder(name), "rev-parse", "--show-toplevel").strip() for name in names}:
        commit = _git(top, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()
        with suppress(CannotCheck):  # they share no commit, as in a shallow clone
            commit = _git(top, "merge-base", commit, "HEAD").strip()
        listed = _git(top, "diff", "--name-only", "-z", "--diff-filter=d", "--no-renames", commit, "--")
        listed += _git(top, "ls-files", "--others", "--exclude-standard", "-z")
        found.update(os.path.realpath(Path(top, name)) for name in listed.split("\0") if name)
    return found


def _folder(name: str) -> str:
    """The folder that a name, which may be a pattern, stands in."""
    return str(next((path for path in (Path(name), *Path(name).parents) if path.is_dir()), "."))


def _git(folder: str, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except OSError as error:
        raise CannotCheck(f"git cannot be started: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise CannotCheck(error.stderr.strip().splitlines()[0] if error.stderr.strip() else "git failed") from None
    return done.stdout
