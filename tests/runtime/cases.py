"""A table of Plans, run under one torchrun, and what their ranks computed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_config.plan import VERSION, CacheDiT, Mesh, Model, Plan, Sampling, Vae
from omni_config.schema.settings import DEFAULTS, PARAMETERS
from runtime.launcher.failures import LaunchError
from runtime.proof import batch
from runtime.report import RankResult

WORKER = Path(__file__).with_name("cases_worker.py")
#: By control. A decoder of videos does not look at every number where there are few frames.
DAMAGE = {
    "": {},
    "transformer": {"transformer": "number"},
    "text_encoder": {"text_encoder": "number"},
    "vae": {"vae": "matrix"},
}
FEW_RANKS = 4  # of a case that quick tests may have; starting a rank takes seconds
STALLED = 240  # seconds without progress that end a case, a graph being compiled beside others
LATER = "OMNI_TEST_LATER"  # what the cases do later, in the order of the cases

#: DBCache as a config without any parameters has it.
DBCACHE = CacheDiT(**{name: DEFAULTS[name] for name in PARAMETERS["cache_dit"]})


def tiny(**changes: Any) -> Plan:
    """A Plan of the embedded model: 4 steps of 64 px, guidance on; ``changes`` are fields of the Plan."""
    plan = Plan(
        version=VERSION,
        engine="native",
        model=Model("tiny", "tiny", "ZImagePipeline", "text_to_image", "float32"),
        guidance_calls="batched",
        mesh=Mesh(),
        hsdp=None,
        cache=None,
        offload="none",
        lora=[],
        quantization=None,
        text_encoder_quantization=None,
        text_encoder_tensor_parallel=False,
        compile=False,
        attention_backend="native",
        vae=Vae(use_tiling=False, use_slicing=False, patch_parallel_size=1),
        sampling=Sampling(
            prompt="a red star on a white background",
            negative_prompt="blue",
            image=None,
            width=64,
            height=64,
            num_images_per_prompt=1,
            video=None,
            num_inference_steps=4,
            guidance={"guidance_scale": 2.0},
            guidance_branches=2,
            seed=7,
        ),
        output="outputs",
    )
    return replace(plan, **changes)


def tiny_qwen(**changes: Any) -> Plan:
    """The same of the embedded Qwen-Image, whose 4 heads split in four."""
    model = Model("tiny-qwen", "tiny-qwen", "QwenImagePipeline", "text_to_image", "float32")
    plan = tiny(model=model, guidance_calls="two")
    return replace(plan, sampling=replace(plan.sampling, guidance={"true_cfg_scale": 3.0}), **changes)


@dataclass(frozen=True)
class Case:
    """One run, and after it, on several ranks, a control with one weight of a part of the last rank's model broken."""

    plan: Plan
    control: str = "transformer"
    later: str = ""  # calls after these: undone or guidance, of later_calls.py
    whole: bool = False  # break the whole weight, as low precision hides a single number


@dataclass(frozen=True)
class Result:
    """What each rank reported and computed."""

    ranks: tuple[RankResult, ...]
    arrays: tuple[dict[str, np.ndarray], ...]
    control: str

    def distance(self, other: Result, name: str = "latents", of: str = "latents") -> float:
        """The largest absolute difference of any rank's latents, of those of the control ("broken"), or of a later
        call, from those of the other's rank 0."""
        name = f"{self.control} latents" if name == "broken" else name
        return max(float(np.abs(array[name] - other.arrays[0][of]).max()) for array in self.arrays)

    def psnr(self, other: Result) -> float:
        """Of rank 0's latents against the other's, in dB of their range."""
        a, b = self.arrays[0]["latents"], other.arrays[0]["latents"]
        return float(10 * np.log10((b.max() - b.min()) ** 2 / ((a - b) ** 2).mean()))

    @property
    def image(self) -> np.ndarray:
        """What rank 0 made, as (height, width, 3) bytes."""
        return self.arrays[0]["image"][0]

    @property
    def broken_image(self) -> np.ndarray:
        """The same of the control."""
        return self.arrays[0][f"{self.control} image"][0]

    def measured(self, feature: str, rank: int = 0) -> dict[str, Any]:
        """What a feature measured."""
        return self.ranks[rank].features[feature]


def by_ranks(meshes: dict[str, Mesh]) -> list[Any]:
    """The names of meshes, as parameters of a test that is slow where there are many ranks."""
    slow = [[pytest.mark.slow] if mesh.world_size > FEW_RANKS else [] for mesh in meshes.values()]
    return [pytest.param(name, marks=marks) for name, marks in zip(meshes, slow, strict=True)]


def damage(case: Case) -> dict[str, str]:
    return dict.fromkeys(DAMAGE[case.control], "matrix") if case.whole else DAMAGE[case.control]


def run(cases: dict[str, Case]) -> Callable[[str], Result]:
    """Run all cases under one torchrun; the result by name, an AssertionError with the log where the case failed."""
    table = {
        name: batch.Case(case.plan, damage(case) if case.plan.mesh.world_size > 1 else {})
        for name, case in cases.items()
    }
    os.environ[LATER] = json.dumps([case.later for case in cases.values()])
    outcomes: dict[str, batch.Outcome] = {}
    failure = "the run was not finished"
    try:
        batch.run(table, timeout=STALLED, on_outcome=outcomes.__setitem__, worker=WORKER)
    except (LaunchError, pytest.fail.Exception) as error:  # the latter is pytest's timeout; what is done is kept
        failure = str(error)

    def result(name: str) -> Result:
        outcome = outcomes.get(name, batch.Outcome(error=failure))
        assert outcome.error is None, f"{outcome.error}\n{outcome.traceback}"
        return Result(outcome.ranks, outcome.arrays, cases[name].control)

    return result
