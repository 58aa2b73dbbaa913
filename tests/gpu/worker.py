"""One pipeline and its cases, in one process a rank: ``worker.py MODEL ROWS TINY CASE ...``; rank 0 writes the rows.

Each case is a config, judged by ``omni check``'s rules, and switched on and off by the runtime's own features. A case
that cannot run says so and the next one begins; any other failure ends the process, which the caller starts again.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
try:
    import runtime  # noqa: F401  (the wheel, where it is installed)
except ModuleNotFoundError:
    sys.path.insert(1, str(ROOT))

import models  # noqa: E402
import torch  # noqa: E402
from cases import OF_ONE_GPU, Case, of_several_gpus  # noqa: E402

from omni_config.catalog.load import catalog  # noqa: E402
from omni_config.estimate.data import Gpu, efficiencies, gpus  # noqa: E402
from omni_config.estimate.estimate import seconds  # noqa: E402
from omni_config.estimate.memory import memory_of  # noqa: E402
from omni_config.plan import Plan  # noqa: E402
from omni_config.resolving.resolver import Resolution, resolve_settings  # noqa: E402
from omni_config.resolving.target import target_of  # noqa: E402
from omni_config.rules.quantities import Quantities  # noqa: E402
from omni_config.schema.settings import validate  # noqa: E402
from runtime.device import device  # noqa: E402
from runtime.errors import CannotRunError  # noqa: E402
from runtime.pipeline import apply, load, mesh  # noqa: E402
from runtime.proof import random_pipelines  # noqa: E402
from runtime.ranks import generate, job  # noqa: E402

PAIRS = 3  # of plain diffusers and of ours, in turn
PROMPT = "a red star over the sea at night, with its light on the waves, painted in oil"
#: Where nothing is measured of time and memory: sizes that take a second.
SMALL = {"width": 128, "height": 128, "num_inference_steps": 6}
#: What an allocator's own count does not hold.
_NOT_COUNTED = {"context": 0.0, "communicator": 0.0, "fragments": 0.0}


@dataclass(frozen=True)
class Shot:
    """One call of a pipeline: wall-clock seconds, GiB at the peak of the allocator, and the last latents."""

    seconds: float
    step: float
    gib: float
    latents: torch.Tensor


def resolved(model: str, case: Case, folder: Path, *, tiny: bool) -> Resolution:
    """The config of a case."""
    subject = models.SUBJECTS[model]
    card, engine = catalog().model(subject.card), catalog().engine("native")
    assert card is not None
    assert engine is not None
    sampling = {"prompt": PROMPT, **subject.sampling, **(SMALL if tiny else {})}
    if tiny and card.task == "text_to_video":
        sampling["num_frames"] = 5
    document: dict[str, Any] = {"version": 1, "model": subject.card, "sampling": sampling, "output": str(folder)}
    document["execution"] = {"dtype": "float32" if tiny else "bfloat16"}
    for section, changes in case.changes.items():
        document[section] = document.get(section, {}) | changes if isinstance(changes, dict) else changes
    return resolve_settings(validate(document), target_of(card, engine))


def shoot(call: Any, arguments: dict[str, Any]) -> Shot:
    """Time one call, step by step."""
    times: list[float] = []
    last: list[torch.Tensor] = []

    def after_step(_: Any, __: int, latents: torch.Tensor) -> None:
        times.append(time.perf_counter())
        last[:] = [latents]

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    call(**arguments, callback_on_step_end=job.step_callback(after_step))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    end = time.perf_counter()
    gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return Shot(end - start, (times[-1] - times[0]) / (len(times) - 1), gib, last[0].float().cpu())


def gpu_of(name: str) -> Gpu | None:
    """The known GPU that a device's name speaks of, the one with most words: "NVIDIA H100 PCIe" is h100-pcie."""
    words = {*name.lower().replace("-", " ").split()}
    fitting = [gpu for gpu in gpus().values() if {*gpu.id.split("-")} <= words]
    return max(fitting, key=lambda gpu: len(gpu.id.split("-")), default=None)


class Bench:
    """A pipeline whose cases are run one after the other."""

    def __init__(self, model: str, folder: Path, *, tiny: bool) -> None:
        self.model, self.folder, self.tiny = model, folder, tiny
        self.rank = int(os.environ.get("RANK", "0"))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self.gpu = gpu_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        needed = self.estimated_gib(Case("plain"))
        if torch.cuda.is_available() and needed > (there := torch.cuda.mem_get_info()[1] / 2**30):
            raise CannotRunError(f"{model} needs about {needed:.0f} GiB, and the GPU has {there:.0f}")
        self.pipe = models.build(model, device(), tiny=tiny)
        self.base = self.plan(Case("plain"))
        load._kept[self.base.model] = self.pipe
        load.pipeline(self.base)  # in the precisions that the libraries keep
        self.reference = shoot(self.pipe, generate.arguments(self.base))
        self.reference = shoot(self.pipe, generate.arguments(self.base))  # the first one warms up

    def plan(self, case: Case) -> Plan:
        """The Plan of a case.

        Raises:
            CannotRunError: the check refuses it.
        """
        resolution = resolved(self.model, case, self.folder, tiny=self.tiny)
        errors = [finding for finding in resolution.findings if finding.severity == "error"]
        if errors:
            raise CannotRunError(f"refused by {errors[0].code}: {errors[0].message}")
        return resolution.accepted_plan()

    def run(self, case: Case) -> dict[str, Any]:
        """The row of a case."""
        changes = dict(case.changes)
        if "lora" in changes:
            adapter = random_pipelines.adapter(self.pipe.transformer, self.folder)
            changes["lora"] = [{"path": str(adapter), "scale": 1.0}]
        case = replace(case, changes=changes)
        plan = self.plan(case)
        started = time.perf_counter()
        for part in load._split(self.pipe, plan):  # whose shares are read from mapped files elsewhere
            part.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        ranks = mesh.build(plan, self.rank, case.limit)
        pipe = load.pipeline(plan)
        handles = apply.apply(pipe, plan, ranks)
        loaded = time.perf_counter() - started

        def ours(**arguments: Any) -> Any:
            return generate.call(pipe, plan, **arguments)

        given = generate.arguments(plan, self.rank)
        shots, against = [shoot(ours, given)], []
        for _ in range(PAIRS if case.name == "plain" else 1):
            given = generate.arguments(plan, self.rank)
            shots.append(shoot(ours, given))
            if case.name == "plain":
                plain = shoot(pipe, generate.arguments(plan, self.rank))
                against.append(shots[-1].step / plain.step)
        measured = {name: handle.measure() for name, handle in handles.items()}
        apply.undo(handles)
        if ranks is not None:
            torch.distributed.destroy_process_group()
        return self._row(case, shots[1:], against, measured, loaded)

    def _row(
        self, case: Case, shots: list[Shot], against: list[float], measured: dict[str, Any], loaded: float
    ) -> dict[str, Any]:
        shot, reference = shots[-1], self.reference
        row: dict[str, Any] = {
            "step": statistics.median(one.step for one in shots),
            "seconds": statistics.median(one.seconds for one in shots),
            "gib": shot.gib,
            "apply": loaded,
            "features": measured,
        }
        row["against"] = statistics.median(against) if against else row["step"] / reference.step
        row["gib_against"] = shot.gib / reference.gib if reference.gib else None
        if shot.latents.shape == reference.latents.shape:
            row["psnr"] = psnr(shot.latents, reference.latents)
        row["estimated_gib"] = self.estimated_gib(case)
        row["estimated_seconds"] = sum(seconds(self.quantities(case), self.gpu).values()) if self.gpu else None
        return row

    def quantities(self, case: Case) -> Quantities:
        """What the estimate asks of a case's config."""
        resolution = resolved(self.model, case, self.folder, tiny=self.tiny)
        return resolution.target.quantities(resolution.settings)

    def estimated_gib(self, case: Case) -> float:
        """The estimated peak of the allocator."""
        q = self.quantities(case)
        return memory_of(q, q["work"], q["decoder"], {**efficiencies(), **_NOT_COUNTED}).peak


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of latents, in dB of their range; 200 where they are the same."""
    error = float(((one - other) ** 2).mean())
    span = float(other.max() - other.min())
    return 200.0 if error == 0 else min(200.0, float(10 * torch.log10(torch.tensor(span**2 / error))))


def main(model: str, rows: str, tiny: str, *names: str) -> None:
    """Run the named cases of a pipeline, up to one that is the last of its process."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    table = OF_ONE_GPU[model] if ranks == 1 else of_several_gpus(model, ranks)
    file = Path(rows).open("a") if int(os.environ.get("RANK", "0")) == 0 else None  # noqa: SIM115

    def tell(**words: Any) -> None:
        if file is not None:
            file.write(json.dumps(words) + "\n")
            file.flush()

    with TemporaryDirectory(prefix="omni-gpu-") as folder:
        try:
            bench = Bench(model, Path(folder), tiny=tiny == "tiny")
        except CannotRunError as error:
            for name in names:
                tell(end=name, cannot=str(error))
            return
        for case in table:
            if case.name not in names:
                continue
            tell(begin=case.name)
            try:
                tell(end=case.name, **bench.run(case))
            except (CannotRunError, ImportError) as error:
                tell(end=case.name, cannot=str(error).splitlines()[0])
            except Exception as error:
                tell(end=case.name, error=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
                raise  # what it has left switched on would be in the next case
            if case.last:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
