"""Runs many cases in one torchrun start: every rank imports the libraries once, and forks for each case.

A fork a case, because cache-dit and torch.distributed keep state in the process. The arguments are the folder with
``cases.json``, a list of ``{name, plan, port, break_rank}``, and the results go there: ``NAME.RANK.json`` and ``.npz``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import cache_dit
import diffusers
import numpy as np
import torch

from omni_config.plan import Plan
from runtime import worker
from runtime.events import Writer

diffusers.ZImagePipeline  # noqa: B018 (imports what the lazy module does not yet have)
cache_dit.enable_cache  # noqa: B018
FOLDER = Path(sys.argv[1])
RANK = int(os.environ["RANK"])


def run(case: dict[str, Any], plan: Plan) -> None:
    os.environ |= {"WORLD_SIZE": str(plan.mesh.world_size), "MASTER_PORT": str(case["port"])}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    latents: list[np.ndarray] = []

    def prepare(pipe: Any, rank: int) -> None:
        if case["break_rank"] == rank:
            values = [module for name, module in pipe.transformer.named_modules() if name.endswith("to_v")]
            weight = values[len(values) // 2].weight.data
            getattr(weight, "_local_tensor", weight)[0, 0] += 1.0

    def on_step(_: int, __: int, tensor: torch.Tensor) -> None:
        latents.append(tensor.float().numpy().copy())

    result = worker.generate(plan, RANK, 60.0, Writer(None, RANK), prepare, on_step)
    np.savez(FOLDER / f"{case['name']}.{RANK}.npz", latents=latents[-1])
    save(case, result)


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
    except BaseException as error:
        traceback.print_exc()
        save(case, {"error": f"{type(error).__name__}: {error}"})
    finally:
        sys.stderr.flush()
        os._exit(status)
