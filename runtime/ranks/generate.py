"""The job of a rank that makes images: ``generate PLAN [--folder FOLDER] [--timeout SECONDS] [--profile]``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omni_config.plan import Plan
from runtime.ranks import job
from runtime.report import RankResult

if TYPE_CHECKING:
    import torch

    from runtime.events import Writer
    from runtime.features.feature import Handle

#: Called with the pipeline and the rank when all features are on.
Prepare = Callable[[Any, int], None]
#: Called with the rank, the step (from 1) and the latents after it.
OnStep = Callable[[int, int, "torch.Tensor"], None]
#: Called on rank 0 with what the pipeline returned and the Plan; the paths of what it saved.
Save = Callable[[Any, Plan], list[str]]


def main(words: Sequence[str], prepare: Prepare | None = None, on_step: OnStep | None = None) -> NoReturn:
    """Run the Plan as this rank and end the process."""
    parser = argparse.ArgumentParser(description="One rank of a run; torchrun starts it.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--folder", type=Path, help="Folder of the run, for events.")
    parser.add_argument("--timeout", type=float, default=600.0, help="Seconds that a collective may take.")
    parser.add_argument("--profile", action="store_true", help="Write a trace of some steps.")
    arguments = parser.parse_args(words)
    rank = int(os.environ.get("RANK", "0"))

    def work(events: Writer) -> dict[str, Any]:
        plan = Plan.from_json(arguments.plan.read_bytes())
        return asdict(generate(plan, rank, arguments.timeout, events, prepare, on_step, profile=arguments.profile))

    job.end_with(work, rank, arguments.folder)


def build(plan: Plan, rank: int, timeout: float) -> tuple[Any, dict[str, Handle]]:
    """The pipeline of a Plan on this rank, with its features, which are on.

    Raises:
        CannotRunError: the Plan asks for what the runtime, the checkpoint or this machine cannot do.
    """
    import torch

    from runtime import models
    from runtime.pipeline import apply, load, mesh

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    device_mesh = mesh.build(plan, rank, timeout)
    pipe = load.pipeline(plan)
    if plan.sampling.image is not None:
        pipe = models.for_image(pipe)
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
) -> RankResult:
    """Load, apply the features, call the pipeline once, and save what it made from rank 0; this rank's results.

    With ``profile``, a trace of some steps is saved too.

    Raises:
        CannotRunError: the Plan asks for what the runtime, the checkpoint or this machine cannot do.
    """
    import time

    from runtime.pipeline import media, trace

    events.progress("loading")
    times = [time.perf_counter()]
    media.require_encoder(plan)
    given = arguments(plan, rank)  # first, as an input image may be missing
    pipe, handles = build(plan, rank, timeout)
    if prepare is not None:
        prepare(pipe, rank)
    steps = plan.sampling.num_inference_steps
    events.progress("denoising", 0, steps)
    times.append(time.perf_counter())

    def after_step(_: Any, step: int, latents: torch.Tensor) -> None:
        times.append(time.perf_counter())
        if on_step is not None:
            on_step(rank, step, latents)
        events.progress("denoising", step, steps)
        if step == steps:
            events.progress("decoding")
        stepped()

    with trace.of_steps(plan, rank, profile) as stepped:
        output = call(pipe, plan, **given, callback_on_step_end=job.step_callback(after_step))
    end = time.perf_counter()
    paths: list[str] = []
    if rank == 0:
        events.progress("saving")
        paths = (save or media.save)(output, plan)
    start, loaded, *steps_done = times
    measured = {name: handle.measure() for name, handle in handles.items()}
    cached = sum(len(of_feature.get("cached_steps", ())) for of_feature in measured.values())
    return RankResult(
        images=tuple(paths),
        load_seconds=loaded - start,
        denoise_seconds=steps_done[-1] - loaded,
        step_seconds=(steps_done[-1] - steps_done[0]) / (steps - 1) if steps > 1 else steps_done[0] - loaded,
        decode_seconds=end - steps_done[-1],
        steps_computed=steps - cached,
        steps_cached=cached,
        peak_memory=_peak_memory(),
        features=measured,
    )


def call(pipe: Any, plan: Plan, **arguments: Any) -> Any:
    """Call the pipeline once; what it returns.

    Raises:
        CannotRunError: what it made is not a number.
    """
    from runtime import compat
    from runtime.pipeline.media import refuse_what_is_no_number

    for name in [name for name in arguments if "." in name]:  # of a component, such as guider.guidance_scale
        component, _, setting = name.partition(".")
        setattr(getattr(pipe, component), setting, arguments.pop(name))
    # Not in torch's inference mode: pipelines switch gradients off, and DTensor is slow to begin with in that mode.
    with refuse_what_is_no_number(plan), compat.diffusers.steps_called_back(pipe, arguments):
        output = pipe(**arguments)
    if getattr(output, "audio", None) is not None:
        output.sampling_rate = pipe.vocoder.config.output_sampling_rate
    return output


def arguments(plan: Plan, rank: int = 0) -> dict[str, Any]:
    """The arguments of one call of the pipeline; ranks that are asked for no image decode none.

    Raises:
        CannotRunError: the input image is missing, or cannot be read.
    """
    import torch

    from runtime import models
    from runtime.errors import CannotRunError
    from runtime.pipeline.media import input_image

    sampling = plan.sampling
    prompt = sampling.prompt if isinstance(sampling.prompt, str) else [*sampling.prompt]  # Z-Image changes the list
    arguments: dict[str, Any] = {
        "prompt": prompt,
        "width": sampling.width,
        "height": sampling.height,
        "num_inference_steps": sampling.num_inference_steps,
        "generator": torch.Generator("cpu").manual_seed(sampling.seed),  # the same noise on each rank and device
        "output_type": "pil" if rank in plan.decoding_ranks else "latent",
        **sampling.guidance,
    }
    if sampling.image is not None:
        arguments["image"] = input_image(sampling.image, models.mode_of_image(plan.model.pipeline))
    elif plan.model.task.startswith("image_to_"):
        raise CannotRunError(f"{plan.model.id} edits an image; next: set sampling.image")
    if sampling.video is not None:
        arguments["num_frames"] = sampling.video.num_frames
    else:
        arguments["num_images_per_prompt"] = sampling.num_images_per_prompt
    negative = sampling.negative_prompt
    if negative is not None:
        arguments["negative_prompt"] = negative if isinstance(prompt, str) else [negative] * len(prompt)
    return models.arguments(plan, arguments)


def _peak_memory() -> float:
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
