"""Drawn configs of an engine, judged by the rules and run by the engine: how often both say the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from matrix.engines.environments import Environment
from matrix.engines.prove import Shown, card_of, run_trials
from matrix.engines.server import started
from matrix.engines.small import SIDE, Small, small
from matrix.engines.trial import LONGEST, TILED, TILED_ELSEWHERE, Trial, trial
from omni_config.cards import EngineCard
from omni_config.catalog.load import catalog
from omni_config.schema.settings import Settings

ENOUGH = 0.98  # of the configs of which a run can show something
LONG = (
    "a large red circle on a wooden table beside a window in the evening, with a long shadow, a blue vase of flowers "
    "and an open book, as a photograph in soft light"
)
#: What is drawn: a config takes some of these, and of each one of its settings.
CHOICES: tuple[tuple[Settings, ...], ...] = (
    ({"ulysses_degree": 2}, {"ulysses_degree": 3}, {"ulysses_degree": 4}),
    ({"ring_degree": 2}, {"ring_degree": 3}, {"ring_degree": 4}),
    ({"ulysses_degree": 2, "ring_degree": 2},),
    ({"cfg_parallel_size": 2},),
    ({"tensor_parallel_size": 2}, {"tensor_parallel_size": 4}),
    ({"pipeline_parallel_size": 2},),
    ({"data_parallel_size": 2},),
    ({"text_encoder_tensor_parallel_size": 2},),
    ({"use_hsdp": True, "hsdp_shard_size": 2}, {"use_hsdp": True, "hsdp_shard_size": 4}),
    ({"cache_dit": True}, {"tea_cache": True}),
    ({"enable_cpu_offload": True},),
    ({"enable_layerwise_offload": True},),
    ({"vae_use_tiling": True},),
    ({"vae_use_slicing": True},),
    ({"vae_patch_parallel_size": 2}, {"vae_patch_parallel_size": 4}),
    ({"lora": ({},)},),
)
MOST = 5  # of them, at most
LACKED, KEPT = "OMNI503", 0.25  # what a model's class does not have is told by a table: a few of these are enough
#: What only an engine has, and a run on a CPU can show.
OWN: dict[str, tuple[tuple[Settings, ...], ...]] = {
    "xdit": (
        tuple(
            {"their_attention_backend": name} for name in ("sdpa", "sdpa_math", "sdpa_efficient", "sdpa_flash", "cudnn")
        ),
    )
}
REQUESTS: tuple[tuple[Settings, ...], ...] = (
    ({}, {}, {"prompt": LONG}),
    ({}, {}, {"cfg_scale": 1.0}, {"cfg_scale": 4.0}),
    ({}, {}, {"width": SIDE + 16}, {"width": 2 * SIDE}, {"height": SIDE + 16, "width": SIDE + 16}),
    ({}, {"num_inference_steps": 2}, {"num_inference_steps": 1}),
)
FRAMES: tuple[Settings, ...] = ({"num_frames": 5}, {"num_frames": 9}, {"num_frames": 4})


MANY = 500  # configs, which are worth writing down


@dataclass(frozen=True)
class Agreement:
    """What drawn configs have shown."""

    shown: tuple[Shown, ...]

    @property
    def told(self) -> tuple[Shown, ...]:
        """Those that a run could bear out or refute."""
        return tuple(one for one in self.shown if one.judged.outcome != "not shown")

    @property
    def share(self) -> float:
        """Of them, those where the engine does what the rules say."""
        return sum(one.agrees for one in self.told) / max(len(self.told), 1)

    @property
    def disagreeing(self) -> tuple[Shown, ...]:
        """The others."""
        return tuple(one for one in self.told if not one.agrees)

    @property
    def holds(self) -> bool:
        """Whether enough agree, and none is said to run that the engine refuses or ignores."""
        said = [one.judged.outcome for one in self.disagreeing if one.trial.verdict == "runs"]
        return self.share >= ENOUGH and not {*said} & {"refused", "ignored", "hangs"}


def agreement(
    environment: Environment, count: int, seed: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> Agreement:
    """Draw configs over the models of an engine, and run them.

    Raises:
        NoEnvironment: the engine is not installed, or does not start.
    """
    with TemporaryDirectory(prefix="omni-small-") as home:
        smalls = [small(model, Path(home)) for model in environment.described["models"]]
        drawn = configs(smalls, card_of(environment), environment.described["beyond"], seed)
        trials = {str(number): made for number, made in zip(range(count), drawn, strict=False)}
        with started(environment, smalls) as server:
            return Agreement(tuple(shown for _, shown in run_trials(server, trials, on_progress)))


def configs(smalls: list[Small], engine: EngineCard, beyond: Collection[str], seed: int) -> Iterator[Trial]:
    """Configs without end, of at most so many ranks, that the engine has words for."""
    hidden = {field for name in beyond for field in catalog().features[name].fields}
    chosen = random.Random(seed)
    while True:
        one = chosen.choice(smalls)
        asked: Settings = {}
        some = chosen.sample((*CHOICES, *OWN.get(engine.family, ())), chosen.randint(1, MOST))
        for choice in some:
            asked |= chosen.choice(choice)
        asked = {name: value for name, value in asked.items() if name not in hidden}
        request = dict(one.request)
        for choice in REQUESTS:
            request |= chosen.choice(choice)
        if "num_frames" in request:
            request |= chosen.choice(FRAMES)
        if asked.get("vae_use_tiling"):  # of an image of one tile, nothing is shown
            request |= {"width": TILED.get(one.card.pipeline, TILED_ELSEWHERE) * SIDE, "height": SIDE}
        made = trial(one, engine, asked, request)
        if made.codes == (LACKED,) and chosen.random() > KEPT:
            continue
        if made.ranks <= LONGEST and not made.unsaid:
            yield made
