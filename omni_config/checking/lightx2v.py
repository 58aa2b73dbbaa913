"""LightX2V: its JSON files, known by their keys, and the commands that start it with one.

It is no engine that is read here: of it are judged the parallel sizes, the caches and the offload
(ModelTC/LightX2V@f8aee98).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath

from omni_config.engines.formats.common import torchrun
from omni_config.engines.formats.shell import commands
from omni_config.engines.formats.text import File
from omni_config.findings import Finding, Source, Span
from omni_config.reading.nodes import Unreadable, YamlNode, decode, parse

#: Keys of its files, of which each has several.
_KEYS = {
    "infer_steps",
    "target_video_length",
    "target_height",
    "target_width",
    "self_attn_1_type",
    "cross_attn_1_type",
    "self_attn_type",
    "sample_guide_scale",
    "sample_shift",
    "enable_cfg",
    "feature_caching",
    "offload_granularity",
    "seq_p_size",
}
_SIZES = ("tensor_p_size", "cfg_p_size", "seq_p_size")
#: The caches that one of its models has (models/networks/*/model.py, models/runners).
_CACHES = ("NoCaching", "None", "Tea", "TaylorSeer", "Ada", "Custom", "FirstBlock", "DualBlock", "DynamicBlock", "Mag")


def is_config(node: YamlNode) -> bool:
    """Whether a mapping is one of its files."""
    return isinstance(node.value, dict) and len(_KEYS.intersection(node.value)) >= 3


def of_config(node: YamlNode) -> list[Finding]:
    """What it refuses in a file, or drops silently, and what the sizes make."""
    first = next(iter(node.children.values()))
    world = prod(_sizes(node).values())
    started = f"its sizes make {world} processes, which must be those that are started" if world > 1 else "one process"
    message = f"a config of LightX2V, of which the parallel sizes, caches and offload are judged: {started}"
    return [*_refused(node), *_dropped(node), Finding("OMNI605", message, "advice", span=_place(first))]


def of_script(source: Source) -> list[Finding]:
    """Its commands in a script: each with the file that it names, where that is at hand, and its processes."""
    found = []
    for command in commands(File(source).text):
        words = [word.value for word in command.words]
        at = next((at for at, word in enumerate(words) if _is_entry(word)), None)
        if at is None:
            continue
        place = command.words[at].text.span
        file, config = _config_of(words, source)
        found.append(
            Finding(
                "OMNI605", f"a command of LightX2V, of which only {file or 'its file'} is judged", "advice", span=place
            )
        )
        started = torchrun(command.words[:at])
        world = prod(_sizes(config).values()) if config is not None else 1
        if config is not None and started and started.processes != world and config.value.get("parallel"):
            message = f"{started.processes} processes, but the sizes of {file} make {world}: LightX2V refuses them"
            found.append(Finding("OMNI641", message, span=started.span))
    return found


def _is_entry(word: str) -> bool:
    return word in ("lightx2v.infer", "lightx2v.server") or PurePosixPath(word).parts[-2:] == ("lightx2v", "infer.py")


def _config_of(words: list[str], source: Source) -> tuple[str, YamlNode | None]:
    """The name of the file behind ``--config_json``, and what is in it."""
    at = words.index("--config_json") + 1 if "--config_json" in words else len(words)
    if at >= len(words):
        return "", None
    name = words[at]
    for path in (Path(source.name).parent / name, Path(name)):
        if path.is_file():
            try:
                nodes = parse(decode(str(path), path.read_bytes()))
            except (Unreadable, OSError):
                return name, None
            return name, nodes[0] if nodes and isinstance(nodes[0].value, dict) else None
    return name, None


def _sizes(node: YamlNode) -> dict[str, int]:
    parallel = node.children.get("parallel")
    said = parallel.value if parallel is not None and isinstance(parallel.value, dict) else {}
    return {name: size for name in _SIZES if isinstance(size := said.get(name), int)}


def _refused(node: YamlNode) -> Iterator[Finding]:
    cache = node.children.get("feature_caching")
    if cache is not None and cache.value not in _CACHES:
        message = f"LightX2V has no feature_caching {cache.value}: one of {', '.join(_CACHES)}"
        yield Finding("OMNI641", message, span=cache.span)
    elif cache is not None and cache.value not in ("NoCaching", "None") and node.value.get("warmup") is True:
        yield Finding("OMNI641", "LightX2V refuses warmup with feature_caching", span=_place(node.children["warmup"]))


def _dropped(node: YamlNode) -> Iterator[Finding]:
    parallel = node.children.get("parallel")
    size = _sizes(node).get("cfg_p_size", 1)
    if size > 1 and parallel is not None and node.value.get("enable_cfg") is not True:
        message = f"cfg_p_size {size} is off, silently: LightX2V asks for enable_cfg, too"
        yield Finding("OMNI617", message, span=_place(parallel.children["cfg_p_size"]))
    granularity = node.children.get("offload_granularity")
    if granularity is not None and node.value.get("cpu_offload") is not True:
        message = "offload_granularity has no effect without cpu_offload"
        yield Finding("OMNI642", message, "warning", span=_place(granularity))


def _place(node: YamlNode) -> Span:
    return node.key_span or node.span
