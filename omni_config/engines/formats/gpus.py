"""The GPUs that a deployment itself says: of its container, its job, its variables. They are held against what its
engine takes by the rules of the hardware, which ask for them as ``given_gpus``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from omni_config.catalog.load import catalog
from omni_config.engines.formats.given import Given, Gpus
from omni_config.findings import Severity, Span
from omni_config.reading.nodes import YamlNode

if TYPE_CHECKING:
    from omni_config.engines.formats.draft import Draft
    from omni_config.engines.formats.shell import Word
    from omni_config.engines.formats.text import Text

#: Resources of Kubernetes that are whole GPUs or NPUs.
_DEVICE = re.compile(r"(nvidia|amd)\.com/gpu|huawei\.com/Ascend910\w*|gpu\.intel\.com/(i915|xe)")
#: Variables that show a process some of the devices.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")
_SLURM = re.compile(r"^#SBATCH[ \t]+(.*)$", re.MULTILINE)
_OPTION = re.compile(r"(--[a-z-]+|-[NGn])(?:[= \t]+|(?<=-[NGn]))([^\s#]+)")
_SHOWN = re.compile(
    r"""^[ \t]*os\.environ(?:\[|\.setdefault\()["']CUDA_VISIBLE_DEVICES["'](?:\]\s*=|,)\s*["']([\d, ]+)["']""",
    re.MULTILINE,
)
_ACTOR = re.compile(
    r"""^@(?:\w+\.)*(?:remote|deployment)\((?:[^()]|\([^()]*\))*?["']?num_gpus["']?\s*[=:]\s*([1-9]\d*)\b(?!\.)""",
    re.MULTILINE,
)
_SHORT = {"-N": "--nodes", "-G": "--gpus", "-n": "--ntasks"}


def of_resources(resources: YamlNode, nodes: int = 1, plain: bool = False) -> tuple[Gpus, ...]:
    """Of a container of Kubernetes: its limits, and requests that say another number. ``plain``: Dynamo's ``gpu``."""
    found: list[Gpus] = []
    for part in ("limits", "requests"):
        section = resources.children.get(part)
        for key, node in section.children.items() if section is not None else ():
            named = _DEVICE.fullmatch(str(key)) or (plain and key == "gpu")
            if named and (count := _number(node.value)) is not None and count not in [one.count for one in found]:
                found.append(Gpus(count, f"{key}: {count}", node.span, nodes))
    return tuple(found)


def of_accelerators(resources: YamlNode, nodes: int = 1) -> tuple[Gpus, ...]:
    """Of a task of SkyPilot: ``accelerators: H100:8``."""
    node = resources.children.get("accelerators")
    said = node.value if node is not None else None
    if isinstance(said, dict) and len(said) == 1:
        said = ":".join(str(part) for part in next(iter(said.items())))
    if node is None or not isinstance(said, str) or (match := re.fullmatch(r"[\w.-]+?(?::(\d+))?", said)) is None:
        return ()
    return (Gpus(int(match[1] or 1), f"accelerators: {said}", node.span, nodes),)


def of_service(service: YamlNode) -> tuple[Gpus, ...]:
    """Of a service of compose: ``gpus``, or the devices that it reserves."""
    reserved = service.find(("deploy", "resources", "reservations", "devices"))
    found: list[Gpus] = []
    for devices in (service.children.get("gpus"), reserved):
        for device in devices.children.values() if devices is not None else ():
            if not isinstance(device.value, dict) or not _is_gpu(device.value):
                continue
            ids, count = device.children.get("device_ids"), device.children.get("count")
            if ids is not None and isinstance(ids.value, list):
                found.append(Gpus(len(ids.value), f"device_ids of {len(ids.value)}", ids.key_span or ids.span))
            if count is not None and (number := _number(count.value)) is not None:
                found.append(Gpus(number, f"count: {number}", count.span))
    return tuple(found)


def _is_gpu(device: Mapping[str, Any]) -> bool:
    said = device.get("capabilities")
    listed = said if isinstance(said, list) else []
    return "capabilities" not in device or any("gpu" in (one if isinstance(one, list) else [one]) for one in listed)


def of_docker(word: Word) -> tuple[Gpus, ...]:
    """Of ``docker run --gpus``: a number, or a list of devices, as Docker takes its CSV apart."""
    import csv

    found = []
    for one in next(csv.reader([word.value]), []):
        name, equals, value = one.partition("=")
        if name == "device":
            found.append(Gpus(len(value.split(",")), f"--gpus {word.value}", word.text.span))
        elif (number := _number(value if name == "count" else name if not equals else None)) is not None:
            found.append(Gpus(number, f"--gpus {number}", word.text.span))
    return tuple(found)


def of_slurm(options: Iterable[tuple[str, str, Span]], around: tuple[Gpus, ...] = ()) -> tuple[Gpus, ...]:
    """Of a job, or a step of one, by the options of sbatch and srun; ``around``: those of the job of a step."""
    said = {name: (value, span) for name, value, span in options}
    nodes = _number(said["--nodes"][0]) if "--nodes" in said else around[0].nodes if around else 1
    if nodes is None:
        return ()
    found = []
    for name, (value, span) in said.items():
        count = None
        if name == "--gpus-per-node":
            count = _number(value.rpartition(":")[2])
        elif name == "--gres" and (match := re.search(r"\bgpu(?::[a-zA-Z][\w.-]*)?(?::(\d+))?(?=,|$|\()", value)):
            count = int(match[1] or 1)
        elif name == "--gpus" and (total := _number(value.rpartition(":")[2])) is not None:
            count = None if total % nodes else total // nodes
        elif name == "--gpus-per-task":
            tasks = said.get("--ntasks-per-node")
            each, number = _number(value.rpartition(":")[2]), _number(tasks[0] if tasks else "1")
            count = each * number if each and number else None
        if count is not None:
            found.append(Gpus(count, f"{name}={value}", span, nodes, numbered=False))
    return tuple(found) or around


def of_job(text: str, place: Any) -> tuple[Gpus, ...]:
    """Of a script for sbatch, by its ``#SBATCH`` lines; ``place`` makes a span of two offsets."""
    options = []
    for line in _SLURM.finditer(text):
        for option in _OPTION.finditer(line[1]):
            start = line.start(1) + option.start()
            name = _SHORT.get(option[1], option[1])
            options.append((name, option[2], place(start, start + len(option[0]))))
    return of_slurm(options) if options else ()


def of_python(text: Text) -> tuple[tuple[Gpus, ...], dict[str, Word]]:
    """Of a script that makes one deployment: what its Ray actor asks for, and the devices that it shows itself."""
    from omni_config.engines.formats.shell import Word

    actors = list(_ACTOR.finditer(text.value)) if "distributed_executor_backend" not in text.value else []
    shown = {match[1]: match for match in _SHOWN.finditer(text.value)}
    gpus: tuple[Gpus, ...] = ()
    variables: dict[str, Word] = {}
    if len(actors) == 1:
        count = text[actors[0].start(1) : actors[0].end(1)]
        gpus = (Gpus(int(count.value), f"num_gpus {count.value}", count.span, numbered=False),)
    if len(shown) == 1:
        (match,) = shown.values()
        variables["CUDA_VISIBLE_DEVICES"] = Word(text[match.start(1) : match.end(1)])
    return gpus, variables


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and value.isdigit() else None


def visible(environment: Mapping[str, Word]) -> Iterator[tuple[str, Word, list[str]]]:
    """The variables that show some devices, with their entries. One that shows none on purpose is left alone."""
    for name in _VISIBLE:
        word = environment.get(name)
        if word is not None and not word.unknown:
            entries = [entry.strip() for entry in word.value.split(",") if entry.strip()]
            if entries and entries[0] != "-1":
                yield name, word, entries


def give(drafts: list[tuple[Draft, tuple[Gpus, ...], Mapping[str, Word]]]) -> None:
    """Tell each deployment of a file what it is given; GPUs that several of them share are spare for none."""
    users = [one for _, gpus, _ in drafts for one in gpus]
    for draft, gpus, environment in drafts:
        draft.given = _given(draft, gpus, environment, any(users.count(one) > 1 for one in gpus))


def _given(draft: Draft, gpus: tuple[Gpus, ...], environment: Mapping[str, Word], shared: bool) -> Given | None:
    first = gpus[0] if gpus else _exposed(draft, environment)
    other = next((one for one in gpus if first is not None and one.total != first.total), None)
    if len(gpus) > 1 and gpus[0].span == gpus[1].span:
        message = f"Docker takes {gpus[0].words} apart at the comma, and refuses a list together with a count"
        next_step = "quote the list twice: --gpus '\"device=0,1\"'"
        draft.note("OMNI812", message, gpus[0].span, next_step=next_step)
        return None
    if first is not None and other is not None:
        refused = "; it is refused" if first.numbered else ""  # by Kubernetes and compose
        message = f"{first.words} and {other.words} do not agree{refused}"
        _disagree(draft, first, other, message, "error" if refused else "warning")
        return None
    for name, word, entries in visible(environment):
        seen = Gpus(len(entries), f"{name}={','.join(entries)}", word.text.span, first.nodes if first else 1)
        if first is None:
            return Given(seen, shared=False)
        there = list(takewhile(lambda entry: not entry.isdigit() or int(entry) < first.count, entries))
        if not first.numbered:
            there = entries
            if len(there) > first.count:
                _disagree(draft, seen, first, f"{seen.words} shows more than the {first.count} of {first.words}")
                return None
        if len(there) < len(entries):
            says = f"{first.words} gives {_gpus(first.count)}, numbered from 0, and {seen.words} names GPU"
            message = f"{says} {entries[len(there)]}: what stands there and behind it is not seen"
            _disagree(draft, seen, first, message, "warning" if there else "error")
            return Given(replace(seen, count=len(there)), shared=True) if there else None
        if len(there) < first.count and not shared:
            _disagree(draft, seen, first, f"{seen.words} shows {len(there)} of the {first.count} of {first.words}")
        return Given(seen, shared=True)
    return Given(first, shared) if first is not None else None


def _exposed(draft: Draft, environment: Mapping[str, Word]) -> Gpus | None:
    """The devices that NVIDIA's runtime gives a container by a variable, where nothing else gives it any."""
    word = environment.get("NVIDIA_VISIBLE_DEVICES") if draft.image else None
    if word is None or word.unknown or not re.fullmatch(r"(?:\d+|GPU-[\w-]+)(?:,(?:\d+|GPU-[\w-]+))*", word.value):
        return None
    return Gpus(word.value.count(",") + 1, f"NVIDIA_VISIBLE_DEVICES={word.value}", word.text.span)


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _disagree(draft: Draft, one: Gpus, other: Gpus, message: str, severity: Severity = "warning") -> None:
    draft.note("OMNI812", message, one.span, severity, related=(other.span,))


#: Quantities of the rules, which are none of an engine's own settings, whatever a file calls its keys.
_PUT = ("given_gpus", "given_by", "given_to_others", "used_gpus")


def put(draft: Draft) -> None:
    """The GPUs that are given as quantities that rules ask for, where the ranks are known that they are for."""
    for name in _PUT:
        draft.options.pop(name, None)
    given = draft.given
    if given is None or draft.says_more or not draft.get("engine"):
        return
    card = catalog().model(str(draft.get("model"))) if draft.has("model") else None
    if draft.staged and card is None and not draft.pipeline and draft.has("tensor_parallel_size"):
        return  # it may be a language model, and the size one of its stages
    others = bool(draft.staged) and (card is None or card.family.lower().startswith(draft.staged))
    place = given.gpus.span
    values = (given.gpus.count * max(given.gpus.nodes, draft.nodes), given.gpus.words, given.shared or others)
    draft.options |= {name: YamlNode(value, place) for name, value in zip(_PUT, values, strict=False)}
    if draft.used is not None:
        draft.options["used_gpus"] = draft.used
