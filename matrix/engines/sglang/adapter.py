"""SGLang's ``sglang generate``, with what its workers tell on the way."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "inside"))

GEN = "sglang.multimodal_gen"
MODULES = (
    f"{GEN}.runtime.entrypoints.cli.generate",
    f"{GEN}.runtime.launch_server",
    f"{GEN}.runtime.managers.gpu_worker",
    f"{GEN}.runtime.managers.scheduler",
    f"{GEN}.runtime.entrypoints.diffusion_generator",
    f"{GEN}.runtime.entrypoints.utils",
)
PACKAGES = ("sglang", "torch", "diffusers", "transformers", "cache-dit")
#: Each case has ports of its own: SGLang looks for free ones from where it is told to, and two that look at once would
#: find the same.
PORTS = {"--port": 20000, "--scheduler-port": 30000, "--master-port": 40000}
APART = 3000  # cases that have passed before the same ports are taken again


def prepare(without: list[str]) -> dict[str, Any]:
    """Import SGLang, on its CPU platform where there is no GPU."""
    import torch

    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    if not gpu:
        os.environ["SGLANG_DIFFUSION_PLATFORM_OVERRIDE"] = "cpu"
    used = []
    for name in ("torchvision_ops", "processor", "kernels", "parallelism", "fork"):
        standin: Any = importlib.import_module(f"standins.{name}")
        if name in without or (gpu and standin.FOR == "no GPU"):
            continue
        used.append(name)
        standin.apply()
    for name in MODULES:
        importlib.import_module(name)
    registry: Any = importlib.import_module(f"{GEN}.registry")
    registry._ensure_registry_initialized()  # or each fork would import every pipeline
    return {"versions": {name: version(name) for name in PACKAGES}, "standins": used}


def processes(_: dict[str, Any]) -> int:
    """One, which starts the workers."""
    return 1


def run(case: dict[str, Any], rank: Any) -> dict[str, Any]:
    """What the command does, then once more for each control."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    command: Any = importlib.import_module(MODULES[0])
    parser = argparse.ArgumentParser()
    command.add_multimodal_gen_generate_args(parser)
    ports = [word for name, first in PORTS.items() for word in (name, str(first + int(case["id"]) % APART * 3))]
    output = ["--output-path", str(rank.folder), "--output-file-name", "image.png"]
    words = [*case["argv"], *_precision(case["argv"]), *ports, *output]
    sys.argv = ["sglang", "generate", *words]  # which it reads again
    args, unknown = parser.parse_known_args(words)
    _hear_workers(rank)
    _keep_frames(importlib.import_module(MODULES[5]), rank.folder)
    errors: list[str] = []
    _call_again(importlib.import_module(MODULES[4]).DiffGenerator, case["controls"], rank, errors)
    try:
        command.generate_cmd(args, unknown)
    except Exception as error:
        failed = sorted(rank.folder.glob("failed.*"))
        if not failed:
            raise
        return {"error": failed[0].read_text(), "traceback": str(error)}
    if errors:
        return {"error": errors[0]}
    if not (rank.folder / "image.0.npy").exists():
        return {"error": "no image, and no error"}
    works = [json.loads(file.read_text()) for file in sorted(rank.folder.glob("work.*.json"))]
    return {"works": works, "backend": ""}


def _precision(argv: list[str]) -> list[str]:
    """Float32: an image then shows what is computed, not how it is rounded, and a CPU is slower in bfloat16."""
    if "--dit-precision" in argv:
        return []
    model = argv[argv.index("--model-path") + 1].replace("/", "--")
    encoders = list(Path(os.environ["HF_HUB_CACHE"]).glob(f"models--{model}/snapshots/*/text_encoder*"))
    of_encoders = ["--text-encoder-precisions", *["fp32"] * len(encoders)]
    return ["--dit-precision", "fp32", "--vae-precision", "fp32", *of_encoders]


def _call_again(generator: Any, controls: list[str], rank: Any, errors: list[str]) -> None:
    once, send = generator.generate, generator._send_to_scheduler_and_wait_for_response
    damage = rank.folder / "damage"

    def generate(self: Any, sampling_params_kwargs: dict[str, Any], **more: Any) -> Any:
        result = once(self, sampling_params_kwargs=dict(sampling_params_kwargs), **more)
        for part in controls if result is not None else ():
            damage.write_text(part)
            once(self, sampling_params_kwargs={**sampling_params_kwargs, "output_file_name": f"{part}.png"}, **more)
            damage.unlink()
        return result

    def sent(self: Any, requests: Any) -> Any:
        batch = send(self, requests)
        if batch.error:
            errors.append(str(batch.error))
        return batch

    generator.generate = generate
    generator._send_to_scheduler_and_wait_for_response = sent


def _hear_workers(rank: Any) -> None:
    """Before the workers are forked: each tells its moments, counts, and damages a weight where it is told to."""
    workers: Any = importlib.import_module(MODULES[2])
    worker, build = workers.GPUWorker, workers.build_pipeline
    start, forward = worker.init_device_and_model, worker.execute_forward
    damage = rank.folder / "damage"

    def started(self: Any) -> None:
        rank.moment("before weights")
        start(self)
        from work import Work

        rank.moment("first forward")
        modules = self.pipeline.modules
        named = [modules[name] for name in ("transformer", "transformer_2") if modules.get(name) is not None]
        self.heard = Work(named, modules.get("vae"), lambda: rank.moment("later"))
        for one in named:
            _count_decisions(one, self.heard.counts)

    def building(*args: Any, **kwargs: Any) -> Any:
        rank.moment("load")
        return build(*args, **kwargs)

    def executed(self: Any, *args: Any, **kwargs: Any) -> Any:
        from work import damaged

        part = damage.read_text() if damage.exists() else ""
        last = self.rank == self.server_args.num_gpus - 1
        with ExitStack() as stack:
            if part:
                stack.enter_context(damaged(self.pipeline.modules[part], here=last))
            result = forward(self, *args, **kwargs)
        if not part:
            (rank.folder / f"work.{self.rank}.json").write_text(json.dumps(self.heard.taken()))
        return result

    process = workers.run_scheduler_process

    def told(local_rank: int, rank_: int, *args: Any, **kwargs: Any) -> None:
        try:
            process(local_rank, rank_, *args, **kwargs)
        except BaseException as error:
            (rank.folder / f"failed.{rank_}").write_text(f"{type(error).__name__}: {error}")
            raise

    workers.run_scheduler_process = lambda local_rank, rank, **more: told(local_rank, rank, **more)
    worker.init_device_and_model = started
    workers.build_pipeline = building
    worker.execute_forward = executed


def _count_decisions(transformer: Any, counts: dict[str, int]) -> None:
    """How often TeaCache decides whether a step is skipped: every transformer has the method, and few call it."""
    decide = transformer._compute_teacache_decision
    counts["cache_decisions"] = 0

    def decided(*args: Any, **kwargs: Any) -> Any:
        counts["cache_decisions"] += 1
        return decide(*args, **kwargs)

    transformer._compute_teacache_decision = decided


def _keep_frames(saving: Any, folder: Path) -> None:
    """In the place of a file: a video's would be compressed."""
    import numpy as np

    def saved(materialized: Any, _: Any, path: str, **__: Any) -> None:
        np.save(folder / f"{Path(path).stem}.0.npy", np.stack(materialized.frames)[..., :3])

    saving.save_materialized_output = saved
