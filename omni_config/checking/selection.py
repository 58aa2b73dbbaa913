"""Which findings are wanted: by code, or by the beginning that the codes of an area share (``OMNI1``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.findings import Finding


@dataclass(frozen=True)
class Selection:
    """``select`` (all, where it is empty) without ``ignore``; the longest beginning of a code decides.

    A text that cannot be used at all (an error of OMNI9) is never left out: nothing else in it was judged.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def wants(self, finding: Finding) -> bool:
        """Whether a finding is one of them."""
        if finding.code.startswith("OMNI9") and finding.severity == "error":
            return True
        chosen = max(_lengths(finding.code, self.select), default=-1 if self.select else 0)
        return chosen > max(_lengths(finding.code, self.ignore), default=-1)

    def of(self, checked: CheckResult) -> CheckResult:
        """A result with these findings; the others are ``unselected``."""
        if not self.select and not self.ignore:
            return checked
        kept = tuple(finding for finding in checked.findings if self.wants(finding))
        left = tuple(finding for finding in checked.findings if not self.wants(finding))
        return replace(checked, findings=kept, unselected=left) if left else checked


def _lengths(code: str, chosen: Sequence[str]) -> Iterable[int]:
    return (len(name) for name in chosen if name == code or (code.startswith(name) and name not in catalog().by_code))


def codes_of(texts: Iterable[str], own: Iterable[str] = ()) -> tuple[str, ...]:
    """Codes and beginnings of codes out of texts that separate them by commas; ``own`` are an organisation's.

    Raises:
        ValueError: no rule has such a code.
    """
    known = [*catalog().by_code, *(entry.code for entry in catalog().retired), *own]
    found = tuple(code.strip().upper() for text in texts for code in text.split(",") if code.strip())
    for code in found:
        if not any(name.upper().startswith(code) for name in known):
            raise ValueError(f"no rule has a code that begins with {code}; see omni rules")
    return found
