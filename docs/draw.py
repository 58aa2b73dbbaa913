"""Draw the images of the README: the terminal of a check that fails, and what the launch of a good config made.

    python docs/draw.py IMAGE.png ...        (images of `omni launch`)

Writes docs/check.svg from the real output of the command, and docs/shapes.png from the images given.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]


def main(images: list[str]) -> None:
    """Write both files."""
    command = ["check", "examples/cannot_run.yaml"]
    environment = {"FORCE_COLOR": "1", "COLUMNS": "118", "PATH": ""}
    shown = subprocess.run(
        [sys.executable, "-m", "omni_config", *command], cwd=ROOT, env=environment, capture_output=True, text=True
    ).stdout
    console = Console(record=True, width=118, file=io.StringIO())
    console.print(Text("$ omni " + " ".join(command), "bold"))
    console.print(Text.from_ansi(shown))
    console.save_svg(str(ROOT / "docs" / "check.svg"), title="omni check")
    if images:
        tiles = [Image.open(path).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS) for path in images]
        sheet = Image.new("RGB", (len(tiles) * 132 - 4, 128), "white")
        for index, tile in enumerate(tiles):
            sheet.paste(tile, (index * 132, 0))
        sheet.save(ROOT / "docs" / "shapes.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
