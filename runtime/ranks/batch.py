"""The job of running many cases in forks of one process: ``batch FOLDER --timeout SECONDS``.

It imports the libraries and loads the models, and forks each rank of each case, because cache-dit and
torch.distributed keep state in the process. The cases are in ``FOLDER/cases.json``; what the rank of a case computed
goes to ``NUMBER.RANK.json`` and ``.npz``, and the numbers of the cases that are done, a line each, to ``done``. As many
ranks run at once as the largest case has, and of the cases that compile a model, one: the next may find its graphs in
the cache. A case of which a rank makes no progress is ended, with the stacks of its ranks, and the others go on.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omni_config.plan import Plan
from runtime.events import Rank, Writer
from runtime.launcher import failures
from runtime.ranks import generate, job

if TYPE_CHECKING:
    from omni_config.plan import Lora

_POLL = 0.02  # seconds between two looks at the ranks
_QUIET = 1.0  # seconds between two signs of life of a batch whose cases make progress
_GRACE = 10.0  # seconds that the other ranks of a case get, after one has failed, to see it and end


@dataclass(frozen=True, slots=True)
class Child:
    """A rank of a case, in a process of its own; ``place`` is its GPU, where there are any."""

    number: int
    rank: int
    place: int


def main(words: Sequence[str]) -> NoReturn:
    """Run all cases and end the process."""
    parser = argparse.ArgumentParser(description="Many runs; torchrun starts it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--timeout", type=float, required=True, help="Seconds without progress that end a case.")
    arguments = parser.parse_args(words)
    job.end_with(lambda events: _run_all(arguments.folder, arguments.timeout, events), 0, arguments.folder)


def _run_all(folder: Path, timeout: float, events: Writer) -> dict[str, Any]:
    from runtime import compat
    from runtime.pipeline import load

    own_bars_in_each_fork()
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    plans = [Plan.from_json(json.dumps(case["plan"])) for case in cases]
    compat.cache_dit.import_for_forks({plan.model.pipeline for plan in plans})
    if any(plan.compile for plan in plans):
        compat.torch.compile_for_forks()
    load.keep(plans)
    sizes = [plan.mesh.world_size for plan in plans]
    compiled = [plan.model if plan.compile else None for plan in plans]
    waiting = sorted(range(len(plans)), key=lambda number: (-sizes[number], compiled[number] is None))
    places = list(range(max(sizes)))
    running: dict[int, _Case] = {}
    done, told = 0, time.monotonic()
    while waiting or running:
        for number in list(waiting):
            compiling = {compiled[other] for other in running} - {None}
            if compiled[number] in compiling:
                continue
            if sizes[number] > len(places):
                break  # or the largest would wait for the end, when nothing can run beside them
            waiting.remove(number)
            running[number] = _Case(folder, number, timeout)
            for rank in range(sizes[number]):
                child = Child(number, rank, places.pop(0))
                running[number].follow(child, _fork(folder, child, cases[number], plans[number], timeout))
        time.sleep(_POLL)
        heard = False
        for number, case in list(running.items()):
            heard |= case.listen()
            places += case.end()
            if case.is_done:
                del running[number]
                done += 1
                with (folder / "done").open("a", encoding="utf-8") as file:
                    file.write(f"{number}\n")
                events.progress("proving", done, len(cases))
        if heard and time.monotonic() > told + _QUIET:  # for the launcher, which ends a batch without progress
            told = time.monotonic()
            events.progress("proving", done, len(cases))
    return {}


def own_bars_in_each_fork() -> None:
    """Let forks draw progress bars, as libraries do while they load, without a lock that they share.

    tqdm's lock is one of all processes: a fork that is killed while it has it keeps it, and every other one, and this
    process, would wait for ever. The thread by which tqdm looks after slow bars takes it too; a fork at that moment has
    the lock, but not the thread that would give it back.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())


class _Case:
    """A case that runs: its ranks by process, and what they have told."""

    def __init__(self, folder: Path, number: int, timeout: float) -> None:
        self._folder = folder
        self._number = number
        self._timeout = timeout
        self._events = _events_folder(folder, number)
        self._events.mkdir()
        self._running: dict[int, tuple[Child, Rank]] = {}
        self._failed: tuple[int, float] | None = None  # the first rank that failed, and when

    def follow(self, child: Child, pid: int) -> None:
        """Take in a rank that has been started."""
        rank = Rank(self._events, child.rank)
        rank.pid = pid  # from the first moment on; it tells the same later
        self._running[pid] = child, rank

    @property
    def is_done(self) -> bool:
        """Whether all ranks have ended."""
        return not self._running

    def listen(self) -> bool:
        """Whether a rank has told something since the last time."""
        told = [rank.read() for _, rank in self._running.values()]
        return any(told)

    def end(self) -> list[int]:
        """See which ranks have ended, and kill those that would wait for ever; the places that are free now."""
        before = {child.place for child, _ in self._running.values()}
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._has_ended(pid, status)
        now = time.monotonic()
        if self._failed is not None and now > self._failed[1] + _GRACE:
            self._kill(f"it waited for rank {self._failed[0]}, which had failed", secondary=True)
        elif any(now > rank.heard + self._timeout for _, rank in self._running.values()):
            self._stop()
        if self.is_done:
            shutil.rmtree(self._events)
        return sorted(before - {child.place for child, _ in self._running.values()})

    def _has_ended(self, pid: int, status: int) -> None:
        child, rank = self._running.pop(pid)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            _fail(self._folder, child, f"killed by {name} while {rank.progress}")
        if status and self._failed is None:
            self._failed = child.rank, time.monotonic()

    def _stop(self) -> None:
        """End a case of which a rank makes no progress: its error names those that hang, with all stacks."""
        ranks = [rank for _, rank in self._running.values()]
        stacks = failures.stacks(self._events, ranks)
        stuck = failures.stuck(stacks)
        first = next(rank for rank in ranks if rank.rank == stuck[0])
        why = f"no progress for {self._timeout:g} s while {first.progress}; if it is only slow, raise the timeout"
        self._kill(why, traceback=failures.shown(stacks), first=stuck)

    def _kill(self, why: str, *, secondary: bool = False, traceback: str = "", first: Iterable[int] = ()) -> None:
        """Kill all ranks that run; ``first`` are those that have failed by themselves."""
        for pid, (child, _) in self._running.items():
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
            os.waitpid(pid, 0)
            _fail(self._folder, child, why, secondary=secondary or child.rank not in first, traceback=traceback)
        self._running.clear()


def _events_folder(folder: Path, number: int) -> Path:
    """Where the ranks of a case tell how far they are, and show their stacks."""
    return folder / f"case{number}"


def _fail(folder: Path, child: Child, why: str, *, secondary: bool = False, traceback: str = "") -> None:
    """Write, in place of the results of a rank, why there are none."""
    told = {"error": why, "secondary": secondary, "traceback": traceback}
    (folder / f"{child.number}.{child.rank}.json").write_text(json.dumps(told), encoding="utf-8")


def _fork(folder: Path, child: Child, case: dict[str, Any], plan: Plan, timeout: float) -> int:
    """Run a rank of a case in a child, whose number is returned; an error takes the place of missing results."""
    file = folder / f"{child.number}.{child.rank}.json"
    gc.freeze()  # a child that looked for garbage among the libraries' objects would copy all of them
    if pid := os.fork():
        return pid
    status = 1
    try:
        own = _events_folder(folder, child.number)
        job.show_stacks_on_signal(own, child.rank)
        job.end_with_launcher(folder)
        os.environ["LOCAL_RANK"] = str(child.place)
        _meet(child.number, child.rank, plan.mesh.world_size)
        _run(file, case, plan, child.rank, timeout, Writer(own, child.rank))
        status = 0
    except BaseException as error:
        import traceback

        why, stack = job.cause(error), traceback.format_exc()
        _fail(folder, child, why, secondary=job.is_secondary(error), traceback=stack)
    finally:
        job.end(status)


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


def _run(file: Path, case: dict[str, Any], plan: Plan, rank: int, timeout: float, events: Writer) -> None:
    """Call the pipeline, then once more for each control; write the results."""
    import numpy as np

    started = time.monotonic()
    pipes: list[Any] = []
    arrays: dict[str, Any] = {}
    latents: list[Any] = []

    def on_step(_: int, __: int, tensor: Any) -> None:
        latents[:] = [tensor]

    def after_step(_: Any, step: int, tensor: Any) -> None:
        on_step(rank, step, tensor)
        events.progress("denoising", step, plan.sampling.num_inference_steps)

    def keep(output: Any, prefix: str = "") -> None:
        arrays[f"{prefix}latents"] = latents[0].float().cpu().numpy()
        if output is not None:
            images = output.images if hasattr(output, "images") else output.frames[0]
            arrays[f"{prefix}image"] = np.stack([np.asarray(image) for image in images])
            if getattr(output, "audio", None) is not None:
                arrays[f"{prefix}sound"] = output.audio.float().cpu().numpy()

    def save(output: Any, _: Plan) -> list[str]:
        keep(output)
        return []

    def prepare(pipe: Any, _: int) -> None:
        pipes.append(pipe)
        for adapter in plan.lora if case["merged"] else ():
            _merge(pipe.transformer, adapter)

    called = replace(plan, lora=[]) if case["merged"] else plan
    result = generate.generate(called, rank, timeout, events, prepare, on_step, save)
    if rank != 0:
        keep(None)
    for part, damage in case["controls"].items():
        last = _ranks(plan, part) - 1
        weight = _weight(pipes[0], part)
        whole = weight.clone()
        if rank == last:
            weight.mul_(-1000.0) if damage == "matrix" else weight.view(-1)[:1].add_(100.0)
        given = generate.arguments(plan, rank)
        output = generate.call(pipes[0], plan, **given, callback_on_step_end=job.step_callback(after_step))
        weight.copy_(whole)
        keep(output if rank == 0 else None, f"{part} ")
    np.savez(file.with_suffix(".npz"), **arrays)
    told = {"result": asdict(result), "seconds": time.monotonic() - started}
    file.write_text(json.dumps(told), encoding="utf-8")


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
    """The ranks, from the first on, of which each holds what the image depends on.

    Text tokens that are only padding may be all that a sequence rank other than the first has.
    """
    shares = {"vae": len(plan.decoding_ranks), "text_encoder": plan.mesh.tensor}
    return shares.get(part, plan.mesh.world_size)


def _weight(pipe: Any, part: str) -> Any:
    """This rank's share of the decoder's first weight, or of a projection of values amid a transformer or encoder."""
    from runtime.features.text_encoder_parallel import encoder_of

    if part == "vae":
        weight = next(pipe.vae.decoder.conv_in.parameters())
    else:
        model = pipe.transformer if part == "transformer" else encoder_of(pipe)
        values = [
            module for name, module in model.named_modules() if name.endswith((".to_v", ".v_proj", "Attention.v"))
        ]
        weight = values[(len(values) - 1) // 2].weight
    local = getattr(weight.data, "_local_tensor", weight.data)
    return getattr(local, "scale", local)  # of a quantized weight, whose rows it multiplies
