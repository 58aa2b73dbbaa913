"""A check of many files by several processes, whose results come in the order of the files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from omni_config.checking.choices import Choices
from omni_config.checking.document import CheckResult
from omni_config.reading.discover import STDIN, CannotCheck

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Files from which on starting processes pays.
MANY = 400
#: Files that a process is given at a time, and how many such parts may wait for each: so much memory is taken at most.
PART = 50
WAITING = 3


#: A file in which there is nothing to show: whether it is a config, and what was found.
Light = tuple[bool, tuple[CheckResult, ...]]


def by_workers(
    files: Iterator[tuple[str, bool]], choices: Choices, light: Callable[[list[CheckResult]], Light | None]
) -> Iterator[tuple[str, bool, Light | None]]:
    """Each file, with whether it was named, and what a process found; None where it is to be checked here: where there
    is something to show, standard input, and all files if they are few or there is one core.

    Raises:
        CannotCheck: a process was ended from outside, or a table of the repository cannot be used.
    """
    first = list(islice(files, MANY))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if len(first) < MANY or cores < 2:
        yield from ((*file, None) for file in chain(first, files))
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pending: deque[tuple[list[tuple[str, bool]], Future[list[Light | None]]]] = deque()
    with ProcessPoolExecutor(cores, get_context("fork"), _begin, (choices, light)) as pool:
        try:
            for part in _parts(chain(first, files)):
                pending.append((part, pool.submit(_check, [name for name, _ in part])))
                if len(pending) > cores * WAITING:
                    yield from _done(*pending.popleft())
            while pending:
                yield from _done(*pending.popleft())
        except BrokenProcessPool:
            raise CannotCheck("a process that checks files was ended from outside") from None


def _parts(files: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    iterator = iter(files)
    while part := list(islice(iterator, PART)):
        yield part


def _done(part: list[tuple[str, bool]], future: Future[list[Light | None]]) -> Iterator[tuple[str, bool, Light | None]]:
    yield from ((*file, found) for file, found in zip(part, future.result(), strict=True))


_choices: Choices
_light: Callable[[list[CheckResult]], Light | None]


def _begin(choices: Choices, light: Callable[[list[CheckResult]], Light | None]) -> None:
    """What a process does first."""
    import signal

    from omni_config.catalog.load import catalog

    global _choices, _light
    _choices, _light = choices, light
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    catalog.cache_clear()  # its file would be read at one place by all


def _check(names: list[str]) -> list[Light | None]:
    return [None if name == STDIN else _light(_choices.check(name)) for name in names]


def without_documents(results: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """Results without what was made of their documents, which is needed no more, and a folder may have thousands."""
    return tuple(replace(one, resolution=None, document=None) for one in results)
