"""What torchrun starts on every rank: ``generate.py PLAN [--folder FOLDER] [--timeout SECONDS] [--profile]``.

It is run by its path, and finds its own packages from there, whatever the working directory holds.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

_ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, _ROOT)
import omni_config.plan  # noqa: E402
import runtime.events  # noqa: E402

sys.path.remove(_ROOT)  # both packages are found now; what else lies beside them must not shadow anything

if TYPE_CHECKING:
    import torch

    from omni_config.plan import Plan
    from runtime.events import Writer
    from runtime.features.feature import Handle

#: Called with the pipeline and the rank when all features are on.
Prepare = Callable[[Any, int], None]
#: Called with the rank, the step (from 1) and the latents after it.
OnStep = Callable[[int, int, "torch.Tensor"], None]
#: Called on rank 0 with what the pipeline returned and the Plan; the paths of what it saved.
Save = Callable[[Any, "Plan"], list[str]]


def main(prepare: Prepare | None = None, on_step: OnStep | None = None) -> None:
    """Run the Plan as this rank and end the process: status 0, or 1 with the cause among the events."""
    parser = argparse.ArgumentParser(description="One rank of a run; torchrun starts it.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--folder", type=Path, help="Folder of the run, for events.")
    parser.add_argument("--timeout", type=float, default=600.0, help="Seconds that a collective may take.")
    parser.add_argument("--profile", action="store_true", help="Write a trace of some steps.")
    arguments = parser.parse_args()
    rank = int(os.environ.get("RANK", "0"))

    def work(events: Writer) -> dict[str, Any]:
        plan = omni_config.plan.Plan.from_json(arguments.plan.read_bytes())
        return generate(plan, rank, arguments.timeout, events, prepare, on_step, profile=arguments.profile)

    end_with(work, rank, arguments.folder)


def end_with(work: Callable[[Writer], dict[str, Any]], rank: int, folder: Path | None) -> NoReturn:
    """Do the work of a rank, tell the launcher through the folder what came of it, and end the process."""
    gc.disable()  # importing and loading makes a million objects and no garbage; load.pipeline enables it again
    if folder is not None:
        end_with_launcher(folder)
        _show_stacks_on_signal(folder, rank)
    events = runtime.events.Writer(folder, rank)
    status = 1
    try:
        events.done(work(events))
        status = 0
    except BaseException as error:
        import traceback

        from runtime import compat

        events.error(cause(error), echo=compat.torch.is_secondary(error))  # first, as there may be no room for the log
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # without destructors: those of a process group wait for peers that may be gone


def cause(error: BaseException) -> str:
    """An error as one line; its class is left out where the text was written for the user."""
    from runtime.errors import CannotRunError

    line = str(error).strip().split("\n")[0]
    return line if isinstance(error, CannotRunError) else f"{type(error).__name__}: {line}"


def build(plan: Plan, rank: int, timeout: float) -> tuple[Any, dict[str, Handle]]:
    """The pipeline of a Plan on this rank, with its features, which are on.

    Raises:
        CannotRunError: the Plan asks for what the runtime, the checkpoint or this machine cannot do.
    """
    import torch

    from runtime.pipeline import apply, load, mesh

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    device_mesh = mesh.build(plan, rank, timeout)
    pipe = load.pipeline(plan)
    return pipe, apply.apply(pipe, plan, device_mesh)


def generate(
    plan: Plan,
    rank: int,
    timeout: float,
    events: Writer,
    prepare: Prepare | None = None,
    on_step: OnStep | None = None,
    save: Save | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Load, apply the features, call the pipeline once, and save what it made from rank 0; this rank's results.

    With ``profile``, a trace of some steps is saved too.

    Raises:
        CannotRunError: the Plan asks for what the runtime, the checkpoint or this machine cannot do.
    """
    import time

    import torch

    from runtime.pipeline import media, trace

    events.progress("loading")
    times = [time.perf_counter()]
    media.require_encoder(plan)
    given = arguments(plan, rank)  # first, as an input picture may be missing
    pipe, handles = build(plan, rank, timeout)
    if prepare is not None:
        prepare(pipe, rank)
    steps = plan.sampling.num_inference_steps
    events.progress("denoising", 0, steps)
    times.append(time.perf_counter())

    def after_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        if on_step is not None:
            on_step(rank, step + 1, tensors["latents"])
        events.progress("denoising", step + 1, steps)
        if step + 1 == steps:
            events.progress("decoding")
        stepped()
        return {}

    with trace.of_steps(plan, rank, profile) as stepped:
        output = call(pipe, plan, **given, callback_on_step_end=after_step)
    end = time.perf_counter()
    paths: list[str] = []
    if rank == 0:
        events.progress("saving")
        paths = (save or media.save)(output, plan)
    start, loaded, *steps_done = times
    measured = {name: handle.measure() for name, handle in handles.items()}
    cached = sum(len(of_feature.get("cached_steps", ())) for of_feature in measured.values())
    return {
        "pictures": paths,
        "load_seconds": loaded - start,
        "denoise_seconds": steps_done[-1] - loaded,
        "step_seconds": (steps_done[-1] - steps_done[0]) / (steps - 1) if steps > 1 else steps_done[0] - loaded,
        "decode_seconds": end - steps_done[-1],
        "steps_computed": steps - cached,
        "steps_cached": cached,
        "peak_memory": _peak_memory(),
        "features": measured,
    }


def call(pipe: Any, plan: Plan, **arguments: Any) -> Any:
    """Call the pipeline once; what it returns.

    Raises:
        CannotRunError: what it made is not a number.
    """
    from runtime.pipeline.media import refuse_what_is_no_number

    # Not in torch's inference mode: pipelines switch gradients off, and DTensor is slow to begin with in that mode.
    with refuse_what_is_no_number(plan):
        return pipe(**arguments)


def arguments(plan: Plan, rank: int = 0) -> dict[str, Any]:
    """The arguments of one call of the pipeline; ranks that are asked for no picture decode none.

    Raises:
        CannotRunError: the input picture is missing, or cannot be read.
    """
    import torch

    from runtime.errors import CannotRunError
    from runtime.pipeline.media import open_picture

    sampling = plan.sampling
    arguments: dict[str, Any] = {
        "prompt": sampling.prompt,
        "width": sampling.width,
        "height": sampling.height,
        "num_inference_steps": sampling.num_inference_steps,
        "generator": torch.Generator("cpu").manual_seed(sampling.seed),  # the same noise on each rank and device
        "output_type": "pil" if rank in plan.decoding_ranks else "latent",
        **sampling.guidance,
    }
    if sampling.image is not None:
        arguments["image"] = open_picture(sampling.image)
    elif plan.model.task.startswith("image_to_"):
        raise CannotRunError(f"{plan.model.id} edits a picture; next: set sampling.image")
    if sampling.video is not None:
        arguments["num_frames"] = sampling.video.num_frames
    else:
        arguments["num_images_per_prompt"] = sampling.num_images_per_prompt
    if sampling.negative_prompt is not None:
        arguments["negative_prompt"] = sampling.negative_prompt
    return arguments


def _peak_memory() -> float:
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def end_with_launcher(run: Path) -> None:
    """End this process when the launcher, which holds the other end of this pipe, is gone or lets go."""
    pipe = os.open(run / "alive", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(pipe, True)

    def wait() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _show_stacks_on_signal(run: Path, rank: int) -> None:
    import faulthandler
    import signal

    stacks = runtime.events.stacks_path(run, rank).open("w")  # stays open as long as the process
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)


if __name__ == "__main__":
    main()
