"""xDiT's runner, as ``python -m xfuser.runner`` starts it, with what it tells on the way."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "inside"))

STANDINS = ("devices", "platform", "kernels", "sharding", "stages", "sizes", "processor")
PACKAGES = ("xfuser", "torch", "diffusers", "transformers", "yunchang", "distvae", "cache-dit")


def prepare(without: list[str]) -> dict[str, Any]:
    """Import xDiT, with the stand-ins that this machine needs, but for some."""
    import torch

    torch.set_num_threads(1)
    used = [name for name in STANDINS if name not in without and _needed(name, torch.cuda.is_available())]
    standins: list[Any] = [importlib.import_module(f"standins.{name}") for name in used]
    for one in standins:
        one.apply(None)
    import xfuser.runner

    for one in standins:
        one.apply(xfuser)
    return {"versions": {name: version(name) for name in PACKAGES}, "standins": used}


def _needed(name: str, gpu: bool) -> bool:
    standin: Any = importlib.import_module(f"standins.{name}")
    return standin.FOR != "no GPU" or not gpu


def processes(case: dict[str, Any]) -> int:
    """One a rank, as torchrun has them."""
    ranks: int = case["ranks"]
    return ranks


def run(case: dict[str, Any], rank: Any) -> dict[str, Any]:
    """What the runner's command does, then once more for each control."""
    import torch

    runner: ModuleType = importlib.import_module("xfuser.runner")
    runner.setup_logging()
    parser = runner.FlexibleArgumentParser()
    words = [*case["argv"], "--output_directory", str(rank.folder)]
    args = vars(runner.xFuserArgs.add_runner_args(parser).parse_args(words))
    started = runner.xFuserModelRunner(args)
    given = started.preprocess_args(args)
    rank.moment("before weights")
    _tell_when_it_loads(started.model, rank)
    started.initialize(given)
    from work import Work, damaged

    if case["plain"]:
        return _plain(started.model, given, rank)
    pipe = started.model.pipe
    transformers = [one for name in ("transformer", "transformer_2") if (one := getattr(pipe, name, None)) is not None]
    rank.moment("first forward")
    vae = getattr(getattr(started.model, "second_pipe", pipe), "vae", None)  # of the last stage: it decodes
    work = Work(transformers, vae, lambda: rank.moment("later"))
    output, _ = started.run(given)
    result = {"works": [work.taken()], "backend": _backend()}
    _keep(output, rank, "image")
    last = rank.rank == int(os.environ["WORLD_SIZE"]) - 1
    for part in case["controls"]:
        with damaged(vae if part == "vae" else transformers[-1], here=last):
            output, _ = started.run(given)
        _keep(output, rank, part)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # a rank that ended would take with it what it has sent and nobody has yet received
    return result


def _plain(model: Any, given: dict[str, Any], rank: Any) -> dict[str, Any]:
    """The pipeline of diffusers, called as xDiT calls its own: whether one process of xDiT computes the same."""
    import diffusers
    import torch

    pipe = getattr(model.pipe, "module", model.pipe)  # which some of its own have inside
    name = next(base.__name__ for base in type(pipe).__mro__ if base.__module__.startswith("diffusers."))
    model.pipe = getattr(diffusers, name).from_pretrained(model.settings.model_name, torch_dtype=torch.bfloat16)
    _keep(model._run_pipe(given), rank, "image")
    return {}


def _tell_when_it_loads(model: Any, rank: Any) -> None:
    load = model._load_model_checked

    def loading() -> Any:
        rank.moment("load")
        return load()

    model._load_model_checked = loading


def _backend() -> str:
    state: Any = importlib.import_module("xfuser.core.distributed").get_runtime_state()
    return str(state.attention_backend.name)


def _keep(output: Any, rank: Any, name: str) -> None:
    """The images, or the frames, of a rank that has any."""
    import numpy as np

    pictures = None if output is None else (output.images or output.videos)
    if pictures is None:
        return
    arrays = [np.asarray(getattr(one, "frames", one)) for one in pictures]  # beside frames there may be sound
    frames = np.stack([array if array.dtype == np.uint8 else np.rint(array * 255).astype(np.uint8) for array in arrays])
    np.save(rank.folder / f"{name}.{rank.rank}.npy", frames)
