"""The memory estimate held against published peaks, row by row.

python -m omni_config.planner.judge_memory
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.estimate.data import efficiencies
from omni_config.estimate.memory import Memory, memory_of
from omni_config.mesh import AXES
from omni_config.resolving.target import target_of
from omni_config.rules.quantities import Quantities
from omni_config.schema.settings import validate

_INITIALS = {axis.name[0]: axis.setting for axis in AXES}  # by which a table names its columns
#: What is not in a reading: PyTorch counts neither CUDA's own memory nor NCCL's, and its allocated bytes no fragments.
_NOT_READ: dict[str, dict[str, float]] = {
    "allocated": {"context": 0.0, "communicator": 0.0, "fragments": 0.0},
    "reserved": {"context": 0.0, "communicator": 0.0},
    "device": {},
}


@dataclass(frozen=True)
class Peak:
    """One published peak in GiB, and what is estimated. ``settings`` are those that tell it from its table's others."""

    table: str
    use: str
    source: str
    model: str
    settings: str
    measure: str
    unsaid: str
    published: float
    memory: Memory

    @property
    def error(self) -> float:
        """Relative error of the estimate; negative where it is too low."""
        return self.memory.peak / self.published - 1


@cache
def peaks() -> list[Peak]:
    """Every published peak, estimated."""
    import yaml

    tables = yaml.safe_load(Path(__file__).with_name("published_memory.yaml").read_text(encoding="utf-8"))
    return [_peak(table, row) for table in tables for row in table["rows"]]


def _peak(table: dict[str, Any], row: dict[str, Any]) -> Peak:
    q = _quantities(table, row)
    share = {**efficiencies(), **_NOT_READ[table["measure"]]}
    return Peak(
        table["id"],
        table["use"],
        table["source"],
        table["model"],
        _said(row),
        table["measure"],
        table.get("unsaid", ""),
        row["gib"],
        memory_of(q, q["work"], q["decoder"], share),
    )


def _quantities(table: dict[str, Any], row: dict[str, Any]) -> Quantities:
    card, engine = catalog().model(table["model"]), catalog().engine(table["engine"])
    assert card is not None
    assert engine is not None
    settings = validate({"version": 1, "model": card.id, "engine": engine.id}) | table["settings"]
    settings |= {_INITIALS.get(key, key): value for key, value in row.items() if key != "gib"}
    target = target_of(card, engine)
    return target.quantities(target.with_defaults(settings))


def _said(row: dict[str, Any]) -> str:
    """The settings of a row, for people: "2048 x 2048, U4, offload"."""
    words = [f"{row['width']} x {row['height']}"] if "width" in row else []
    words += [f"{key.upper()}{row[key]}" for key in ("t", "u", "r") if key in row]
    words += ["model offload"] if row.get("enable_cpu_offload") else []
    words += ["distributed layerwise offload"] if row.get("enable_distributed_layerwise_offload") else []
    words += ["tiling"] if row.get("vae_use_tiling") else []
    words += [row["quantization"]] if "quantization" in row else []
    return ", ".join(words) or "one GPU"


def median_error(chosen: Iterable[Peak]) -> float:
    """The median of the errors' sizes."""
    return median(abs(peak.error) for peak in chosen)


def report() -> str:
    """All rows as Markdown."""
    lines = ["| table | model | config | read | use | published | estimated | error |"]
    lines += ["|---|---|---|---|---|---:|---:|---:|"]
    lines += [
        f"| {peak.table} | {peak.model.rpartition('/')[2]} | {peak.settings} | {peak.measure} | {peak.use} |"
        f" {peak.published:.1f} | {peak.memory.peak:.1f} | {peak.error:+.0%} |"
        for peak in peaks()
    ]
    for use in ("learn", "judge"):
        chosen = [peak for peak in peaks() if peak.use == use]
        lines += ["", f"{len(chosen)} rows to {use}: median error {median_error(chosen):.1%}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(report())
    for peak in peaks():
        largest = {f"then {name}": gib for name, gib in peak.memory.phases.items() if name == peak.memory.largest_phase}
        parts = {**peak.memory.resident, **largest}
        print(f"{peak.table}, {peak.settings}:", ", ".join(f"{name} {gib:.2f}" for name, gib in parts.items()))
