"""Loads the pipeline of a Plan: safetensors only, no remote code.

Files are mapped as they are, which reads nothing. What no feature splits is then moved to the rank's device, one weight
at a time; on a CPU it stays mapped, so that the ranks of a machine share it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_config.plan import EMBEDDED, Model, Plan
from runtime import models, weights
from runtime.errors import CannotRunError
from runtime.features import hsdp, quantization, tensor_parallel, text_encoder_parallel

if TYPE_CHECKING:
    import torch

#: Of the embedded models, by name.
FOLDERS = {name: Path(__file__).parents[1] / folder for name, folder in EMBEDDED.items()}
_kept: dict[Model, Any] = {}


def pipeline(plan: Plan) -> Any:
    """The pipeline, with its progress bars off, on this rank's device if nothing is offloaded.

    Models that a feature will split or quantize wait on the CPU, in the precision of their files.

    Raises:
        CannotRunError: no such folder, the hub cannot be reached, or the checkpoint is damaged or of another class.
    """
    import torch

    from runtime.device import device

    pipe = _kept.get(plan.model) or _load(plan)
    gc.enable()  # a rank does without it until here
    split, dtype, cpu = _split(pipe, plan), getattr(torch, plan.model.dtype), torch.device("cpu")
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module) and part not in split:
            weights.place(part, device() if plan.offload == "none" else cpu, dtype)  # offload moves things by itself
    for part in split:
        if plan.lora and part.dtype not in (dtype, torch.float32):  # to which peft would round the adapters
            weights.place(part, cpu, dtype)
    return pipe


def keep(plans: Sequence[Plan]) -> None:
    """Load the models that several Plans have, for processes that fork: each finds them in its own memory.

    Without a GPU only, as what is there does not survive a fork. A model that cannot be loaded is left to its Plans.
    """
    import torch

    if torch.cuda.is_available():
        return
    torch.set_num_threads(1)  # others would be missing in the forks, which would wait for them
    for plan in plans:
        if plan.model not in _kept and sum(plan.model == other.model for other in plans) > 2:
            with suppress(Exception):
                _kept[plan.model] = _load(plan)


def _split(pipe: Any, plan: Plan) -> list[Any]:
    """The models that features of the Plan read by themselves: this rank's share, or a layer at a time."""
    split = quantization.models_of(pipe, plan)
    if tensor_parallel.wanted(plan) or hsdp.wanted(plan):
        split += models.transformers(pipe)
    return [*split, text_encoder_parallel.encoder_of(pipe)] if text_encoder_parallel.wanted(plan) else split


def _load(plan: Plan) -> Any:
    source = str(FOLDERS.get(plan.model.source, plan.model.source))
    found, wanted = _class_name(source), plan.model.pipeline
    if found != wanted:
        raise CannotRunError(f"{source} holds a {found}, and the model card of {plan.model.id} says {wanted}")

    import diffusers
    import torch

    from runtime import compat

    if not hasattr(diffusers, wanted):
        raise CannotRunError(f"diffusers {diffusers.__version__} has no {wanted}; install a version that has")
    diffusers.utils.logging.disable_progress_bar()
    if wanted.startswith("QwenImage"):
        compat.diffusers.processor_without_video()
    try:
        folder = source if Path(source).is_dir() else diffusers.DiffusionPipeline.download(source, use_safetensors=True)
        stored = {path.name: one for path in Path(folder).iterdir() if (one := _stored(path))}
        dtypes: dict[str, Any] = {**stored, "default": getattr(torch, plan.model.dtype)}
        pipe = getattr(diffusers, wanted).from_pretrained(folder, dtype=dtypes, use_safetensors=True)
    except Exception as error:
        if damage := _damage(source):  # the libraries often do not say which file it was, or what is wrong with it
            raise CannotRunError(f"{damage}; next: make it readable, or download it again") from error
        raise
    pipe.set_progress_bar_config(disable=True)
    if wanted in models.of(pipe).without_contexts:
        compat.diffusers.name_branches(pipe)
    return pipe


def _stored(folder: Path) -> torch.dtype | None:
    """The precision of all weights of a component; None where there are several, or none that pipelines compute in."""
    import torch

    found = set()
    for path in folder.glob("*.safetensors"):
        if "." not in path.stem:  # a variant, as fp16, is not loaded
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            found |= {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    known = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    floats = [name for name in found if name.startswith(("F", "BF"))]
    return known.get(floats[0]) if len(floats) == 1 else None


def _class_name(source: str) -> str:
    """The class that ``model_index.json`` names, downloaded if it must be."""
    if source.startswith(("/", ".", "~")) or source.count("/") != 1 or Path(source).is_dir():
        try:
            return str(json.loads(Path(source, "model_index.json").read_text(encoding="utf-8"))["_class_name"])
        except (OSError, ValueError, KeyError) as error:
            raise CannotRunError(f"{source} is not a diffusers folder (no model_index.json); check `model`") from error

    from diffusers import DiffusionPipeline

    try:
        return str(DiffusionPipeline.load_config(source)["_class_name"])
    except OSError as error:
        raise CannotRunError(
            f"{source} is no local folder, and the hub could not give it (offline, misspelt, or gated); "
            f"download it elsewhere and name its folder as `model`"
        ) from error


def _damage(source: str) -> str | None:
    """The first file of a checkpoint that cannot be read, and why; None where each can."""
    from safetensors import SafetensorError, safe_open

    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(source, local_files_only=True))
        except FileNotFoundError:
            return None  # nothing of it is here, and the first error says why
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_symlink() and not path.exists():
                return f"{path} links to a file that is not there"
            if path.suffix == ".safetensors":
                with safe_open(path, "numpy"):
                    pass
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, SafetensorError) as error:
            why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
            return f"{path} is truncated, damaged or unreadable: {why}"
    return None
