"""A chart or an overlay as Kubernetes would be given it, by the tools that make that: helm, kustomize or kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SECONDS = 120


class NotRendered(Exception):
    """A folder that cannot be rendered; the message says why."""


def render(folder: str) -> tuple[str, bytes]:
    """A name for what is rendered, and its text.

    Raises:
        NotRendered: the folder is neither a chart nor an overlay, the tool is not installed, or it fails.
    """
    path = Path(folder)
    if (path / "Chart.yaml").is_file():
        commands = [["helm", "template", "release", folder]]
    elif any((path / name).is_file() for name in ("kustomization.yaml", "kustomization.yml", "Kustomization")):
        commands = [["kustomize", "build", folder], ["kubectl", "kustomize", folder]]
    else:
        raise NotRendered(f"{folder} is neither a chart of Helm (Chart.yaml) nor an overlay (kustomization.yaml)")
    command = next((command for command in commands if shutil.which(command[0])), None)
    if command is None:
        tools = " nor ".join(command[0] for command in commands)
        raise NotRendered(f"{folder} cannot be rendered: {tools} is not installed")
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRendered(f"{' '.join(command)}: {error}") from None
    if done.returncode:
        raise NotRendered(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return f"{folder} ({' '.join(command[:2])})", done.stdout
