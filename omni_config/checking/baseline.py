"""Findings that are accepted as they are, kept in a file: later checks fail only for others.

A finding is known again by its file, its code and the text of its line, so that lines may move.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from omni_config.atomic import write_bytes
from omni_config.checking.document import CheckResult
from omni_config.findings import Finding
from omni_config.reading.discover import CannotCheck
from omni_config.reading.project import relative

#: File, code, and what is left of the text of its line.
Key = tuple[str, str, str]


@dataclass
class Baseline:
    """The findings of a file, each with how often it is there; names are relative to its folder."""

    path: Path
    known: Counter[Key] = field(default_factory=Counter)

    @classmethod
    def of(cls, path: Path) -> Baseline:
        """The baseline in a file.

        Raises:
            CannotCheck: it cannot be read, or is none.
        """
        try:
            entries = json.loads(path.read_text())["findings"]
            known = Counter({(item["file"], item["code"], item["line"]): int(item["count"]) for item in entries})
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = error.strerror if isinstance(error, OSError) else "it is no baseline"
            raise CannotCheck(f"{path}: {words}; --write-baseline writes one") from None
        return cls(path, known)

    def apply(self, results: Iterable[CheckResult]) -> tuple[list[CheckResult], int]:
        """Results without what is known, and how much of it is no longer found in their files."""
        left = Counter(self.known)
        seen: list[CheckResult] = []
        judged: set[str] = set()
        for one in results:
            judged.add(self._name(one.source.name))
            new: list[Finding] = []
            known: list[Finding] = []
            for finding in one.findings:
                if finding.severity == "advice":  # which fails nothing
                    new.append(finding)
                    continue
                key = self._key(one, finding)
                (known if left[key] > 0 else new).append(finding)
                left[key] -= 1
            seen.append(replace(one, findings=tuple(new), known=tuple(known)) if known else one)
        gone = sum(count for key, count in left.items() if count > 0 and key[0] in judged)
        return seen, gone

    def write(self, results: Iterable[CheckResult]) -> int:
        """Write what these results have, beside what is known of files that were not among them; how much it is."""
        results = list(results)
        judged = {self._name(one.source.name) for one in results}
        fails = [(one, item) for one in results for item in one.findings if item.severity != "advice"]
        found = Counter(self._key(one, finding) for one, finding in fails)
        words = {self._key(one, finding): finding.message for one, finding in fails}
        kept = {
            key: count
            for key, count in self.known.items()
            if key[0] not in judged and (self.path.parent / key[0]).exists()
        }
        entries = [
            {"file": file, "code": code, "line": line, "count": count}
            | ({"message": words[file, code, line]} if (file, code, line) in words else {})
            for (file, code, line), count in sorted((Counter(kept) + found).items())
        ]
        text = json.dumps({"version": 1, "findings": entries}, indent=2) + "\n"
        write_bytes(self.path, text.encode())
        return sum(found.values())

    def _key(self, checked: CheckResult, finding: Finding) -> Key:
        span = finding.span
        text = span.source.line(span.line) if span and span.source is checked.source else finding.message
        plain = " ".join(text.split()).encode("utf-8", "surrogatepass")
        return self._name(checked.source.name), finding.code, hashlib.sha256(plain).hexdigest()[:16]

    def _name(self, name: str) -> str:
        if name == "-":
            return name
        return relative(name, self.path.parent)
