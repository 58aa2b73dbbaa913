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
    """The processes that torchrun starts on all machines, where a launcher's words say a number, and where."""
    said: dict[str, tuple[str, Span]] = {}
    for at, word in enumerate(launcher):
        name, equals, _ = word.value.replace("_", "-").partition("=")
        if name in ("--nproc-per-node", "--nnodes"):
            given = word.text[len(name) + 1 :] if equals else launcher[at + 1].text if at + 1 < len(launcher) else None
            said[name] = (given.value if given is not None else "", word.text.span)
    (each, span), (machines, _) = (said.get(name, ("1", None)) for name in ("--nproc-per-node", "--nnodes"))
    return (int(each) * int(machines), span) if span and each.isdigit() and machines.isdigit() else None


def guidance(draft: Draft, word: Word, span: Span) -> None:
    """``--guidance-scale``, once the model is known."""
    draft.later.append(lambda: draft.guidance(plain(word.value), span))
