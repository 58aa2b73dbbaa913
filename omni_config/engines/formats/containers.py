"""Dockerfiles, and the deployments among the commands of any file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from omni_config.engines import Engine
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.gpus import give
from omni_config.engines.formats.launched import entry_point, unwrapped, with_variables
from omni_config.engines.formats.shell import Command, Word, assignments, commands
from omni_config.engines.formats.text import File, Text, joined
from omni_config.findings import Source
from omni_config.reading.nodes import Unreadable, parse

_INSTRUCTION = re.compile(r"^[ \t]*(FROM|ARG|ENV|RUN|CMD|ENTRYPOINT)[ \t]+", re.IGNORECASE | re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-(?P<default>[^}]*))?\})")
_COMMENT = re.compile(r"(?<=\n)[ \t]*#.*\n")


def dockerfile(file: File) -> Iterator[Command]:
    """Commands of a Dockerfile: those that it runs, and what its image starts, by its own entry point or its base's."""
    text = file.text
    image: Text | None = None
    entry: list[Word] | None = None
    arguments: list[Word] | None = None
    variables: dict[str, Word] = {}  # of ARG in front of FROM
    environment: dict[str, Word] = {}

    def started() -> Iterator[Command]:
        words = arguments or []
        start = entry if entry is not None else entry_point(image, words) if image else []
        if start or words:
            yield Command([*start, *words], environment, image=image.value if image else "")

    for match in _INSTRUCTION.finditer(text.value):
        body = _without_comments(text[match.end() : _end(text.value, match.end())])
        kind = match[1].upper()
        if kind == "FROM":
            yield from started()
            named = next((word for word in body.value.split() if not word.startswith("--")), "")
            at = body.value.find(named)
            word = with_variables(body[at : at + len(named)], _VARIABLE, variables, keep=False)
            image, entry, arguments, environment = (None if word.unknown else word.text), None, None, {}
        elif kind in ("ARG", "ENV"):
            found = assignments(body, environment)
            environment |= found
            variables |= found if image is None else {}
        elif kind == "RUN" or (words := _json_words(body, file)) is None:
            yield from commands(body, within=Command(environment=environment, image=image.value if image else ""))
        elif kind == "ENTRYPOINT":
            entry, arguments = words, None
        else:
            arguments = words
    yield from started()


def _without_comments(body: Text) -> Text:
    """An instruction without the lines of comments in it, which a continued one may have."""
    if not _COMMENT.search(body.value):
        return body
    parts, at = [], 0
    for match in _COMMENT.finditer(body.value):
        parts.append(body[at : match.start()])
        at = match.end()
    return joined([*parts, body[at:]], body.file)


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
    if not body.value.lstrip().startswith("["):
        return None
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


def drafts(found: Iterable[Command], file: File, engines: Iterable[Engine]) -> list[Draft]:
    """The deployments of some engines among commands."""
    readers = [engine.from_command for engine in engines if engine.commands]
    result: list[tuple[Draft, Command]] = []
    all_found = [one for command in found for one in unwrapped(command)]
    for command, after in zip(all_found, [*all_found[1:], Command()], strict=False):
        cut = _cut(after)
        if cut and command.words[-1:] and command.words[-1].value.isspace():
            command = command.of(command.words[:-1])
        for read in readers:
            if draft := read(command, file):
                draft.command = command
                if cut:
                    names = ", ".join(word.value for word in after.words if word.value.startswith("-"))
                    draft.note("OMNI609", f"the command ends above; lost: {names}", after.words[0].text.span)
                draft.image = command.image
                if command.open:
                    draft.says_more = True
                    draft.leave_unjudged("words that only a render of the template knows", draft.place)
                for name, span in command.unseen:
                    draft.leave_unjudged(name, span)
                result.append((draft, command))
    give([(draft, command.gpus, command.environment) for draft, command in result])
    return [draft for draft, _ in result]


def _cut(after: Command) -> bool:
    """Whether the next command begins with a flag, which no program does: it was meant to be part of the one above.

    A backslash before a space or a line of comments does that, and so does one that is missing.
    """
    return bool(after.words) and after.words[0].value.startswith("--")
