"""One config, run by its engine: what ``omni prove --engine`` shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matrix.engines.environments import Environment
from matrix.engines.judge import psnr
from matrix.engines.prove import Progress, Shown, card_of, plain_of, run_trials
from matrix.engines.server import Server, started
from matrix.engines.small import PROMPT, small
from matrix.engines.trial import Trial, trial
from omni_config.schema.settings import Settings

#: Settings of a request that must change the image.
HEEDED = ("prompt", "negative_prompt", "cfg_scale", "guidance_scale", "seed")


@dataclass(frozen=True)
class Proven:
    """A config that was run. ``idle`` are settings of the request that change no pixel.

    ``plain`` is how far one process of the engine is from the pipeline of diffusers, in dB.
    """

    shown: Shown
    plain: float | None
    idle: tuple[str, ...]
    versions: dict[str, str]
    standins: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; infinite distances are None, as the images are equal."""
        told, made = self.shown.judged, self.shown.trial
        finite = {name: _finite(value) for name, value in (("psnr", told.psnr), ("control", told.control))}
        return {
            "engine": made.engine.id,
            "model": made.small.model,
            "command": made.command,
            "ranks": made.ranks,
            "outcome": told.outcome,
            "why": told.why,
            "moment": told.moment,
            **finite,
            "without_effect": list(self.idle),
            "one_process_to_diffusers": _finite(self.plain),
            "rules": {"verdict": made.verdict, "codes": list(made.codes), "agrees": self.shown.agrees},
            "seconds": self.shown.seconds,
            "versions": self.versions,
            "standins": self.standins,
        }


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 1)


def prove_config(
    environment: Environment, model: str, asked: Settings, request: Settings, on_progress: Progress, timeout: float
) -> Proven:
    """Run a config with the small one of its model; ``request`` is what it says of what is generated.

    Raises:
        NoEnvironment: the engine is not installed, or does not start.
        ValueError: the model has no small one, or the engine has no words for a setting.
    """
    with TemporaryDirectory(prefix="omni-small-") as home:
        one = small(model, Path(home))
        made = trial(one, card_of(environment), asked, {**one.request, **request})
        if made.unsaid:
            raise ValueError(f"{environment.engine} has no words for {', '.join(made.unsaid)}")
        with started(environment, [one]) as server:
            shown = next(shown for _, shown in run_trials(server, {"": made}, on_progress, timeout))
            plain, idle = _plain(server, made, timeout), _idle(server, made, request, timeout)
            return Proven(shown, plain, idle, server.versions, server.standins)


def _idle(server: Server, made: Trial, request: Settings, timeout: float) -> tuple[str, ...]:
    """The settings of a request that say what is drawn, and that one process heeds in no pixel."""
    said = {name: value for name, value in request.items() if name in HEEDED and value is not None}
    cases = {"": made.bare(timeout)}
    for name, value in said.items():
        other = f"{value}, {PROMPT}" if isinstance(value, str) else value + 1.5
        cases[name] = replace(made, request={**made.request, name: other}).bare(timeout)
    images = {name: ran.images.get("image") for name, ran in server.run(cases)}
    first = images[""]
    return tuple(
        name
        for name in said
        if (image := images[name]) is not None and first is not None and not (image != first).any()
    )


def _plain(server: Server, made: Trial, timeout: float) -> float | None:
    """How far one process is from diffusers; None where one of them fails, or where the engine cannot be asked."""
    if not server.environment.described["plain"]:
        return None
    ran = dict(server.run({"engine": made.bare(timeout), "diffusers": plain_of(made, timeout)}))
    images = [one.images.get("image") for one in ran.values()]
    if any(image is None for image in images):
        return None
    first, second = images
    assert first is not None
    assert second is not None
    return psnr(first, second)
