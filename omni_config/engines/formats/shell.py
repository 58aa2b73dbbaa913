"""Enough of the shell's grammar to read a command: quotes, continued lines, comments, variables and arrays.

Nothing is run. What only running could tell (``$1``, ``$(nproc)``) makes a word unknown, and that is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from omni_config.engines.formats.text import Text, joined

if TYPE_CHECKING:
    from omni_config.engines.formats.given import Gpus
    from omni_config.findings import Span

_VARIABLE = re.compile(r"\$(?:(\w+|[@*])|\{(\w+|[@*])(\[@\]|\[\*\])?(?::?-([^}]*))?\})")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_PLAIN = re.compile(r"[\w./:=,@%+~\[\]-]+")  # what means nothing to a shell inside a word, quoted or not
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w ./:-]*>")
_ENDS = "\n;&|(){}"


@dataclass(frozen=True)
class Word:
    """One word of a command; ``unknown`` where a part of it is known only to a run.

    ``item``: where it stands, with its quotes, as one item of a list.
    """

    text: Text
    unknown: bool = False
    item: tuple[int, int] | None = None

    @property
    def value(self) -> str:
        """What the program would be given."""
        return self.text.value

    @property
    def names_model(self) -> bool:
        """Whether it may be taken for a model's name: only a run may know the folder of a path, not its last part."""
        folder, slash, last = self.value.rstrip("/").rpartition("/")
        return not self.unknown or bool(slash and "$" in folder and not {"$", "`"} & set(last))


@dataclass
class Command:
    """The words of one command, and what it is started with; ``unseen`` is what of that could not be read."""

    words: list[Word] = field(default_factory=list)
    environment: Mapping[str, Word] = field(default_factory=dict)
    gpus: tuple[Gpus, ...] = ()
    unseen: tuple[tuple[str, Span], ...] = ()
    open: bool = False  # it may have further words, which only a render of the template knows
    image: str = ""  # that it is started in

    def of(self, words: list[Word], environment: Mapping[str, Word] | None = None) -> Command:
        """Other words, started with the same; ``environment``: its variables, if they are others."""
        variables = self.environment if environment is None else environment
        return replace(self, words=words, environment=variables)


def commands(text: Text, arguments: Sequence[Word] | None = None, within: Command | None = None) -> Iterator[Command]:
    """Every command of a script, in its order, with the variables that were set above it. ``arguments`` are ``$@``, and
    ``within`` is the command that runs the script.
    """
    reader = _Reader(text)
    within = within or Command()
    variables: dict[str, list[Word]] = {name: [word] for name, word in within.environment.items() if not word.unknown}
    if arguments is not None:
        variables["@"] = list(arguments)
    exported = dict(within.environment)
    while not reader.done:
        command = reader.command(variables)
        names = _assignments(command)
        if names and len(names) == len(command.words):
            _assign(variables, names)
        elif command.words and command.words[0].value in ("export", "declare", "local", "readonly"):
            rest = Command(command.words[1:])
            set_here = _assignments(rest)
            _assign(variables, set_here)
            exported.update(set_here)
        elif command.words:
            yield within.of(command.words[len(names) :], exported | names)


def assignments(text: Text, within: Mapping[str, Word]) -> dict[str, Word]:
    """``NAME=VALUE ...``, or ``NAME VALUE``, as a Dockerfile sets variables."""
    words = _Reader(text).command({name: [word] for name, word in within.items()}).words
    found = _assignments(Command(words))
    if words and not found:
        rest = text.value.partition(words[0].value)[2]
        start = len(text.value) - len(rest.lstrip())
        return {words[0].value: Word(text[start : len(text.value.rstrip())])}
    return found


def _assign(variables: dict[str, list[Word]], names: dict[str, Word]) -> None:
    """Set variables; what an option may replace (``MODEL=$2``) keeps the value that it has without the option."""
    variables.update({name: [word] for name, word in names.items() if name not in variables or not word.unknown})


def _assignments(command: Command) -> dict[str, Word]:
    """The assignments that a command begins with."""
    found = {}
    for word in command.words:
        match = _ASSIGNMENT.match(word.value)
        if match is None:
            break
        found[match[1]] = Word(word.text[match.end() :], word.unknown)
    return found


class _Reader:
    def __init__(self, text: Text) -> None:
        self.text = text
        self.value = text.value
        self.at = 0

    @property
    def done(self) -> bool:
        return self.at >= len(self.value)

    def command(self, variables: dict[str, list[Word]]) -> Command:
        """Words up to the end of a command."""
        words: list[Word] = []
        dropped = False  # the next word is the file of a redirection
        heredoc = ""  # the word that ends the text behind << on the lines below
        while not self.done:
            character = self.value[self.at]
            if character in " \t\r":
                self.at += 1
            elif self.value.startswith(("\\\n", "\\\r\n"), self.at):
                self.at = self.value.index("\n", self.at) + 1
            elif character == "#":
                self._skip_line()
            elif found := _PLACEHOLDER.match(self.value, self.at):  # as pages write what their reader is to put in
                words.append(Word(self.text[self.at : found.end()], unknown=True))
                self.at = found.end()
            elif character in "<>":
                numbered = self.value[self.at - 1 : self.at].isdigit()  # 2> is a stream, 2 > is a word
                document = _HEREDOC.match(self.value, self.at)
                heredoc = document[1] if document else heredoc
                self.at = document.end() if document else self.at + 1
                while not document and not self.done and self.value[self.at] in "<>&-":
                    self.at += 1
                dropped = document is None
                if numbered and words and words[-1].value.isdigit():
                    words.pop()
            elif character in _ENDS:
                self.at += 1
                if character == "\n" and heredoc:
                    end = re.compile(rf"^\s*{re.escape(heredoc)}\s*$", re.MULTILINE).search(self.value, self.at)
                    self.at, heredoc = (end.end() if end else len(self.value)), ""
                if words:
                    break
            else:
                read = self._words(variables)
                if dropped:
                    dropped = False
                elif not self._array(read, variables):
                    words += read
        return Command(words)

    def _array(self, read: list[Word], variables: dict[str, list[Word]]) -> bool:
        """``NAME=( ... )`` and ``NAME+=( ... )``: whether that is what was begun; its words are kept under the name."""
        if self.done or self.value[self.at] != "(" or not (match := re.fullmatch(r"(\w+)(\+?)=", read[-1].value)):
            return False
        self.at += 1
        items: list[Word] = []
        while not self.done and self.value[self.at] != ")":
            if self.value[self.at] in " \t\r\n" or self.value.startswith("\\\n", self.at):
                self.at += 1
            elif self.value[self.at] == "#":
                self._skip_line()
            else:
                before = self.at
                items += self._words(variables)
                self.at += self.at == before
        self.at += 1
        variables[match[1]] = (variables.get(match[1], []) if match[2] else []) + items
        return True

    def _skip_line(self) -> None:
        end = self.value.find("\n", self.at)
        self.at = len(self.value) if end < 0 else end

    def _words(self, variables: dict[str, list[Word]]) -> list[Word]:
        """One word as written: none or several where a variable without quotes holds spaces, or is an array."""
        result: list[Word] = []
        word: list[Text] = []
        begun = unknown = False
        quote = ""
        while not self.done:
            character = self.value[self.at]
            if not quote and (character in " \t\r<>" or character in _ENDS):
                break
            if character == quote:
                quote = ""
            elif not quote and character in "'\"":
                quote, begun = character, True
            elif character == "\\" and quote != "'":
                following = self.value[self.at + 1 : self.at + 2]
                if quote and following not in '"\\$`\n':
                    word.append(self.text[self.at : self.at + 1])
                if following != "\n":
                    word.append(self.text[self.at + 1 : self.at + 2])
                    begun = True
                self.at += 1
            elif character == "$" and quote != "'" and (found := _VARIABLE.match(self.value, self.at)):
                values, known = self._variable(found, variables)
                unknown |= not known
                split = values if quote else [part for value in values for part in _split(value)]
                for index, value in enumerate(split):
                    if index:
                        result.append(Word(joined(word, self.text.file), unknown))
                        word, unknown = [], False
                    word.append(value.text)
                    unknown |= value.unknown
                    begun = True
                begun |= not known
                self.at = found.end() - 1
            elif (character == "`" or self.value.startswith("$(", self.at)) and quote != "'":
                start, self.at, unknown, begun = self.at, self._substitution_end(), True, True
                word.append(self.text[start : self.at + 1])
            else:
                plain = _PLAIN.match(self.value, self.at)
                end = plain.end() if plain else self.at + 1
                word.append(self.text[self.at : end])
                self.at, begun = end - 1, True
            self.at += 1
        return [*result, Word(joined(word, self.text.file), unknown)] if begun else result

    def _variable(self, found: re.Match[str], variables: dict[str, list[Word]]) -> tuple[list[Word], bool]:
        name = found[1] or found[2]
        if variables.get(name):  # what expands an empty array has a loop that fills it
            return variables[name], True
        if found[4] is not None:
            return [Word(self.text[found.start(4) : found.end(4)])], True
        return [Word(self.text[found.start() : found.end()], unknown=True)], False

    def _substitution_end(self) -> int:
        """Offset of the last character of ``$( ... )`` or of a pair of backticks."""
        if self.value[self.at] == "`":
            end = self.value.find("`", self.at + 1)
            return len(self.value) if end < 0 else end
        depth, at = 0, self.at + 1
        while at < len(self.value):
            depth += {"(": 1, ")": -1}.get(self.value[at], 0)
            if depth == 0:
                return at
            at += 1
        return at


def _split(word: Word) -> Iterator[Word]:
    for match in re.finditer(r"\S+", word.value):
        yield Word(word.text[match.start() : match.end()], word.unknown)
