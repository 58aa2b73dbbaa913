"""The plans drawn: memory over seconds with the Pareto front, or under a load images a minute over the seconds of 99 %
of requests; and where the time of a step goes. By matplotlib into a file, or as text for a terminal.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_config.planner.queueing import BUSIEST, capacity, percentile_99

if TYPE_CHECKING:
    from omni_config.planner.candidates import Candidate
    from omni_config.planner.suggest import Suggested, Suggestion

SUFFIXES = (".svg", ".png", ".html")
_BUSY = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97)  # of what replicas can make
_SMALL = 0.02  # of a step: smaller terms are drawn together
_SHADES = "█▓▒░▚▞▤▥▦▧▨▩"


def draw(found: Suggestion, path: Path, title: str) -> None:
    """Write the image; an .html page holds it with the table of the front.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the name does not end in .svg, .png or .html.
        OSError: the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--plot {path}: expected a name that ends in {', '.join(SUFFIXES)}, or - for the terminal")
    figure = _figure(found, title)
    if path.suffix != ".html":
        figure.savefig(path, dpi=150)
        return
    text = io.StringIO()
    figure.savefig(text, format="svg")
    rows = "".join(
        f"<tr><td>{html.escape(one.title)}<td>{one.gpus}<td>{one.seconds:.3g}<td>{one.gib:.1f}" for one in found.front
    )
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>{text.getvalue()}"
        f"<table border=1><tr><th>plan<th>GPUs<th>seconds<th>GiB a GPU{rows}</table>",
        encoding="utf-8",
    )


def served(plan: Candidate) -> list[tuple[float, float]]:
    """What a plan carries: seconds that 99 % of requests keep, and images a minute, from little load to much."""
    most = capacity(plan.replicas, plan.calls)
    rates = [share * BUSIEST * most for share in _BUSY]
    return [(percentile_99(rate, plan.replicas, plan.calls), 60 * rate * plan.images) for rate in rates]


def shares(plan: Suggested) -> dict[str, float]:
    """Seconds of a step by term, most first; small ones together."""
    whole = sum(plan.step.values())
    kept = {name: value for name, value in plan.step.items() if value >= _SMALL * whole}
    rest = whole - sum(kept.values())
    return kept | ({"other": rest} if rest > 0 else {})


def _figure(found: Suggestion, title: str) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("--plot needs matplotlib; next: pip install 'omni-config[plot]'") from None
    loaded = [plan.candidate for plan in found.best if plan.candidate.calls]
    front = [] if loaded else found.front
    figure = Figure(figsize=(8, 7 + 0.14 * len(front) + 0.2 * len(found.best)), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=(3, 0.5 + 0.35 * len(found.best)))
    if loaded:
        upper.set(xlabel="seconds within which 99 % are answered", ylabel="images a minute", title=title, xscale="log")
        for number, one in enumerate(loaded, 1):
            seconds, made = zip(*served(one), strict=True)
            upper.plot(seconds, made, "o-", label=f"{number}  {one.replicas} of {one.title}, batch {one.batch}")
    else:
        upper.set(xlabel="seconds an image", ylabel="GiB a GPU", title=title, xscale="log")
        _draw_front(found, upper)
        count = [f"{number}  {one.title}; {one.gpus} GPU{'s' * (one.gpus > 1)}" for number, one in enumerate(front, 1)]
        figure.supxlabel("\n".join(count), fontsize=8, x=0.02, ha="left")  # beside the points, they would overlap
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}" if axis is upper.xaxis else "")
    upper.grid(alpha=0.3, which="both")
    upper.legend(fontsize=8)
    _draw_steps(found, lower)
    return figure


def _draw_front(found: Suggestion, axes: Any) -> None:
    front = found.front
    axes.step([one.seconds for one in front], [one.gib for one in front], where="post", color="tab:blue", alpha=0.5)
    axes.plot([one.seconds for one in front], [one.gib for one in front], "o", color="tab:blue", label="Pareto front")
    best = found.best[0].candidate
    axes.plot([best.seconds], [best.gib], "*", color="tab:red", markersize=15, label="suggested")
    axes.axhline(found.memory, color="gray", linestyle="--", label=f"{found.memory:g} GiB")
    for number, one in enumerate(front, 1):
        axes.annotate(str(number), (one.seconds, one.gib), xytext=(4, 4), textcoords="offset points", fontsize=8)


def _draw_steps(found: Suggestion, axes: Any) -> None:
    """Where the time of a step goes: a bar a plan, one below the other."""
    bars = [shares(plan) for plan in found.best]
    names = list(dict.fromkeys(name for bar in bars for name in bar))
    left = [0.0] * len(bars)
    for number, name in enumerate(names):
        widths = [1000 * bar.get(name, 0.0) for bar in bars]
        axes.barh(range(len(bars)), widths, left=left, label=name, color=f"C{number % 10}")
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [plan.candidate.title for plan in found.best], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds of a step")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))


def terminal(found: Suggestion, width: int = 100) -> str:
    """The same as text: the points, and a bar a plan."""
    loaded = [plan.candidate for plan in found.best if plan.candidate.calls]
    if loaded:
        marks = [(x, y, str(number)) for number, one in enumerate(loaded, 1) for x, y in served(one)]
        head = "images a minute over the seconds within which 99 % are answered; numbers are the plans'"
    else:
        marks = [(one.seconds, one.gib, "o") for one in found.front]
        best = found.best[0].candidate
        marks.append((best.seconds, best.gib, "*"))
        head = "GiB a GPU over seconds an image: the Pareto front (o), and what is suggested (*)"
    return f"{head}\n{_scatter(marks, width)}\n\nwhere the time of a step goes\n{_bars(found.best, width)}\n"


def _scatter(marks: Sequence[tuple[float, float, str]], width: int, height: int = 14) -> str:
    """Points in a grid of characters; the horizontal axis is logarithmic."""
    from math import log

    columns = width - 10
    across, up = [log(x) for x, _, _ in marks], [y for _, y, _ in marks]
    left, right, low, high = min(across), max(across), min(up), max(up)
    grid = [[" "] * columns for _ in range(height)]
    for x, (_, y, mark) in zip(across, marks, strict=True):
        column = round((x - left) / ((right - left) or 1) * (columns - 1))
        row = round((high - y) / ((high - low) or 1) * (height - 1))
        grid[row][column] = mark
    edges = {0: f"{high:.3g}", height - 1: f"{low:.3g}"}
    lines = [f"{edges.get(number, ''):>8} |{''.join(row)}" for number, row in enumerate(grid)]
    ends = f"{marks[across.index(left)][0]:.3g}", f"{marks[across.index(right)][0]:.3g}"
    return "\n".join(
        [*lines, " " * 9 + "+" + "-" * columns, " " * 10 + ends[0] + ends[1].rjust(columns - len(ends[0]))]
    )


def _bars(plans: Iterable[Suggested], width: int) -> str:
    bars = [(plan.candidate.title, shares(plan)) for plan in plans]
    names = list(dict.fromkeys(name for _, bar in bars for name in bar))
    longest = max(sum(bar.values()) for _, bar in bars)
    lines = []
    for title, bar in bars:
        cells = [
            _SHADES[names.index(name) % len(_SHADES)] * round(v / longest * (width - 12)) for name, v in bar.items()
        ]
        lines += [title, f"{1000 * sum(bar.values()):>8.3g} ms {''.join(cells)}"]
    legend = "  ".join(f"{_SHADES[number % len(_SHADES)]} {name}" for number, name in enumerate(names))
    return "\n".join([*lines, legend])
