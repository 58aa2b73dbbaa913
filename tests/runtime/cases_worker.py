"""Runs many cases in one torchrun start: every rank imports the libraries once, and forks for each case.

A fork a case, because cache-dit and torch.distributed keep state in the process. The arguments are the folder with
``cases.json``, a list of ``{name, plan, control}``, and the results go there: ``NAME.RANK.json`` and ``.npz``.
A control is a second call of the pipeline, after one weight of a part (transformer or vae) of the last rank has been
changed.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import diffusers
import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.tensor.parallel
from cache_dit.distributed.transformers.dispatch import _ensure_cp_planners_activated, _ensure_tp_planners_activated

from omni_config.plan import Plan
from runtime import worker
from runtime.events import Writer

diffusers.ZImagePipeline  # noqa: B018 (imports what the lazy module does not yet have)
_ensure_cp_planners_activated()
_ensure_tp_planners_activated()
FOLDER = Path(sys.argv[1])
RANK = int(os.environ["RANK"])


def run(case: dict[str, Any], plan: Plan) -> None:
    meet(case["name"], plan.mesh.world_size)
    pipes: list[Any] = []
    steps: list[np.ndarray] = []

    def on_step(_: int, __: int, latents: torch.Tensor) -> None:
        steps.append(latents.float().numpy().copy())

    def callback(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(0, 0, tensors["latents"])
        return {}

    result = worker.generate(plan, RANK, 60.0, Writer(None, RANK), lambda pipe, _: pipes.append(pipe), on_step)
    arrays = {"latents": steps[-1]}
    if plan.mesh.world_size > 1 and case["control"]:
        if plan.mesh.world_size == RANK + 1:
            break_one_weight(pipes[0], case["control"])
        with torch.inference_mode():
            output = pipes[0](**worker.arguments(plan), callback_on_step_end=callback)
        arrays["broken"] = steps[-1]
        arrays["broken picture"] = np.asarray(output.images[0])
    np.savez(FOLDER / f"{case['name']}.{RANK}.npz", **arrays)
    save(case, result)


def meet(name: str, world_size: int) -> None:
    """Let the ranks of a case find each other in torchrun's own store, so that no port has to be free."""
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    where = {"store": dist.PrefixStore(name, store), "rank": RANK, "world_size": world_size}
    dist.init_process_group = functools.partial(dist.init_process_group, **where)


@torch.inference_mode()
def break_one_weight(pipe: Any, part: str) -> None:
    if part == "vae":
        weight = pipe.vae.decoder.conv_in.weight.data
    else:
        projections = [module for name, module in pipe.transformer.named_modules() if name.endswith("to_v")]
        weight = projections[len(projections) // 2].weight.data
    getattr(weight, "_local_tensor", weight)[0, 0] += 1.0


def save(case: dict[str, Any], result: dict[str, Any]) -> None:
    (FOLDER / f"{case['name']}.{RANK}.json").write_text(json.dumps(result))


for case in json.loads((FOLDER / "cases.json").read_text()):
    plan = Plan.from_json(json.dumps(case["plan"]))
    if plan.mesh.world_size <= RANK:
        continue
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    status = 1
    try:
        run(case, plan)
        status = 0
    except BaseException:
        save(case, {"error": traceback.format_exc()})
    finally:
        sys.stderr.flush()
        os._exit(status)
