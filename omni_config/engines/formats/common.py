"""Flags that several engines read alike."""

from __future__ import annotations

from collections.abc import Sequence

from omni_config.engines.formats.draft import Draft, plain
from omni_config.engines.formats.shell import Word
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode


def lora_path(draft: Draft, word: Word, span: Span) -> None:
    """One adapter; of several flags the last one."""
    node = YamlNode({"path": word.value}, span, children={"path": YamlNode(word.value, span)})
    draft.root.value["lora"] = [node.value]
    draft.root.children["lora"] = YamlNode([node.value], span, children={0: node})


def torchrun_processes(launcher: Sequence[Word]) -> tuple[int, Span] | None:
    """The processes that torchrun starts, where a launcher's words say a number, and where."""
    for at, word in enumerate(launcher):
        name, equals, _ = word.value.replace("_", "-").partition("=")
        if name == "--nproc-per-node":
            given = word.text[len(name) + 1 :] if equals else launcher[at + 1].text if at + 1 < len(launcher) else None
            if given is not None and given.value.isdigit():
                return int(given.value), word.text.span
    return None


def guidance(draft: Draft, word: Word, span: Span) -> None:
    """``--guidance-scale``, once the model is known."""
    draft.later.append(lambda: draft.guidance(plain(word.value), span))
