"""Runs that were recorded: ``report.json`` of a launch, and what ``omni bench --json`` prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.mesh import AXES
from omni_config.plan import Plan
from omni_config.resolving.target import target_of
from omni_config.rules.quantities import Quantities
from omni_config.schema.settings import DEFAULTS, FIELDS, Settings

MOST = 1000  # files of a folder
MAX_BYTES = 20_000_000


@dataclass(frozen=True)
class Run:
    """One run: a plan, and its seconds a step without the first one, and of decoding where they are known."""

    name: str
    plan: Plan
    step_seconds: float
    decode_seconds: float | None = None


def runs_in(path: Path) -> list[Run]:
    """The runs of a file, or of all ``.json`` files of a folder and those below it, by name; others are passed over.

    Raises:
        ValueError: there is no run, or a file that is named itself holds none.
        OSError: it cannot be read.
    """
    if path.is_file():
        return list(_of_file(path))
    found: list[Run] = []
    files = sorted(path.rglob("*.json"))
    if len(files) > MOST:
        raise ValueError(f"{path} holds {len(files)} .json files; at most {MOST} are read")
    for file in files:
        with suppress(ValueError, OSError):  # another tool's file, or a report of another version
            found += _of_file(file)
    if not found:
        kind = "holds no report.json and no output of omni bench --json" if path.is_dir() else "no such file or folder"
        raise ValueError(f"{path}: {kind}")
    return found


def _of_file(path: Path) -> Iterator[Run]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than any report")
    try:
        values = json.loads(path.read_bytes())
        if "step_seconds" in values:  # a report
            yield Run(str(path), _plan(values["plan"]), float(values["step_seconds"]), float(values["decode_seconds"]))
            return
        for name in [name for name in ("config", "against") if name in values] or ["config"]:
            series = values[name]
            yield Run(f"{path} ({name})", _plan(series["plan"]), float(median(series["step_seconds"])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: neither a report.json nor what omni bench --json prints ({error})") from None


def _plan(values: Any) -> Plan:
    return Plan.from_json(json.dumps(values))


def quantities_of(plan: Plan) -> Quantities | None:
    """The quantities of a plan of the built-in runtime; None where its model is not known here any more."""
    known = catalog()
    card, engine = known.model(plan.model.id), known.engine(plan.engine)
    if card is None and Path(plan.model.source).is_dir():
        from omni_config.catalog.folder_card import alike_of, card_of_folder

        try:
            card = card_of_folder(Path(plan.model.source), known)
            padded = alike_of(Path(plan.model.source), known).dims.get("text_tokens", 0)  # which no folder says
            card = replace(card, dims={"text_tokens": padded} | dict(card.dims))
        except ValueError:
            return None
    if card is None or engine is None:
        return None
    target = target_of(card, engine).by(())
    return target.quantities(target.with_defaults(settings_of(plan, card.guidance.argument if card.guidance else "")))


def settings_of(plan: Plan, guidance: str) -> Settings:
    """The settings of which a plan was made; ``guidance`` is the pipeline's argument for classifier-free guidance."""
    sampling = {name: value for name, value in asdict(plan.sampling).items() if name in FIELDS and name != "guidance"}
    settings = DEFAULTS | sampling | {axis.setting: getattr(plan.mesh, axis.name) for axis in AXES}
    if plan.sampling.video is not None:
        settings |= asdict(plan.sampling.video)
    if plan.hsdp is not None:
        settings |= {"use_hsdp": True, "hsdp_shard_size": plan.hsdp.shard, "hsdp_replicate_size": plan.hsdp.replicate}
    if plan.mesh.nodes > 1:
        settings["gpus_per_node"] = plan.mesh.ranks_per_node
    return settings | {
        "model": plan.model.id,
        "engine": plan.engine,
        "dtype": plan.model.dtype,
        "cfg_scale": plan.sampling.guidance.get(guidance, 0.0),
        "enable_cpu_offload": plan.offload == "model",
        "enable_layerwise_offload": plan.offload == "layerwise",
        "compile": plan.compile,
        "attention_backend": plan.attention_backend,
        "vae_use_tiling": plan.vae.use_tiling,
        "vae_use_slicing": plan.vae.use_slicing,
        "vae_patch_parallel_size": plan.vae.patch_parallel_size,
    }


def usable(runs: Iterable[Run]) -> Iterator[tuple[Run, Quantities]]:
    """The runs that can be estimated, with their quantities: the model's work is known, and all steps are computed.

    How many steps a cache reuses is the prompt's affair.
    """
    for run in runs:
        q = quantities_of(run.plan) if run.plan.cache is None else None
        if q is not None and q["work"] is not None and run.step_seconds > 0:
            yield run, q
