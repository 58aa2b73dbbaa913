"""What ``omni check`` does, apart from its options: files in, findings out, an exit code back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from omni_config.checking.choices import Choices
from omni_config.checking.document import CheckResult
from omni_config.output.report import Report, print_report
from omni_config.output.workers import Light, by_workers, without_documents
from omni_config.reading.discover import STDIN, CannotCheck, discover
from omni_config.reading.project import project_of


@dataclass(frozen=True, eq=False, repr=False)
class Options:
    """How a check is run.

    ``strict``: warnings fail. ``charts`` are rendered first. ``aside``: files of other forms, and excluded ones, are
    set aside also where they are named. ``advice``: it is shown, not summed up. ``exit_zero``: whatever is found, the
    exit code is 0. ``baseline`` is a file of findings that are accepted, which ``write`` has written anew. ``since``:
    only files that differ from this revision of git. ``explain``: the pages of the rules follow the findings.
    """

    output_format: str = "text"
    strict: bool = False
    charts: tuple[str, ...] = ()
    aside: bool = False
    advice: bool = False
    exit_zero: bool = False
    baseline: str = ""
    write: bool = False
    since: str = ""
    explain: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """Names of files, folders, globs or standard input, and what is asked for; ``check`` may keep what it has found."""

    names: Sequence[str]
    options: Options = field(default_factory=Options)
    choices: Choices = field(default_factory=Choices)
    check: Callable[[str], list[CheckResult]] | None = None

    def files(self, report: Report) -> Iterator[tuple[str, bool]]:
        """The files that are to be checked, with whether they are named; the others are counted."""
        changed: set[str] | None = None
        if self.options.since:
            from omni_config.reading.changed import changed_since

            changed = changed_since(self.options.since, self.names)
        for name, named in discover(self.names):
            named = named and not (self.options.aside and Path(name).is_file())
            if changed is not None and os.path.realpath(name) not in changed:
                continue
            if name != STDIN and not named and project_of(name).excludes(name):
                report.excluded.append(name)
            else:
                yield name, named and changed is None

    def __call__(self) -> int:
        """Check, print, and return the exit code."""
        try:
            return self._run()
        except CannotCheck as error:
            print(f"omni check: {error}", file=sys.stderr)
            return 2

    def _run(self) -> int:
        options, report = self.options, Report(since=self.options.since)
        report.checked += self._charts()
        report.checked += self._checked(report)
        if options.baseline:
            from omni_config.checking.baseline import Baseline

            path = Path(options.baseline)
            if options.write:
                baseline = Baseline.of(path) if path.exists() else Baseline(path)
                print(f"{baseline.write(report.checked)} findings written to {path}; later ones fail.")
                return 0
            report.checked, report.gone = Baseline.of(path).apply(report.checked)
        print_report(report, options.output_format, options.advice, options.explain)
        if not report.checked:
            return 0 if options.aside or options.since else 2
        return 0 if options.exit_zero else self._code(report.checked)

    def _code(self, checked: Sequence[CheckResult]) -> int:
        code = max(item.exit_code for item in checked)
        warned = any(finding.severity == "warning" for item in checked for finding in item.findings)
        return max(code, 1) if self.options.strict and warned else code

    def _charts(self) -> Iterator[CheckResult]:
        if not self.options.charts:
            return
        from omni_config.reading.render import NotRendered, render

        try:
            for chart in self.options.charts:
                yield from self.choices.check(*render(chart))
        except NotRendered as error:
            raise CannotCheck(str(error)) from None

    def _checked(self, report: Report) -> Iterator[CheckResult]:
        """Documents of all files; a file of a folder or glob that is no config is set aside, and counted."""
        files = self.files(report)
        checked: Iterator[tuple[str, bool, Light | None]] = (
            ((*file, None) for file in files)
            if self.check is not None
            else by_workers(files, self.choices, partial(_light, self.options.output_format))
        )
        for name, named, found in checked:
            if found is None:
                documents = (self.check or self.choices.check)(name) if name != STDIN else self._of_stdin()
                light = _light(self.options.output_format, documents)
                found = light or (any(map(is_config, documents)), tuple(documents))
            if named or found[0]:
                yield from found[1]
            else:
                report.skipped.append(name)

    def _of_stdin(self) -> list[CheckResult]:
        return self.choices.check(STDIN, sys.stdin.buffer.read())


def run(names: Sequence[str], options: Options | None = None, choices: Choices | None = None) -> int:
    """Check files, folders, globs and standard input; print the findings, and return the exit code."""
    return Run(names, options or Options(), choices or Choices())()


def _light(output_format: str, documents: list[CheckResult]) -> Light | None:
    """A file of which what was made of its documents is not asked for again; None for others."""
    if all(not one.findings or (output_format == "text" and one.exit_code == 0) for one in documents):
        return any(map(is_config, documents)), without_documents(documents)
    return None


def is_config(checked: CheckResult) -> bool:
    """Whether a document means to be a config: one of another engine, or it names a model, readable or not."""
    if checked.foreign:
        return True
    if any(finding.code == "OMNI908" for finding in (*checked.findings, *checked.unselected)):
        return False
    if checked.node is None:
        return all(re.search(rf"^{key}\s*:", checked.source.text, re.MULTILINE) for key in ("version", "model"))
    return isinstance(checked.node.value, dict) and "model" in checked.node.value
