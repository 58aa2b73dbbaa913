"""Flags that several engines read alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni_config.engines.formats.draft import Draft, plain
from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import Text
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode


def lora_path(draft: Draft, word: Word, span: Span) -> None:
    """One adapter; of several flags the last one."""
    node = YamlNode({"path": word.value}, span, children={"path": YamlNode(word.value, span)})
    draft.root.value["lora"] = [node.value]
    draft.root.children["lora"] = YamlNode([node.value], span, children={0: node})


@dataclass(frozen=True, slots=True)
class Torchrun:
    """The processes that torchrun starts on each of some machines, and where its command says so."""

    each: int
    nodes: int
    span: Span

    @property
    def processes(self) -> int:
        """All of them."""
        return self.each * self.nodes


def by_torchrun(launcher: Sequence[Word]) -> bool:
    """Whether a launcher's words are torchrun's."""
    names = {word.value.rpartition("/")[2] for word in launcher}
    return not names.isdisjoint(("torchrun", "torch.distributed.run", "torch.distributed.launch"))


def torchrun(launcher: Sequence[Word]) -> Torchrun | None:
    """What torchrun starts, where a launcher's words say the numbers."""
    said: dict[str, tuple[Word, Text | None]] = {}
    for at, word in enumerate(launcher):
        name, equals, _ = word.value.replace("_", "-").partition("=")
        following = launcher[at + 1].text if at + 1 < len(launcher) else None
        said[name] = (word, word.text[len(name) + 1 :] if equals else following)
    if "--nproc-per-node" not in said:
        return None
    flag, each = said["--nproc-per-node"]
    nodes = said["--nnodes"][1] if "--nnodes" in said else None
    if each is None or not each.value.isdigit() or not (nodes is None or nodes.value.isdigit()):
        return None
    return Torchrun(int(each.value), int(nodes.value) if nodes else 1, flag.text.span)


def guidance(draft: Draft, word: Word, span: Span) -> None:
    """``--guidance-scale``, once the model is known."""
    draft.later.append(lambda: draft.guidance(plain(word.value), span))
