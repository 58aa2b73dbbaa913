"""SGLang's perf dumps: what ``--perf-dump-path`` writes of one request, with the command that it was written for.

A dump says the model and its milliseconds, and nothing of sizes, steps or degrees (0.5.23,
multimodal_gen/runtime/utils/perf_logger.py:391, entrypoints/cli/generate.py:145). So the ``sglang generate`` that names
the dump must lie beside it, in a shell script; it is read as ``omni check`` reads it, with what SGLang chooses itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from statistics import median
from typing import Any

from omni_config.checking.document import ParsedDocument, judge
from omni_config.checking.files import read
from omni_config.rules.quantities import Quantities

FLAG = "--perf-dump-path"
#: With it, a stage and a step end when the GPU has done their work; without it, when they were launched
#: (perf_logger.py:297), so that a decoder is charged with the last steps.
SYNCHRONIZED = "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING"
_KEYS = {"request_id", "tag", "total_duration_ms", "steps", "denoise_steps_ms", "meta"}
_MOST = 1000  # scripts of a folder
_DECODING = "DecodingStage"


def is_perf_dump(values: Any) -> bool:
    """Whether JSON is a perf dump, by its keys."""
    return isinstance(values, dict) and values.keys() >= _KEYS


def measured(
    values: dict[str, Any], path: Path, folder: Path
) -> tuple[Quantities, float, float | None, tuple[str, ...]]:
    """What a dump's request computed, its seconds a step and of decoding, and what of it is not used.

    Seconds of decoding are None where the dump does not tell them from the last steps. The command stands in a ``.sh``
    file beside the dump or in a folder above it, up to ``folder``.

    Raises:
        ValueError: the dump has another form, no command is known, or it is one that cannot be estimated.
        OSError: a script cannot be read.
    """
    try:
        steps = [float(step["duration_ms"]) / 1000 for step in values["denoise_steps_ms"]]
        stages = {str(stage["name"]): float(stage["duration_ms"]) / 1000 for stage in values["steps"]}
        model, tag = str(values["meta"].get("model", "")), str(values["tag"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: a perf dump of SGLang of another form ({error!r})") from None
    if len(steps) < 2:
        raise ValueError(
            f"{path}: the dump has {len(steps)} denoising steps; the first one is no measure of the others"
        )
    document = _command(path, folder, tag)
    q = _quantities(document, path, model, len(steps))
    synchronized = _is_synchronized(document)
    decoding = [name for name in stages if name.endswith(_DECODING)]
    decode = stages[decoding[0]] if synchronized and len(decoding) == 1 else None
    return q, median(steps[1:]), decode, tuple(_unused(values, stages, decode is not None, synchronized))


def _unused(values: dict[str, Any], stages: dict[str, float], decodes: bool, synchronized: bool) -> Iterator[str]:
    others = [name for name in stages if not name.endswith(("DenoisingStage", *([_DECODING] if decodes else [])))]
    yield "the first step, which warms up"
    if others:
        yield f"the stages {', '.join(others)}"
    if not synchronized and any(name.endswith(_DECODING) for name in stages):
        yield f"(decoding would be, if its command had {SYNCHRONIZED}=1: without it the last steps end in that stage)"
    if values.get("memory_checkpoints"):
        yield "the memory"


def _command(path: Path, folder: Path, tag: str) -> ParsedDocument:
    """The one command that says that it writes this dump."""
    scripts = [script for place in _places(path, folder) for script in sorted(place.glob("*.sh"))]
    if len(scripts) > _MOST:
        raise ValueError(f"{path}: {len(scripts)} scripts beside it; at most {_MOST} are read")
    named = [
        (_said(document), document)
        for script in scripts
        if path.name in script.read_text(encoding="utf-8", errors="replace")
        for document in read(script)
    ]
    named = [(said, document) for said, document in named if said.name == path.name]
    if len(named) > 1:  # the same name in several folders
        named = [(said, document) for said, document in named if path.resolve().parts[-len(said.parts) :] == said.parts]
    if len(named) != 1:
        count = f"{len(named)} commands" if named else "no command"
        server = ", and one of a server says nothing of its request" if tag == "server_perf_dump" and not named else ""
        raise ValueError(
            f"{path}: a perf dump says neither sizes nor degrees{server}, and {count} in a .sh file beside it"
            f" {'have' if named else 'has'} {FLAG} {path.name}; write the `sglang generate` that made it into one"
        )
    return named[0][1]


def _places(path: Path, folder: Path) -> Iterator[Path]:
    """The dump's folder and those above it, as far as the one that was asked for."""
    yield path.parent
    for parent in path.parent.parents:
        if parent != folder and folder not in parent.parents:
            return
        yield parent


def _said(document: ParsedDocument) -> PurePath:
    """Where a document's command writes its dump; empty where it writes none, or only a run knows."""
    option = document.options.get("perf_dump_path")
    return PurePath(option.value if option is not None and isinstance(option.value, str) else "")


def _quantities(document: ParsedDocument, path: Path, model: str, steps: int) -> Quantities:
    """The quantities of the command, which must be of the same model and number of steps as the dump."""
    checked = judge(document)
    where = f"{path}: its command, {document.source.name}:{document.lines.start}"
    errors = [finding for finding in checked.findings if finding.severity == "error"]
    if document.unknown or document.says_more:
        raise ValueError(
            f"{where}, has what only a run knows ({', '.join(sorted(document.unknown)) or 'further flags'})"
        )
    if errors:
        raise ValueError(f"{where}: {errors[0].code} {errors[0].message}")
    if checked.resolution is None or not checked.resolution.card.sources:
        raise ValueError(f"{where}, is of a model without a card here")
    settings = checked.resolution.settings
    if model and model.rstrip("/") not in (str(settings["model"]).rstrip("/"), str(settings.get("their_model_path"))):
        raise ValueError(f"{where}, is of {settings['model']}, and the dump of {model}")
    if (settings.get("their_prompt_count") or 1) > 1:
        raise ValueError(f"{where}, has several prompts, and the dump is of the first one alone")
    q = checked.resolution.target.quantities(settings)
    if q["cache_dit"] or q["tea_cache"]:
        raise ValueError(f"{where}, has a cache; how many steps it reuses is the prompt's affair")
    if q["num_inference_steps"] != steps:
        raise ValueError(f"{where}, makes {q['num_inference_steps']} steps, and the dump has {steps}")
    return q


def _is_synchronized(document: ParsedDocument) -> bool:
    command = document.draft.command if document.draft is not None else None
    word = command.environment.get(SYNCHRONIZED) if command is not None else None
    return word is not None and word.value == "1"
