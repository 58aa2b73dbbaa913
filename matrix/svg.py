"""The pairs of an engine as an image (SVG) for light and dark pages; each cell has its reason as a tooltip."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from matrix.cell import VERDICTS, Verdict
from matrix.compatibility import Matrix
from omni_config.catalog.load import catalog

CELL, LEFT, TOP = 34, 170, 150  # pixels
#: Fill of a cell on a light and on a dark page, and the sign in it: colour alone is not for everyone.
LOOKS: dict[Verdict, tuple[str, str, str]] = {
    "yes": ("#c9efd2", "#1c4a2a", "✓"),
    "warned": ("#fdecb3", "#574510", "!"),
    "only": ("#cfe5ff", "#17406b", "if"),
    "adjusted": ("#ead7fb", "#48286a", "~"),
    "no": ("#ffd3d0", "#6b2320", "✗"),
}


def to_svg(table: Matrix) -> str:
    """The triangle of pairs, with a legend."""
    size = len(table.features) - 1
    width, height = LEFT + size * CELL + 20, TOP + size * CELL + 46
    light = "".join(f".{name}{{fill:{look[0]}}}" for name, look in LOOKS.items())
    dark = "".join(f".{name}{{fill:{look[1]}}}" for name, look in LOOKS.items())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
            f' aria-label="Which features go together, engine {escape(table.engine.id)}">',
            f"<style>text{{font:13px system-ui,sans-serif;fill:#1b1f24}}.sign{{text-anchor:middle}}{light}"
            f"@media(prefers-color-scheme:dark){{text{{fill:#e6e9ed}}{dark}}}</style>",
            *_labels(table),
            *_cells(table),
            *_legend(TOP + size * CELL + 28),
            "</svg>\n",
        ]
    )


def _labels(table: Matrix) -> Iterator[str]:
    titles = [escape(catalog().features[name].title) for name in table.features]
    for number, title in enumerate(titles[1:]):
        yield f'<text x="{LEFT - 8}" y="{TOP + number * CELL + 21}" text-anchor="end">{title}</text>'
    for number, title in enumerate(titles[:-1]):
        x, y = LEFT + number * CELL + 20, TOP + number * CELL - 8
        yield f'<text transform="translate({x} {y}) rotate(-55)">{title}</text>'


def _cells(table: Matrix) -> Iterator[str]:
    for row, second in enumerate(table.features[1:]):
        for column, first in enumerate(table.features[: row + 1]):
            cell = table.pair(first, second)
            x, y = LEFT + column * CELL, TOP + row * CELL
            titles = " + ".join(catalog().features[name].title for name in (first, second))
            said = ", ".join([cell.verdict, *([cell.words] if cell.words else []), *cell.all_codes])
            yield f"<g><title>{escape(f'{titles}: {said}')}</title>"
            yield f'<rect class="{cell.verdict}" x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" rx="4"/>'
            yield f'<text class="sign" x="{x + 16}" y="{y + 21}">{LOOKS[cell.verdict][2]}</text></g>'


def _legend(y: int) -> Iterator[str]:
    x = 14
    for verdict in VERDICTS:
        yield f'<rect class="{verdict}" x="{x}" y="{y - 15}" width="22" height="20" rx="4"/>'
        yield f'<text class="sign" x="{x + 11}" y="{y}">{LOOKS[verdict][2]}</text>'
        yield f'<text x="{x + 28}" y="{y}">{verdict}</text>'
        x += 44 + 8 * len(verdict)
