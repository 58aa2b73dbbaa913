"""What a check is asked for: flags, over what the table of the repository says (``reading.project``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check, check_bytes
from omni_config.reading.discover import CannotCheck
from omni_config.reading.project import Project, project_of
from omni_config.rules.rule import Rule


@dataclass(frozen=True, eq=False, repr=False)
class Choices:
    """``select`` and ``ignore`` take the place of the table's, and ``assume`` stands over it."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    assume: Mapping[str, str] = field(default_factory=dict)
    policies: tuple[Rule, ...] = ()

    def check(self, name: str, data: bytes | None = None) -> list[CheckResult]:
        """The documents of a file, or of a text in memory that goes by a name, with the findings that are wanted.

        Raises:
            CannotCheck: the table of the repository cannot be used.
        """
        project = project_of(name)
        assume = usual(project) | dict(self.assume) if project.file else self.assume
        if data is None:
            checked = check(name, self.policies, assume)
        else:
            checked = check_bytes(name, data, self.policies, assume)
        if not (self.select or self.ignore or project.select or project.ignore or project.ignores):
            return checked
        from omni_config.checking.selection import Selection

        select = self.select or self._codes(project, project.select)
        ignore = self.ignore or self._codes(project, project.ignore)
        chosen = Selection(select, (*ignore, *self._codes(project, project.ignored_in(name))))
        return [chosen.of(one) for one in checked]

    def _codes(self, project: Project, codes: tuple[str, ...]) -> tuple[str, ...]:
        from omni_config.checking.selection import codes_of

        try:
            return codes_of(codes, (rule.code for rule in self.policies))
        except ValueError as error:
            raise CannotCheck(f"{project.file}: {error}") from None


@lru_cache(maxsize=16)
def usual(project: Project) -> dict[str, str]:
    """What a table says of files of other engines, where they say nothing.

    Raises:
        CannotCheck: it names an engine that is not known.
    """
    said = {"said by": project.file.name if project.file else ""}
    if project.engines:
        from omni_config.catalog.load import catalog

        known = {name.partition("==")[0] for name in catalog().engine_ids}
        for engine in project.engines:
            if engine.partition("==")[0] not in known:
                raise CannotCheck(f"{project.file}: no engine {engine}; known: {', '.join(sorted(known))}")
        said["usual engines"] = " ".join(project.engines)
    return said | ({"usual gpu": project.gpu} if project.gpu else {})
