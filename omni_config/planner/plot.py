"""The plans drawn as memory over seconds, with the Pareto front, by matplotlib."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_config.planner.suggest import Suggestion

SUFFIXES = (".svg", ".png", ".html")


def draw(found: Suggestion, path: Path, title: str) -> None:
    """Write the image; an .html page holds it with the table of the front.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the name does not end in .svg, .png or .html.
        OSError: the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--plot {path}: expected a name that ends in {', '.join(SUFFIXES)}")
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


def _figure(found: Suggestion, title: str) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("--plot needs matplotlib; next: pip install 'omni-config[plot]'") from None
    figure = Figure(figsize=(8, 5 + 0.14 * len(found.front)), layout="constrained")
    axes = figure.add_subplot(xlabel="seconds an image", ylabel="GiB a GPU", title=title, xscale="log")
    front = found.front
    axes.step([one.seconds for one in front], [one.gib for one in front], where="post", color="tab:blue", alpha=0.5)
    axes.plot([one.seconds for one in front], [one.gib for one in front], "o", color="tab:blue", label="Pareto front")
    best = found.best[0].candidate
    axes.plot([best.seconds], [best.gib], "*", color="tab:red", markersize=15, label="suggested")
    axes.axhline(found.memory, color="gray", linestyle="--", label=f"{found.memory:g} GiB")
    for number, one in enumerate(front, 1):
        axes.annotate(str(number), (one.seconds, one.gib), xytext=(4, 4), textcoords="offset points", fontsize=8)
    names = [f"{number}  {one.title}; {one.gpus} GPU{'s' * (one.gpus > 1)}" for number, one in enumerate(front, 1)]
    figure.supxlabel("\n".join(names), fontsize=8, x=0.02, ha="left")  # beside the points, they would overlap
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}" if axis is axes.xaxis else "")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure
