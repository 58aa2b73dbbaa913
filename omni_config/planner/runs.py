"""Runs that were recorded: ``report.json`` of a launch, what ``omni bench --json`` prints, and SGLang's perf dumps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from omni_config.cards import ModelCard
from omni_config.catalog.load import catalog
from omni_config.mesh import AXES
from omni_config.plan import Plan
from omni_config.planner.perf_dump import is_perf_dump, measured
from omni_config.resolving.target import target_of
from omni_config.rules.quantities import Quantities
from omni_config.schema.settings import DEFAULTS, FIELDS, Settings

MOST = 1000  # files of a folder
MAX_BYTES = 20_000_000


@dataclass(frozen=True, eq=False)
class Run:
    """One run: what it computed, and its seconds a step without the first one, and of decoding where they are known.

    ``unused`` is what its file says and nothing is learned from, for people.
    """

    name: str
    quantities: Quantities
    step_seconds: float
    decode_seconds: float | None = None
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Recorded:
    """The runs of a file or folder that can be estimated, and why others cannot, each as "name: reason"."""

    runs: tuple[Run, ...]
    refused: tuple[str, ...] = ()


class NotARunError(ValueError):
    """A file is of another tool, or of another version."""


def runs_in(path: Path) -> Recorded:
    """The runs of a file, or of all ``.json`` files of a folder and those below it, by name; others are passed over.

    Raises:
        ValueError: there is no run, or a file that is named itself holds none.
        OSError: it cannot be read.
    """
    if path.is_file():
        return _sorted(list(_of_file(path, path.parent)))
    found: list[Run | str] = []
    files = sorted(path.rglob("*.json"))
    if len(files) > MOST:
        raise ValueError(f"{path} holds {len(files)} .json files; at most {MOST} are read")
    for file in files:
        try:
            found += _of_file(file, path)
        except NotARunError:  # another tool's file
            continue
        except (ValueError, OSError) as error:
            found.append(str(error))
    if not found:
        kinds = "holds no report.json, no output of omni bench --json and no perf dump of SGLang"
        raise ValueError(f"{path}: {kinds if path.is_dir() else 'no such file or folder'}")
    return _sorted(found)


def _sorted(found: list[Run | str]) -> Recorded:
    runs = tuple(one for one in found if isinstance(one, Run))
    return Recorded(runs, tuple(one for one in found if isinstance(one, str)))


def _of_file(path: Path, folder: Path) -> Iterator[Run | str]:
    """The runs of one file, each or why it cannot be used; the commands of dumps stand no higher than ``folder``."""
    if path.stat().st_size > MAX_BYTES:
        raise NotARunError(f"{path}: larger than any report")
    kinds = "neither a report.json, nor what omni bench --json prints, nor a perf dump of SGLang"
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotARunError(f"{path}: {kinds} ({error})") from None
    if is_perf_dump(values):
        q, step, decode, unused = measured(values, path, folder)
        yield _estimable(Run(str(path), q, step, decode, unused))
        return
    if not _is_ours(values):
        raise NotARunError(f"{path}: {kinds}")
    try:
        if "step_seconds" in values:  # a report
            seconds = float(values["step_seconds"]), float(values["decode_seconds"])
            yield _of_plan(str(path), values["plan"], *seconds)
            return
        for name in [name for name in ("config", "against") if name in values] or ["config"]:
            series = values[name]
            yield _of_plan(f"{path} ({name})", series["plan"], float(median(series["step_seconds"])), None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: {kinds} ({error})") from None


def _is_ours(values: Any) -> bool:
    """Whether JSON is a report, or what our bench prints."""
    if not isinstance(values, dict):
        return False
    series = values.get("config")
    return "plan" in values or (isinstance(series, dict) and "plan" in series)


def _of_plan(name: str, values: Any, step_seconds: float, decode_seconds: float | None) -> Run | str:
    plan = Plan.from_json(json.dumps(values))
    if plan.cache is not None:
        return f"{name}: has a cache; how many steps it reuses is the prompt's affair"
    q = quantities_of(plan)
    if q is None:
        return f"{name}: {plan.model.id} is not known here"
    return _estimable(Run(name, q, step_seconds, decode_seconds))


def _estimable(run: Run) -> Run | str:
    if run.quantities["work"] is None:
        return f"{run.name}: the card of its model does not state its blocks"
    return run if run.step_seconds > 0 else f"{run.name}: its steps took no time"


def quantities_of(plan: Plan) -> Quantities | None:
    """The quantities of a plan of the built-in runtime; None where its model is not known here any more."""
    known = catalog()
    card = known.model(plan.model.id)
    if card is None and Path(plan.model.source).is_dir():
        from omni_config.catalog.folder_card import alike_of, card_of_folder

        try:
            card = card_of_folder(Path(plan.model.source), known)
            padded = alike_of(Path(plan.model.source), known).dims.get("text_tokens", 0)  # which no folder says
            card = replace(card, dims={"text_tokens": padded} | dict(card.dims))
        except ValueError:
            return None
    return None if card is None or known.engine(plan.engine) is None else quantities_with(card, plan)


def quantities_with(card: ModelCard, plan: Plan) -> Quantities:
    """The quantities of a plan of the built-in runtime, of a model with this card."""
    engine = catalog().engine(plan.engine)
    assert engine is not None
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
        "prompt": tuple(plan.sampling.prompts) if len(plan.sampling.prompts) > 1 else plan.sampling.prompts[0],
        "lora": tuple(plan.lora),
        "quantization": plan.quantization,
        "text_encoder_tensor_parallel": plan.text_encoder_tensor_parallel,
        "compile": plan.compile,
        "attention_backend": plan.attention_backend,
        "vae_use_tiling": plan.vae.use_tiling,
        "vae_use_slicing": plan.vae.use_slicing,
        "vae_patch_parallel_size": plan.vae.patch_parallel_size,
    }
