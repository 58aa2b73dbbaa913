"""The job of ``runtime.proof.batch``, with pipelines that are loaded once and made quick, and with later calls.

A fork may do with a loaded pipeline what it likes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import later_calls
import numpy as np

from omni_config.plan import Plan
from runtime.features.feature import Handle
from runtime.pipeline import apply, load
from runtime.ranks import batch, generate, job

LATER = json.loads(os.environ["OMNI_TEST_LATER"])
load_pipeline, apply_features, fork, run = load.pipeline, apply.apply, batch._fork, batch._run
applied: dict[str, Handle] = {}
pipelines: dict[Any, Any] = {}


def pipeline(plan: Plan) -> Any:
    waits = (plan.mesh.tensor > 1, plan.text_encoder_tensor_parallel, plan.hsdp is not None)
    waits += (bool(plan.quantization), bool(plan.text_encoder_quantization))
    key = (plan.model, plan.offload == "none", bool(plan.lora), *waits)  # models wait for a feature that reads them
    if key not in pipelines:
        pipelines[key] = pipe = load_pipeline(plan)
        load._kept.pop(plan.model, None)  # or the next one would be this, whose weights are placed already
        make_quick(pipe)
    return pipelines[key]


def apply_and_keep(*args: Any) -> dict[str, Handle]:
    applied.update(apply_features(*args))
    return applied


def make_quick(pipe: Any) -> None:
    """Tiles that small pictures have several of; input pictures that are not scaled up to a million pixels."""
    if hasattr(pipe.vae, "tile_sample_min_height"):
        pipe.vae.tile_sample_min_height = pipe.vae.tile_sample_min_width = 32
        pipe.vae.tile_sample_stride_height = pipe.vae.tile_sample_stride_width = 16
    module = sys.modules[type(pipe).__module__]
    if hasattr(module, "calculate_dimensions"):
        whole = module.calculate_dimensions
        module.calculate_dimensions = lambda area, ratio: whole(64 * 64, ratio)


def fork_loaded(folder: Path, child: batch.Child, case: dict[str, Any], plan: Plan, timeout: float) -> int:
    with suppress(Exception):  # the fork says why, and other cases go on
        pipeline(plan)
    return fork(folder, child, case, plan, timeout)


def run_and_later(file: Path, case: dict[str, Any], plan: Plan, *others: Any) -> None:
    run(file, case, plan, *others)
    later = LATER[int(file.name.split(".")[0])]
    if not later:
        return
    pipe, latents, results = pipeline(plan), [], {}

    def call(name: str, at_step: Callable[[Any, int], None] = lambda *_: None, **changes: Any) -> None:
        def after_step(pipe: Any, step: int, tensor: Any) -> None:
            latents[:] = [tensor.float().numpy()]
            at_step(pipe, step - 1)

        output = pipe(**generate.arguments(plan) | changes, callback_on_step_end=job.step_callback(after_step))
        images = output.images if hasattr(output, "images") else output.frames[0]
        results.update({name: latents[0], f"{name} image": np.stack([np.asarray(one) for one in images])})

    if later == "undone":
        later_calls.undone(applied, call)
    else:
        later_calls.guidance(pipe, plan, call)
    with np.load(file.with_suffix(".npz")) as saved:
        np.savez(file.with_suffix(".npz"), **dict(saved) | results)


if __name__ == "__main__":
    load.pipeline, apply.apply = pipeline, apply_and_keep
    batch._fork, batch._run = fork_loaded, run_and_later
    batch.main(sys.argv[2:])
