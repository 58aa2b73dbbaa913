"""The pipeline of a Plan without us: diffusers, and for several ranks cache-dit, called directly, as a user would.

``torchrun direct.py PLAN``: rank 0 prints wall-clock and CPU seconds a step, from the end of the first step to that of
the last. On a CPU, cache-dit does not run as it is; the functions of runtime.compat that let it are called, and nothing
else of ours.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import DiffusionPipeline

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    mesh, sampling = plan["mesh"], plan["sampling"]
    pipe = DiffusionPipeline.from_pretrained(plan["model"]["source"], dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rank = 0
    if mesh["ulysses"] * mesh["ring"] * mesh["tensor"] > 1:
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        parallel(pipe, mesh, rank)
    times: list[tuple[float, float]] = []

    def after_step(_pipe: object, _step: int, _time: object, _tensors: object) -> dict[str, object]:
        times.append((time.perf_counter(), time.process_time()))
        return {}

    pipe(
        prompt=sampling["prompt"],
        negative_prompt=sampling["negative_prompt"],
        width=sampling["width"],
        height=sampling["height"],
        num_inference_steps=sampling["num_inference_steps"],
        generator=torch.Generator("cpu").manual_seed(sampling["seed"]),
        callback_on_step_end=after_step,
        **sampling["guidance"],
    )
    if rank == 0:
        print(*[(last - first) / (len(times) - 1) for first, last in zip(times[0], times[-1], strict=True)])


def parallel(pipe: DiffusionPipeline, mesh: dict[str, int], rank: int) -> None:
    """What cache-dit's enable_cache does for a ParallelismConfig, with a mesh on the CPU."""
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.core import _ContextParallelConfig, _enable_context_parallelism
    from cache_dit.distributed.transformers.dispatch import _ensure_cp_planners_activated, _ensure_tp_planners_activated
    from cache_dit.distributed.transformers.register import (
        ContextParallelismPlannerRegister,
        TensorParallelismPlannerRegister,
    )
    from torch.distributed.device_mesh import init_device_mesh

    from runtime import compat, models

    transformer = pipe.transformer
    world = init_device_mesh(
        "cpu", (mesh["ring"], mesh["ulysses"], mesh["tensor"]), mesh_dim_names=("ring", "ulysses", "tensor")
    )
    if mesh["tensor"] > 1:
        _ensure_tp_planners_activated()
        planner = TensorParallelismPlannerRegister.get_planner(transformer)()
        planner.mesh = lambda *_, **__: world["tensor"]
        planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(tp_size=mesh["tensor"]))
        compat.torch.one_reduction_at_a_time(transformer)
        return
    _ensure_cp_planners_activated()
    if mesh["ring"] > 1:
        compat.cache_dit.ring_attention_on_cpu()
    planner = ContextParallelismPlannerRegister.get_planner(transformer)()
    degrees = ParallelismConfig(ulysses_size=mesh["ulysses"], ring_size=mesh["ring"])
    hooks = planner.apply(transformer=transformer, parallelism_config=degrees)
    hooks = compat.cache_dit.split_single_layers(transformer, models.of(pipe).lists_of_their_own, hooks)
    config = _ContextParallelConfig(ulysses_degree=mesh["ulysses"], ring_degree=mesh["ring"])
    config.setup(rank, world["ring", "ulysses"].size(), torch.device("cpu"), world["ring", "ulysses"])
    _enable_context_parallelism(transformer, config=config, cp_plan=hooks)
    transformer.set_attention_backend("native")


if __name__ == "__main__":
    main()
