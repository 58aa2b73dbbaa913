"""machine.yaml: the measured rates of a machine, which take the place of a GPU's datasheet in every estimate.

``omni calibrate machine`` writes such a file; one may be written by hand, too. What it does not hold is taken from the
datasheet of the GPU that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from omni_config.estimate.data import Gpu, gpus
from omni_config.estimate.measured import Collective, Measured, Rate
from omni_config.estimate.topology import Class, Topology
from omni_config.findings import Finding, Source, Span
from omni_config.reading.nodes import Unreadable, YamlNode, decode, parse

CODE = "OMNI815"
Dtype = Literal["float32", "bfloat16", "float16"]
BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
Kind = Literal["all-to-all", "ring", "all-reduce", "all-gather"]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
#: At worst, best guess and at best, of what is measured: another moment, and shapes between those measured.
SPREAD = (0.82, 1.0, 1.15)
#: Seconds of calling a block that stand in while they are measured: next to nothing.
CALLED = 1e-9


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Made(_Part):
    """When and by what the file was made, and threads that a rank of a CPU had."""

    date: str
    by: str
    versions: dict[str, str] = {}
    threads: Count | None = None


class MatmulRate(_Part):
    """One matrix product: rows x inputs times inputs x outputs."""

    dtype: Dtype
    rows: Count
    inputs: Count
    outputs: Count
    tflops: Positive


class AttentionRate(_Part):
    """Attention of so many tokens to as many, over all heads; ``backend`` as in execution.attention_backend."""

    dtype: Dtype
    backend: str = "native"
    tokens: Count
    heads: Count
    head_size: Count
    tflops: Positive


class NormRate(_Part):
    """A norm over activations of so many bytes: GB (10^9) a second, read and written."""

    bytes: Count
    bandwidth: Positive


class Exchange(_Part):
    """One kind of collective over so many ranks: seconds by the bytes that each rank brings, ascending."""

    kind: Kind
    ranks: Annotated[int, Field(ge=2)]
    bytes: Annotated[list[Count], Field(min_length=1)]
    seconds: Annotated[list[Positive], Field(min_length=1)]


class Machine(_Part):
    """The file. Bandwidths are GB (10^9) a second, links and host in one direction; rates are of one rank."""

    version: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    made: Made | None = None
    device: Literal["gpu", "cpu"] = "gpu"
    gpu: str | None = None
    processors: Count | None = None
    memory: Positive | None = None
    gpus_per_node: Count | None = None
    matmul: list[MatmulRate] = []
    attention: list[AttentionRate] = []
    norm: list[NormRate] = []
    links: dict[Class, Positive] = {}
    collectives: list[Exchange] = []
    host: Positive | None = None
    decode: Positive | None = None
    block: dict[Literal["alone", "ulysses", "ring", "tensor"], Positive] = {}
    step: Positive | None = None
    topology: str | None = None


def text_of(machine: Machine) -> str:
    """The text of a file, a line for each thing that was measured."""
    import yaml

    lines = []
    for name, value in machine.model_dump(exclude_defaults=True).items():
        if name == "topology":
            table = "".join(f"  {line}\n" for line in str(value).expandtabs().splitlines())
            lines.append(f"topology: |2\n{table}")
        elif isinstance(value, list):
            items = "".join(f"  - {_flow(item)}\n" for item in value)
            lines.append(f"{name}:\n{items}")
        else:
            lines.append(f"{name}: {_flow(value)}\n" if isinstance(value, dict) else yaml.safe_dump({name: value}))
    return "".join(lines)


def _flow(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)).rstrip("\n")


def machine_of(path: str | Path) -> Gpu:
    """The machine of a file, as a GPU whose measured rates take the place of its datasheet.

    Raises:
        Unreadable: it is no such file; the finding says where and why.
    """
    name = str(path)
    try:
        changed = Path(path).stat().st_mtime_ns
    except OSError as error:
        raise Unreadable(Finding(CODE, f"{name}: {(error.strerror or str(error)).lower()}")) from None
    return _read(name, changed)


@lru_cache(maxsize=8)
def _read(name: str, _changed: int) -> Gpu:
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise Unreadable(Finding(CODE, f"{name}: {(error.strerror or str(error)).lower()}")) from None
    nodes = parse(decode(name, data))
    if len(nodes) != 1:
        raise Unreadable(Finding(CODE, f"{name} holds {len(nodes)} documents; a machine is one"))
    node = nodes[0]
    if not isinstance(node.value, dict):
        raise _at(node, (), "a machine is a mapping of keys to values")
    try:
        machine = Machine.model_validate(node.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _at(node, first["loc"], _said(first)) from None
    return _gpu(machine, node)


def gpu_of(machine: Machine) -> Gpu:
    """A machine as a GPU whose measured rates take the place of its datasheet.

    Raises:
        Unreadable: it names an unknown GPU, or does not hold what no datasheet gives.
    """
    return _gpu(machine, YamlNode(None, Span(Source(machine.name, ""), 1, 1, 1)))


def _said(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key '{where}'"
    if error["type"] == "missing":
        return f"{where} is missing"
    message = str(error["msg"]).replace("Input should", "must")
    return f"{where}: {message[0].lower()}{message[1:]}"


def _at(node: YamlNode, path: tuple[Any, ...], message: str) -> Unreadable:
    """A fault of the file, at the place of a path in it or of what it stands in."""
    place, reached = node, True
    for part in path:
        reached = part in place.children
        if not reached:
            break
        place = place.children[part]
    span = place.span if reached or place.key_span is None else place.key_span
    if message.startswith("unknown key"):
        span = place.key_span or place.span
    return Unreadable(Finding(CODE, message, span=span))


def _gpu(machine: Machine, node: YamlNode) -> Gpu:
    """The GPU of a file that fits the schema.

    Raises:
        Unreadable: it names an unknown GPU, or does not hold what no datasheet gives.
    """
    if machine.gpu is not None and machine.gpu not in gpus():
        raise _at(node, ("gpu",), f"no data on GPU '{machine.gpu}'; known: {', '.join(gpus())}")
    for number, exchange in enumerate(machine.collectives):
        place = ("collectives", number, "bytes")
        if len(exchange.bytes) != len(exchange.seconds):
            raise _at(node, place, "bytes and seconds must be as many")
        if exchange.bytes != sorted(set(exchange.bytes)):
            raise _at(node, place, "bytes must ascend")
    try:
        topology = Topology.of(machine.topology) if machine.topology else None
    except ValueError as error:
        raise _at(node, ("topology",), f"topology: {error}") from None
    sheet = gpus()[machine.gpu] if machine.gpu else None
    missing = [] if sheet else list(_missing(machine))
    if missing:
        raise _at(node, (), f"{', '.join(missing)} missing, which no datasheet gives: add them, or name a gpu")
    sheet = sheet or _of_no_sheet(machine)
    gpus_per_node = machine.gpus_per_node or (len(topology.order) if topology else sheet.gpus_per_node)
    return replace(
        sheet,
        id=machine.name,
        title=machine.name,
        memory=machine.memory or sheet.memory,
        bandwidth=max((one.bandwidth for one in machine.norm), default=sheet.bandwidth),
        host=machine.host or sheet.host,
        gpus_per_node=gpus_per_node,
        source=f"machine.yaml of {machine.made.date}" if machine.made else "machine.yaml",
        measured=_measured(machine, topology),
        learned=dict(_learned(machine, sheet)),
    )


def _of_no_sheet(machine: Machine) -> Gpu:
    """A machine that is no known GPU: its own rates are its peaks, and there is nothing beside them."""
    bandwidth = max(one.bandwidth for one in machine.norm)
    return Gpu(
        id=machine.name,
        title=machine.name,
        architecture="measured",
        tflops=max(one.tflops * BYTES[one.dtype] / 2 for one in machine.matmul),
        memory=machine.memory or 0.0,
        bandwidth=bandwidth,
        link_kind="measured",
        link=max(machine.links.values(), default=bandwidth),
        host=bandwidth,
        gpus_per_node=1024 if machine.device == "cpu" else 8,
        source="",
    )


def _missing(machine: Machine) -> Iterator[str]:
    """What an estimate needs, and the file does not hold."""
    for name in ("memory", "matmul", "attention", "norm"):
        if not getattr(machine, name):
            yield name
    if not machine.links and not machine.collectives:
        yield "links"


def _learned(machine: Machine, sheet: Gpu) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Efficiencies by id, with their uncertainty: those of what was measured, and of what stands in for a datasheet."""
    worst, _, best = SPREAD
    if sheet.architecture == "measured":
        yield from ((name, SPREAD) for name in ("matmul_measured", "attention_measured", "measured"))
    if machine.norm:
        yield "memory", SPREAD
    if machine.host is not None:
        yield "host", SPREAD
    if "alone" in machine.block:
        alone = machine.block["alone"]
        yield "block", (alone / worst, alone, alone / best)
    if machine.decode is not None:
        size = max((BYTES[one.dtype] for one in machine.matmul), default=2)
        rate = machine.decode / (sheet.tflops * 2 / size)
        yield "decode", (rate * worst, rate, rate * best)


def _measured(machine: Machine, topology: Topology | None) -> Measured:
    matmul: dict[int, list[Rate]] = {}
    attention: dict[str, dict[int, list[Rate]]] = {}
    for product in machine.matmul:
        rates = matmul.setdefault(BYTES[product.dtype], [])
        rates.append(Rate((product.rows, product.inputs, product.outputs), product.tflops * 1e12))
    for scores in machine.attention:
        rates = attention.setdefault(scores.backend, {}).setdefault(BYTES[scores.dtype], [])
        rates.append(Rate((scores.tokens, scores.heads, scores.head_size), scores.tflops * 1e12))
    return Measured(
        matmul=matmul,
        attention=attention,
        norm=[Rate((one.bytes,), one.bandwidth * 1e9) for one in machine.norm],
        links={name: bandwidth * 1e9 for name, bandwidth in machine.links.items()},
        collectives=[
            Collective(one.kind, one.ranks, tuple(zip(map(float, one.bytes), one.seconds, strict=True)))
            for one in machine.collectives
        ],
        topology=topology,
        waits=machine.device == "cpu",
        processors=machine.processors,
        step=machine.step or 0.0,
        calling={str(axis): taken for axis, taken in machine.block.items()},
    )
