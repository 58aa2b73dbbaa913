"""What a command line really runs: behind exec, env and sudo, a shell's ``-c``, srun, and ``docker run`` with the entry
point of an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from omni_config.engines.formats.given import Gpus
from omni_config.engines.formats.gpus import of_docker, of_slurm
from omni_config.engines.formats.shell import Command, Word, commands
from omni_config.engines.formats.text import Text
from omni_config.findings import Span

_BEFORE = {"exec", "nohup", "time", "sudo", "command", "env", "setsid", "then", "do", "else", "!", "-"}
_CONTAINERS = {"docker", "podman", "nerdctl"}
_SHELLS = ("-c", "-lc", "-ec", "-cl", "-elc", "-exc", "-xc", "-euc", "-lec", "-ic")
#: Options of ``docker run`` that take no value.
_SWITCHES = {
    *("--detach", "--init", "--interactive", "--no-healthcheck", "--oom-kill-disable", "--privileged", "--publish-all"),
    *("--quiet", "--read-only", "--rm", "--tty", "--replace", "--sig-proxy", "--disable-content-trust", "--help"),
}
#: Options of srun that take a value behind a space.
_VALUES = {
    *("--nodes", "--ntasks", "--ntasks-per-node", "--gres", "--gpus", "--gpus-per-node", "--gpus-per-task", "--mem"),
    *("--cpus-per-task", "--partition", "--time", "--nodelist", "--job-name", "--output", "--error", "--account"),
    *("--container-image", "--container-mounts", "--container-workdir", "--container-name", "--mpi", "--chdir"),
    *("-N", "-n", "-G", "-c", "-p", "-w", "-J", "-t", "-o", "-e", "-A", "-q", "-D"),
}
_STEPS = {"-N": "--nodes", "-G": "--gpus", "-n": "--ntasks"}
#: What published images start, to which the arguments of a container are added.
_ENTRY_POINTS = (
    (re.compile(r"\bvllm-omni(?:-\w+)?(?:[:@]|$)"), ("vllm", "serve", "--omni")),
    (re.compile(r"\bvllm/vllm-openai(?:[:@]|$)"), ("vllm", "serve")),
)
_MODEL = re.compile(r"[\w.-]+/[\w.-]+")


def unwrapped(command: Command) -> Iterator[Command]:
    """The commands that a command really runs; a shell's script may be several."""
    command = _behind(command)
    if not command.words:
        return
    name = command.words[0].value.rpartition("/")[2]
    if name in _CONTAINERS and (inner := _container(command)) is not None:
        yield from unwrapped(inner)
    elif name == "srun":
        yield from unwrapped(_step(command))
    elif (script := _script(command.words)) is not None:
        words = command.words
        for one in commands(words[script].text, words[script + 2 :], command):
            yield from unwrapped(one)
    else:
        yield command


def _behind(command: Command) -> Command:
    """Behind the words that only say how a command is started, and the variables among them."""
    words, variables = command.words, dict(command.environment)
    while words and words[0].value.rpartition("/")[2] in _BEFORE:
        words = words[1:]
        while words and words[0].value.startswith("-") and len(words) > 1:
            words = words[1:]
        while words and (match := re.match(r"([A-Za-z_]\w*)=", words[0].value)):
            variables[match[1]] = Word(words[0].text[match.end() :], words[0].unknown)
            words = words[1:]
    return command if words is command.words else command.of(words, variables)


def _script(words: list[Word]) -> int | None:
    """Which word is the script that a shell is given, also behind another program."""
    shell = False
    for at, word in enumerate(words[:-1]):
        if shell and word.value in _SHELLS:
            return at + 1
        shell = word.value.rpartition("/")[2] in ("sh", "bash", "zsh") or (shell and word.value.startswith("-"))
    return None


def _step(command: Command) -> Command:
    """The program that srun starts, with the GPUs of the step."""
    words, at = command.words, 1
    options: list[tuple[str, str, Span]] = []
    while at < len(words) and words[at].value.startswith("-"):
        name, equals, value = words[at].value.partition("=")
        if not equals and name[:2] in _STEPS and len(name) > 2 and name[1] != "-":
            name, value = name[:2], name[2:]
        elif not equals and name in _VALUES and at + 1 < len(words):
            at += 1
            value = words[at].value
        options.append((_STEPS.get(name, name), value, words[at].text.span))
        at += 1
    inner = command.of(words[at:])
    inner.gpus = of_slurm(options, command.gpus)
    return inner


def _container(command: Command) -> Command | None:
    """The program of a container; None where the command starts none."""
    words = command.words
    run = next((at for at, word in enumerate(words[1:3], 1) if word.value == "run"), None)
    if run is None:
        return None
    variables: dict[str, Word] = {}
    gpus: tuple[Gpus, ...] = ()
    entry: list[Word] | None = None
    at = run + 1
    while at < len(words) and words[at].value.startswith("-") and len(words[at].value) > 1:
        word, (name, equals, _) = words[at], words[at].value.partition("=")
        at += 1
        if name in _SWITCHES or (re.fullmatch(r"-[ditqP]+", name) and not equals):
            continue
        if not name.startswith("--") and len(name) > 2:  # -eNAME=VALUE
            name, value = name[:2], Word(word.text[2:], word.unknown)
        elif equals:
            value = Word(word.text[len(name) + 1 :], word.unknown)
        elif at < len(words):
            value, at = words[at], at + 1
        else:
            return None
        if name in ("-e", "--env"):
            key, given, _ = value.value.partition("=")
            inherited = command.environment.get(key)
            if given:
                variables[key] = Word(value.text[len(key) + 1 :], value.unknown)
            elif inherited is not None:
                variables[key] = inherited
        elif name == "--gpus" and not value.unknown:
            gpus = () if gpus else of_docker(value)  # of two flags nothing is known
        elif name == "--entrypoint":
            entry = [value] if value.value else []
    if at >= len(words):
        return None
    program = words[at + 1 :]
    start = entry_point(words[at].text, program) if entry is None else entry
    inner = command.of([*start, *program], variables)
    inner.gpus, inner.image = gpus, words[at].value
    return inner


def entry_point(image: Text, program: list[Word]) -> list[Word]:
    """What an image starts with these arguments; empty where they name a program themselves, or nothing is known."""
    if program and not program[0].value.startswith("-") and not _MODEL.fullmatch(program[0].value):
        return []
    words = next((words for pattern, words in _ENTRY_POINTS if pattern.search(image.value)), ())
    return [Word(Text(word, [image.offsets[0]] * len(word), image.file)) for word in words if program]


def with_variables(text: Text, pattern: re.Pattern[str], values: Mapping[str, Word], keep: bool) -> Word:
    """A text with its variables replaced, by a pattern whose first groups are their names and whose group ``default``
    is what they are without a value; ``keep``: one that is not set stays as it is written.
    """
    parts: list[Text] = []
    unknown, at = False, 0
    for match in pattern.finditer(text.value):
        name = match[1] or match[2]
        default = match.groupdict().get("default")
        if name not in values and default is None and keep:
            unknown = True  # an operator may set it
            continue
        parts.append(text[at : match.start()])
        at = match.end()
        if name in values:
            parts.append(values[name].text)
            unknown |= values[name].unknown
        elif default is not None:
            parts.append(text[match.start("default") : match.end("default")])
        else:
            parts.append(text[match.start() : match.end()])
            unknown = True
    if not parts:
        return Word(text, unknown)
    parts.append(text[at:])
    joined = Text("".join(part.value for part in parts), [o for part in parts for o in part.offsets], text.file)
    return Word(joined, unknown)
