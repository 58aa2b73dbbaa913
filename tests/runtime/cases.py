"""Starts ``cases_worker.py`` for a table of Plans, and compares what their ranks computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omni_config.plan import Cache, Mesh, Model, Plan, Sampling, Vae

DBCACHE = {
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "max_warmup_steps": 4,
    "max_cached_steps": -1,
    "max_continuous_cached_steps": 3,
    "residual_diff_threshold": 0.24,
    "enable_taylorseer": False,
    "taylorseer_order": 1,
    "scm_steps_mask_policy": None,
    "scm_steps_policy": "dynamic",
}


def tiny(**changes: Any) -> Plan:
    """A Plan of the embedded model: 4 steps of 64 px, guidance on; ``changes`` are fields of the Plan."""
    plan = Plan(
        version=1,
        engine="native",
        model=Model("tiny", "tiny", "ZImagePipeline", "text_to_image", "float32"),
        mesh=Mesh(),
        cache=Cache("none", {}),
        offload="none",
        vae=Vae(use_tiling=False, use_slicing=False, patch_parallel_size=1),
        sampling=Sampling("a red star on a white background", "blue", None, 64, 64, 4, {"guidance_scale": 2.0}, 7),
        output="outputs",
    )
    return replace(plan, **changes)


@dataclass(frozen=True)
class Case:
    """One run, and after it, on several ranks, a control with one weight of a part of the last rank's model broken."""

    plan: Plan
    control: str = "transformer"


@dataclass(frozen=True)
class Result:
    """What each rank reported and computed."""

    ranks: list[dict[str, Any]]
    arrays: list[dict[str, np.ndarray]]

    def distance(self, other: Result, name: str = "latents") -> float:
        """The largest absolute difference of any rank's array from the latents of the other's rank 0."""
        return max(float(np.abs(array[name] - other.arrays[0]["latents"]).max()) for array in self.arrays)

    @property
    def picture(self) -> np.ndarray:
        """What rank 0 saved, as (height, width, 3) bytes."""
        return np.asarray(Image.open(self.ranks[0]["pictures"][0]))

    def measured(self, feature: str, rank: int = 0) -> dict[str, Any]:
        """What a feature measured."""
        return self.ranks[rank]["features"][feature]


def run(cases: dict[str, Case], folder: Path) -> Callable[[str], Result]:
    """Run all cases under one torchrun; the result by name, an AssertionError with the log where the case failed."""
    world = max(case.plan.mesh.world_size for case in cases.values())
    table = [
        {
            "name": name,
            "plan": replace(case.plan, output=str(folder / "outputs")).to_dict(),
            "control": case.control,
        }
        for name, case in cases.items()
    ]
    (folder / "cases.json").write_text(json.dumps(table))
    line = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    line += ["--nproc-per-node", str(world), str(Path(__file__).with_name("cases_worker.py")), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr

    def result(name: str) -> Result:
        files = [folder / f"{name}.{rank}.json" for rank in range(cases[name].plan.mesh.world_size)]
        ranks = [json.loads(file.read_text()) for file in files]
        errors = "".join(rank["error"] for rank in ranks if "error" in rank)
        assert not errors, errors
        return Result(ranks, [dict(np.load(file.with_suffix(".npz"))) for file in files])

    return result
