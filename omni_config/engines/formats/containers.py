"""Commands in containers: Dockerfiles, compose files, Kubernetes manifests, and anything with a command in YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from omni_config.engines import Engine
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.shell import Command, Word, commands
from omni_config.engines.formats.text import File, Text, joined
from omni_config.findings import Source
from omni_config.reading.nodes import Unreadable, YamlNode, parse

_INSTRUCTION = re.compile(r"^[ \t]*(RUN|CMD|ENTRYPOINT)[ \t]+", re.IGNORECASE | re.MULTILINE)
_COMMENT = re.compile(r"(?<=\n)[ \t]*#.*\n")


def dockerfile(file: File) -> Iterator[Command]:
    """Commands of a Dockerfile; the arguments of CMD go to the last ENTRYPOINT in JSON form."""
    text = file.text
    entry: list[Word] = []
    for match in _INSTRUCTION.finditer(text.value):
        body = _without_comments(text[match.end() : _end(text.value, match.end())])
        words = _json_words(body, file) if body.value.lstrip().startswith("[") else None
        kind = match[1].upper()
        if words is None:
            yield from commands(body)
        elif kind == "ENTRYPOINT":
            entry = words
            yield from _run(words) if not _takes_arguments(text.value, match.end()) else ()
        else:
            yield from _run([*entry, *words] if kind == "CMD" else words)


def _without_comments(body: Text) -> Text:
    """An instruction without the lines of comments in it, which a continued one may have."""
    if not _COMMENT.search(body.value):
        return body
    parts, at = [], 0
    for match in _COMMENT.finditer(body.value):
        parts.append(body[at : match.start()])
        at = match.end()
    return joined([*parts, body[at:]], body.file)


def _takes_arguments(value: str, at: int) -> bool:
    return re.search(r"^[ \t]*CMD[ \t]+\[", value[at:], re.IGNORECASE | re.MULTILINE) is not None


def _end(value: str, start: int) -> int:
    """The end of an instruction: of its line, and of those that a backslash continues."""
    end = start
    while True:
        found = value.find("\n", end)
        if found < 0:
            return len(value)
        line = value[value.rfind("\n", 0, found) + 1 : found].rstrip()
        if not line.endswith("\\") and not line.lstrip().startswith("#"):
            return found
        end = found + 1


def _json_words(body: Text, file: File) -> list[Word] | None:
    """The words of ``["vllm", "serve"]``; None where it is not JSON."""
    flat = body.value.replace("\\\n", "  ")  # of the same length, so that the places stay
    try:
        nodes = parse(Source("", flat))
    except Unreadable:
        return None
    if not nodes or not isinstance(nodes[0].value, list):
        return None
    inner = File(Source("", flat))
    words = []
    for child in nodes[0].children.values():
        text = inner.scalar(child)
        item = (body.offsets[child.start], body.offsets[child.end - 1] + 1)
        words.append(Word(Text(text.value, [body.offsets[at] for at in text.offsets], file), item=item))
    return words


def manifest(node: YamlNode, file: File) -> Iterator[Command]:
    """Commands of every container in a YAML tree: ``entrypoint`` + ``command``, or ``command`` + ``args``."""
    if isinstance(node.value, dict):
        yield from _container(node, file)
    for child in node.children.values():
        yield from manifest(child, file)


def _container(node: YamlNode, file: File) -> Iterator[Command]:
    said = {key: node.children[key] for key in ("entrypoint", "command", "args") if key in node.children}
    parts = [part for part in said.values() if isinstance(part.value, str | list) and part.value]
    if not parts:
        return
    image = node.children.get("image")
    start: list[Word] = []
    own = "entrypoint" in said or ("command" in said and "args" in said) or _names_program(parts[0])
    if image and "vllm-omni" in str(image.value) and not own:
        start = [replace(Word(file.scalar(image)[0:1]), text=_said(word, file, image)) for word in _ENTRY_POINT]
    if all(isinstance(part.value, list) for part in parts) or start:
        words = [word for part in parts for word in _words(part, file)]
        yield from _run([*start, *words])
    else:
        for part in parts:
            if isinstance(part.value, str):
                yield from commands(file.scalar(part))
            else:
                yield from _run(list(_words(part, file)))


_ENTRY_POINT = ("vllm", "serve", "--omni")  # of the engine's published images


def _names_program(part: YamlNode) -> bool:
    first = part.value[0] if isinstance(part.value, list) else part.value.split(maxsplit=1)[0]
    return str(first).startswith("/") or str(first) in ("vllm", "vllm-omni", "sh", "bash", "env", "python", "python3")


def _said(word: str, file: File, node: YamlNode) -> Text:
    """Words that an image says for a container, standing where the image is named."""
    return Text(word, [node.start] * len(word), file)


def _words(part: YamlNode, file: File) -> Iterator[Word]:
    if isinstance(part.value, str):
        for command in commands(file.scalar(part)):
            yield from command.words
    else:
        for item in part.children.values():
            text = file.scalar(item) if isinstance(item.value, str) else _plain(item, file)
            yield Word(text, item=(item.start, item.end))


def _plain(item: YamlNode, file: File) -> Text:
    """A number or switch of a list, as it is written."""
    return joined([file.text[item.start : item.end]], file)


def _run(words: list[Word]) -> Iterator[Command]:
    """A program with its arguments; ``sh -c SCRIPT NAME ARGUMENT...`` is the script, also behind another program."""
    if (script := _script(words)) is not None:
        yield from commands(words[script].text, words[script + 2 :])
    elif words:
        yield Command(words)


def _script(words: list[Word]) -> int | None:
    """Which word is the script that a shell is given."""
    shell = False
    for at, word in enumerate(words[:-1]):
        if shell and word.value in ("-c", "-lc", "-ec"):
            return at + 1
        shell = word.value.rpartition("/")[2] in ("sh", "bash") or (shell and word.value.startswith("-"))
    return None


def drafts(found: Iterable[Command], file: File, engines: Iterable[Engine]) -> list[Draft]:
    """The deployments of some engines among commands."""
    readers = [engine.from_command for engine in engines if engine.commands]
    result = []
    all_found = [
        one for command in found for one in ([command] if _script(command.words) is None else _run(command.words))
    ]
    for command, after in zip(all_found, [*all_found[1:], Command()], strict=False):
        cut = _cut(after)
        if cut and command.words[-1:] and command.words[-1].value.isspace():
            command = Command(command.words[:-1], command.environment)
        for read in readers:
            if draft := read(command, file):
                draft.command = command
                if cut:
                    names = ", ".join(word.value for word in after.words if word.value.startswith("-"))
                    draft.note("OMNI609", f"the command ends above; lost: {names}", after.words[0].text.span)
                result.append(draft)
    return result


def _cut(after: Command) -> bool:
    """Whether the next command begins with a flag, which no program does: it was meant to be part of the one above.

    A backslash before a space or a line of comments does that, and so does one that is missing.
    """
    return bool(after.words) and after.words[0].value.startswith("--")
