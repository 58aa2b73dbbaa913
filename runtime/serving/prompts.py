"""A file of prompts: one a line, or JSON Lines with the fields of a request; each image has a name of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omni_config.findings import Finding
from omni_config.plan import Sampling
from runtime.serving.errors import RequestError
from runtime.serving.requests import ImageRequest, ServedConfig

#: Files of these suffixes hold a JSON object a line.
JSON_LINES = (".jsonl", ".ndjson")
#: Fields that only an answer over HTTP has.
_ONLINE = ("model", "response_format", "stream", "partial_images", "user", "lora")


class PromptsError(ValueError):
    """A file that cannot be used; the text begins with the file, and the line where there is one."""


@dataclass(frozen=True, slots=True)
class Job:
    """One image."""

    line: int
    """The first one that asks for it."""
    sampling: Sampling
    name: str
    """Of its file: prompt, seed, and a digest of all that the image depends on."""

    def to_dict(self) -> dict[str, Any]:
        """What the results say of it."""
        asked = {name: value for name, value in asdict(self.sampling).items() if value not in (None, {})}
        return {"image": self.name, "line": self.line, "sampling": asked}


@dataclass(frozen=True)
class Prompts:
    """What a file asks for."""

    jobs: list[Job]
    """In the order of the file, none twice."""
    repeated: int
    """Images that an earlier line asks for already."""
    warnings: list[tuple[int, Finding]]
    """Each rule once, with the first line that it is about."""


def read(path: Path, served: ServedConfig) -> Prompts:
    """Read a file and put every line through the rules.

    The seed is that of the config where a line has none, and counts up over the images of a line.

    Raises:
        PromptsError: a line is none, breaks a rule, or passes a limit.
        OSError: the file cannot be read.
    """
    jobs: dict[str, Job] = {}
    warnings: dict[str, tuple[int, Finding]] = {}
    repeated = 0
    for number, request in _requests(path):
        if request.seed is None:
            request = request.model_copy(update={"seed": served.plan.sampling.seed})
        try:
            sampling, _, found = served.sampling(request)
        except RequestError as error:
            code = f"{error.code}: " if error.code else ""
            raise PromptsError(f"{path}:{number}: {code}{error}") from None
        for finding in found:
            warnings.setdefault(finding.code, (number, finding))
        for index in range(sampling.num_images_per_prompt):
            one = replace(sampling, num_images_per_prompt=1, seed=(sampling.seed + index) % 2**63)
            name = _name(served, one)
            repeated += name in jobs
            jobs.setdefault(name, Job(number, one, name))
    if not jobs:
        raise PromptsError(f"{path}: no line holds a prompt")
    return Prompts(list(jobs.values()), repeated, list(warnings.values()))


def _requests(path: Path) -> Iterator[tuple[int, ImageRequest]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PromptsError(f"{path}: not UTF-8: {error.reason}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if path.suffix not in JSON_LINES:
            yield number, ImageRequest(prompt=line.strip())
            continue
        try:
            values = json.loads(line)
            request = ImageRequest.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise PromptsError(f"{path}:{number}: {place or 'the line'}: {first['msg'].lower()}") from None
        except (ValueError, RecursionError) as error:
            raise PromptsError(f"{path}:{number}: no JSON: {error}") from None
        for name in _ONLINE:
            if name in values:
                raise PromptsError(f"{path}:{number}: {name} is for omni serve; remove it")
        yield number, request


def _name(served: ServedConfig, sampling: Sampling) -> str:
    plan = {name: value for name, value in served.plan.to_dict().items() if name not in ("sampling", "output")}
    text = json.dumps([plan, asdict(sampling)], sort_keys=True)
    slug = re.sub(r"\W+", "-", sampling.prompts[0].lower())[:48].strip("-") or "image"
    return f"{slug}-{sampling.seed}-{sha256(text.encode()).hexdigest()[:12]}.png"
