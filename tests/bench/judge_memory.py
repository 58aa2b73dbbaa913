"""The memory estimate held against launches of the built-in runtime on this machine's CPU.

    python tests/bench/judge_memory.py

A Z-Image of random weights, of 480 MB in float32, is launched under small plans. Measured is the resident set of the
rank that has most (``peak_memory`` of report.json), less that of the embedded ``tiny`` under the same plan: libraries,
and what a process needs of itself. No number of the estimate was set from it. It takes a few minutes on two cores, and
busy ones change nothing.

glibc keeps what was freed where it thinks that it will be needed again: its threshold for maps of their own grows with
what is freed. That is not the plan's, and a fixed threshold gives it back. A resident set also has the pages of mapped
files that were read: of a quantized transformer those of the file that it was quantized from, as its norms stay mapped.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from launched import launch  # noqa: E402

from omni_config.cards import ModelCard  # noqa: E402
from omni_config.catalog.checkpoint import describe  # noqa: E402
from omni_config.catalog.load import catalog  # noqa: E402
from omni_config.estimate.data import Decoder, decoders, efficiencies  # noqa: E402
from omni_config.estimate.memory import GIB, Memory, memory_of  # noqa: E402
from omni_config.plan import Plan  # noqa: E402
from omni_config.planner.runs import quantities_with  # noqa: E402

#: A GPU's own memory and NCCL's buffers, and fragments of PyTorch's allocator for GPUs.
_NOT_HERE = {"context": 0.0, "communicator": 0.0, "fragments": 0.0}
_RETURNED = {"MALLOC_MMAP_THRESHOLD_": "1048576"}
VALUES = 192.3  # that are live at once for a pixel of the decoder
_TEXT_TOKENS = 64  # a token a byte, with the template's, padded to 32


@dataclass(frozen=True)
class Wanted:
    """A plan to launch: its name, the sides of its image in pixels, and sections of its config."""

    name: str
    pixels: int = 256
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    adapted: bool = False


_TENSOR = {"tensor_parallel_size": 2}
PLANS = [
    Wanted("one rank"),
    Wanted("one rank", 512),
    Wanted("tiles", 768, {"vae": {"vae_use_tiling": True}}),
    Wanted("batch of 4", sections={"sampling": {"num_images_per_prompt": 4}}),
    Wanted("LoRA", adapted=True),
    Wanted("Ulysses 2", 512, {"parallel": {"ulysses_degree": 2}}),
    Wanted("TP 2", sections={"parallel": _TENSOR}),
    Wanted("TP 2, text encoder, too", 512, sections={"parallel": _TENSOR | {"text_encoder_tensor_parallel": True}}),
    Wanted("TP 2, LoRA", sections={"parallel": _TENSOR}, adapted=True),
    Wanted("HSDP 2", sections={"parallel": {"ulysses_degree": 2, "use_hsdp": True}}),
    Wanted("int8_weight_only", sections={"execution": {"quantization": "int8_weight_only"}}),
]


@dataclass(frozen=True)
class Row:
    """A launch: MiB of its process and of libraries, and the estimate."""

    name: str
    process: float
    libraries: float
    memory: Memory

    @property
    def measured(self) -> float:
        """MiB that are the plan's."""
        return self.process - self.libraries

    @property
    def estimated(self) -> float:
        """MiB by the estimate."""
        return 1024 * self.memory.peak

    @property
    def error(self) -> float:
        """Relative error of the estimate; negative where it is too low."""
        return self.estimated / self.measured - 1


def estimated(plan: Plan, card: ModelCard) -> Memory:
    """What a plan needs of this machine, of the model that is built here."""
    q = quantities_with(card, plan)
    memory = memory_of(q, q["work"], decoder(), {**efficiencies(), **_NOT_HERE})
    if plan.quantization is None:
        return memory
    pages = card.dims["transformer_parameters"] * 1e6 * q["bytes_per_value"] / GIB
    return replace(memory, resident=memory.resident | {"pages of the transformer's file": pages})


def decoder() -> Decoder:
    """The decoder that is built here: the published one with a quarter of its channels.

    Its values are counted as those of estimate/vaes.yaml, but for the workspace of convolutions, which is cuDNN's.
    """
    whole = decoders()["AutoencoderKL"]
    return replace(whole, parameters=whole.parameters / 16, values=VALUES, tile=256, stride=192)


def card_of(folder: Path) -> ModelCard:
    """The card of the model, by its own files."""
    card = describe(folder, catalog(), {}).card
    return replace(card, dims={**card.dims, "text_tokens": _TEXT_TOKENS})


def main(plans: Sequence[Wanted] = PLANS) -> None:
    """Build, launch, estimate and print.

    Raises:
        subprocess.CalledProcessError: a command failed; what it said is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="omni-judge-") as place:
        folder = Path(place)
        _build(folder)
        card, rows = card_of(folder / "model"), []
        print(_HEAD, flush=True)
        for one in plans:
            process, plan = _peak(one, folder, "large")
            libraries, _ = _peak(one, folder, "tiny")
            rows.append(Row(f"{one.name}, {one.pixels} px", process, libraries, estimated(plan, card)))
            print(line(rows[-1]), flush=True)
        print(f"\n{len(rows)} rows: {summary(rows)}")


_HEAD = (
    "| plan | process | libraries | measured | estimated | error | at its most |\n|---|---:|---:|---:|---:|---:|---|"
)


def line(row: Row) -> str:
    """A row of the table, in MiB."""
    numbers = (row.process, row.libraries, row.measured, row.estimated)
    cells = " | ".join(f"{number:.0f}" for number in numbers)
    return f"| {row.name} | {cells} | {row.error:+.1%} | {row.memory.largest_phase} |"


def summary(rows: Sequence[Row]) -> str:
    """The median and the largest error, and how many rows are within 15 %."""
    errors = [abs(row.error) for row in rows]
    within = sum(error <= 0.15 for error in errors)
    return f"median error {median(errors):.1%}, largest {max(errors):.1%}, {within} within 15 %."


def _build(folder: Path) -> None:
    """The model, and an adapter for it and for ``tiny``."""
    from large import VAE, z_image

    from runtime.proof.random_pipelines import adapter, transformer_of

    z_image(folder / "model", width=1024, layers=4, text_width=768, text_layers=4, vae=VAE)
    for name, source in (("large", str(folder / "model")), ("tiny", "tiny")):
        (folder / name).mkdir()
        adapter(transformer_of(source), folder / name, rank=64)


def _peak(one: Wanted, folder: Path, model: str) -> tuple[float, Plan]:
    """MiB of the rank that needs most, and the Plan."""
    config: dict[str, Any] = {
        "version": 1,
        "model": str(folder / "model") if model == "large" else model,
        "execution": {"dtype": "float32"},
        "sampling": {
            "prompt": "a red star on a white background",
            "width": one.pixels if model == "large" else 64,
            "height": one.pixels if model == "large" else 64,
            "num_inference_steps": 2,
            "cfg_scale": 0.0,
        },
        "output": str(folder / "out"),
    }
    for name, section in one.sections.items():
        config[name] = config.get(name, {}) | section
    if one.adapted:
        config["lora"] = [{"path": str(folder / model / "lora-0.safetensors"), "scale": 1.0}]
    report = json.loads(launch(config, folder / "config.yaml", **_RETURNED).read_bytes())
    return max(report["peak_memory"]), Plan.from_json(json.dumps(report["plan"]))


if __name__ == "__main__":
    main()
