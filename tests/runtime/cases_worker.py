"""Runs many cases in one torchrun start: every rank imports the libraries once, and forks for each case.

A fork a case, because cache-dit and torch.distributed keep state in the process. The arguments are the folder with
``cases.json``, a list of ``{name, plan, control}``, and the results go there: ``NAME.RANK.json`` and ``.npz``.
A control is a second call of the pipeline, after one weight of a part (transformer or vae) of the last rank has been
changed.
"""

from __future__ import annotations

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


def run(number: int, case: dict[str, Any], plan: Plan) -> None:
    # The ranks of each case meet in torchrun's own store, under a name that torch makes of this count.
    os.environ |= {"WORLD_SIZE": str(plan.mesh.world_size), "TORCHELASTIC_RESTART_COUNT": str(number)}
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


for number, case in enumerate(json.loads((FOLDER / "cases.json").read_text())):
    plan = Plan.from_json(json.dumps(case["plan"]))
    if plan.mesh.world_size <= RANK:
        continue
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    status = 1
    try:
        run(number, case, plan)
        status = 0
    except BaseException:
        save(case, {"error": traceback.format_exc()})
    finally:
        sys.stderr.flush()
        os._exit(status)
