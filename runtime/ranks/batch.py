"""What torchrun starts once to run many cases: ``batch.py FOLDER --timeout SECONDS``.

It imports the libraries and loads the models, and forks each rank of each case, because cache-dit and
torch.distributed keep state in the process. The cases are in ``FOLDER/cases.json``; what the rank of a case computed
goes to ``NUMBER.RANK.json`` and ``.npz``. As many ranks run at once as the largest case has, and of the cases that
compile a model, one: the next may find its graphs in the cache.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

_ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, _ROOT)
import omni_config.plan  # noqa: E402
from runtime.events import Writer  # noqa: E402
from runtime.ranks import generate as worker  # noqa: E402

sys.path.remove(_ROOT)  # both packages are found now; what else lies beside them must not shadow anything

if TYPE_CHECKING:
    from omni_config.plan import Lora, Plan


@dataclass(frozen=True, slots=True)
class Child:
    """A rank of a case, in a process of its own; ``place`` is its GPU, where there are any."""

    number: int
    rank: int
    place: int
    deadline: float


def main() -> None:
    """Run all cases and end the process."""
    parser = argparse.ArgumentParser(description="Many runs; torchrun starts it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--timeout", type=float, required=True, help="Seconds that a case may take.")
    arguments = parser.parse_args()
    worker.end_with(lambda events: _run_all(arguments.folder, arguments.timeout, events), 0, arguments.folder)


def _run_all(folder: Path, timeout: float, events: Writer) -> dict[str, Any]:
    from runtime import compat
    from runtime.pipeline import load

    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    plans = [omni_config.plan.Plan.from_json(json.dumps(case["plan"])) for case in cases]
    compat.cache_dit.import_for_forks({plan.model.pipeline for plan in plans})
    if any(plan.compile for plan in plans):
        compat.torch.compile_for_forks()
    load.keep(plans)
    sizes = [plan.mesh.world_size for plan in plans]
    compiled = [plan.model if plan.compile else None for plan in plans]
    waiting = sorted(range(len(plans)), key=lambda number: (-sizes[number], compiled[number] is None))
    places = list(range(max(sizes)))
    running: dict[int, Child] = {}
    done = 0
    while waiting or running:
        for number in list(waiting):
            compiling = {compiled[child.number] for child in running.values()} - {None}
            if compiled[number] in compiling:
                continue
            if sizes[number] > len(places):
                break  # or the largest would wait for the end, when nothing can run beside them
            waiting.remove(number)
            for rank in range(sizes[number]):
                child = Child(number, rank, places.pop(0), time.monotonic() + timeout)
                running[_fork(folder, child, cases[number], plans[number], timeout)] = child
        time.sleep(0.01)
        for pid in [pid for pid, child in running.items() if _has_ended(folder, pid, child, timeout)]:
            child = running.pop(pid)
            places.append(child.place)
            if all(other.number != child.number for other in running.values()):
                done += 1
                events.progress("proving", done, len(cases))
    return {}


def _fork(folder: Path, child: Child, case: dict[str, Any], plan: Plan, timeout: float) -> int:
    """Run a rank of a case in a child, whose number is returned; an error file takes the place of missing results."""
    file = folder / f"{child.number}.{child.rank}.json"
    gc.freeze()  # a child that looked for garbage among the libraries' objects would copy all of them
    if pid := os.fork():
        return pid
    status = 1
    try:
        worker.end_with_launcher(folder)
        os.environ["LOCAL_RANK"] = str(child.place)
        _meet(child.number, child.rank, plan.mesh.world_size)
        _run(file, case, plan, child.rank, timeout)
        status = 0
    except BaseException as error:
        import traceback

        from runtime import compat

        secondary = compat.torch.is_secondary(error)
        told = {"error": worker.cause(error), "echo": secondary, "traceback": traceback.format_exc()}
        file.write_text(json.dumps(told), encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _has_ended(folder: Path, pid: int, child: Child, timeout: float) -> bool:
    """Whether a child is gone; one that is late is killed, and an error file says so."""
    late = time.monotonic() > child.deadline
    if late:
        os.kill(pid, signal.SIGKILL)
    ended, status = os.waitpid(pid, 0 if late else os.WNOHANG)
    if ended and os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        why = f"not done after {timeout:g} s; if it is only slow, raise the timeout" if late else f"killed by {name}"
        file = folder / f"{child.number}.{child.rank}.json"
        file.write_text(json.dumps({"error": why, "echo": False, "traceback": ""}), encoding="utf-8")
    return bool(ended)


def _store() -> Any:
    """torchrun's own store, in which ranks meet without a port of their own."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _meet(number: int, rank: int, world_size: int) -> None:
    """Let the ranks of a case form their process group in the store."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    from runtime import compat

    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(world_size)
    compat.torch.meet_in(PrefixStore(f"case {number}", _store()), rank, world_size)


def _run(file: Path, case: dict[str, Any], plan: Plan, rank: int, timeout: float) -> None:
    """Call the pipeline, then once more for each control; write the results."""
    import numpy as np

    started = time.monotonic()
    pipes: list[Any] = []
    arrays: dict[str, Any] = {}
    latents: list[Any] = []

    def on_step(_: int, __: int, tensor: Any) -> None:
        latents[:] = [tensor]

    def after_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(rank, step + 1, tensors["latents"])
        return {}

    def keep(output: Any, prefix: str = "") -> None:
        arrays[f"{prefix}latents"] = latents[0].float().cpu().numpy()
        if output is not None:
            pictures = output.images if hasattr(output, "images") else output.frames[0]
            arrays[f"{prefix}picture"] = np.stack([np.asarray(picture) for picture in pictures])

    def save(output: Any, _: Plan) -> list[str]:
        keep(output)
        return []

    def prepare(pipe: Any, _: int) -> None:
        pipes.append(pipe)
        for adapter in plan.lora if case["merged"] else ():
            _merge(pipe.transformer, adapter)

    called = replace(plan, lora=[]) if case["merged"] else plan
    result = worker.generate(called, rank, timeout, Writer(None, rank), prepare, on_step, save)
    if rank != 0:
        keep(None)
    for part, damage in case["controls"].items():
        last = _ranks(plan, part) - 1
        weight = _weight(pipes[0], part)
        whole = weight.clone()
        if rank == last:
            weight.mul_(-1000.0) if damage == "matrix" else weight.view(-1)[:1].add_(100.0)
        output = pipes[0](**worker.arguments(plan, rank), callback_on_step_end=after_step)
        weight.copy_(whole)
        keep(output if rank == 0 else None, f"{part} ")
    np.savez(file.with_suffix(".npz"), **arrays)
    result["seconds"] = time.monotonic() - started
    file.write_text(json.dumps(result), encoding="utf-8")


def _merge(transformer: Any, adapter: Lora) -> None:
    """Add an adapter to the weights of its layers: W + scale * alpha / rank * B A (Hu et al., 2021, section 4.1).

    Raises:
        CannotRunError: the file is no plain LoRA in the names of diffusers.
    """
    from safetensors.torch import load_file

    from runtime.errors import CannotRunError

    weights = load_file(adapter.path)
    names = {name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")}
    parts = ("lora_A.weight", "lora_B.weight", "alpha")
    if not names or {*weights} - {f"{name}.{part}" for name in names for part in parts}:
        raise CannotRunError(f"{adapter.path} has other weights than lora_A and lora_B, so it cannot be proven alone")
    for name in names:
        down, up = (weights[f"{name}.{part}"] for part in parts[:2])
        alpha = weights.get(f"{name}.alpha", len(down))
        layer = transformer.get_submodule(name.removeprefix("transformer."))
        layer.weight.data += adapter.scale * (alpha / len(down) * up @ down).to(layer.weight)


def _ranks(plan: Plan, part: str) -> int:
    """The ranks, from the first on, of which each holds what the picture depends on.

    Text tokens that are only padding may be all that a sequence rank other than the first has.
    """
    shares = {"vae": len(plan.decoding_ranks), "text_encoder": plan.mesh.tensor}
    return shares.get(part, plan.mesh.world_size)


def _weight(pipe: Any, part: str) -> Any:
    """This rank's share of the decoder's first weight, or of a projection of values amid a transformer or encoder."""
    from runtime.features.text_encoder_parallel import encoder_of

    if part == "vae":
        weight = pipe.vae.decoder.conv_in.weight
    else:
        model = pipe.transformer if part == "transformer" else encoder_of(pipe)
        values = [
            module for name, module in model.named_modules() if name.endswith((".to_v", ".v_proj", "Attention.v"))
        ]
        weight = values[(len(values) - 1) // 2].weight
    return getattr(weight.data, "_local_tensor", weight.data)


if __name__ == "__main__":
    main()
