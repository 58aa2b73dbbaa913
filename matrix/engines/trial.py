"""A config for an engine, judged by the rules with the sizes of a small model, and as the command that it is run by."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.engines.environments import environment
from matrix.engines.judge import LOSSY, Verdict
from matrix.engines.server import Case
from matrix.engines.small import NEGATIVE, SIDE, Small
from omni_config.cards import EngineCard
from omni_config.catalog.load import catalog
from omni_config.engines import ENGINES
from omni_config.engines.formats.unwritten import Unwritten
from omni_config.findings import Finding
from omni_config.resolving.resolver import Resolution, resolve_settings
from omni_config.resolving.target import target_of
from omni_config.rules.kinds import Reading
from omni_config.rules.quantities import THEIRS
from omni_config.schema.settings import DEFAULTS, Settings, validate

CACHED_STEPS = 12  # a cache needs steps to skip
REQUEST = "--request"  # between a command that serves and what the server is asked for
#: Settings that say how many ranks there are, beside the degrees.
RANKED = ("hsdp_shard_size", "gpus", "data_parallel_size", "gpus_per_node")
LONGEST = 4  # ranks, at most, that are run
RANK = 4  # of the adapter that is made
#: Sides of an image that is several tiles of the decoder, which are of 64, 256 or 512 pixels.
TILED = {"LTX2Pipeline": 9}
TILED_ELSEWHERE = 5


@dataclass(frozen=True)
class Trial:
    """``settings`` are what is asked beside the request; ``unsaid`` are those of them that the engine has no words for.

    ``argv`` is the engine's command without its first word.
    """

    small: Small
    engine: EngineCard
    settings: Settings
    request: Settings
    features: tuple[str, ...]
    variables: Mapping[str, str]
    argv: tuple[str, ...]
    ranks: int
    findings: tuple[Finding, ...]
    unsaid: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """What the rules say, of the small model on this engine; what it has no words for, an export refuses."""
        if self.unsaid:
            return "refused"
        severities = {finding.severity for finding in self.findings}
        return "refused" if "error" in severities else "warned" if "warning" in severities else "runs"

    @property
    def codes(self) -> tuple[str, ...]:
        """Of the findings that decide the verdict."""
        wanted = {"refused": "error", "warned": "warning", "runs": ""}[self.verdict]
        return tuple(dict.fromkeys(one.code for one in self.findings if one.severity == wanted))

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        words = shlex.join((*variables, *_how(self.engine)["command"].split(), *self.argv))
        return words.replace(f"{self.small.home}/", "")

    def case(self, timeout: float) -> Case:
        """The run, with its controls: none where one process is changed, of which a damaged one cannot be told."""
        shared = "vae_patch_parallel" in self.features
        parts = () if {*self.features} <= LOSSY else ("transformer", *(["vae"] if shared else []))
        return Case(self.argv, self.ranks, parts, timeout, variables=self.variables)

    def reference(self, timeout: float) -> Case:
        """The run of one process of the engine: with nothing switched on, or what changes the image beside the rest."""
        return self._alone(_beside(self.settings, {*self.features}), timeout)

    def bare(self, timeout: float) -> Case:
        """The run of one process with nothing switched on."""
        return self._alone({}, timeout)

    def _alone(self, kept: Settings, timeout: float) -> Case:
        plain = trial(self.small, self.engine, kept, self.request)
        return Case(plain.argv, 1, (), timeout, variables=plain.variables)


def trial(small: Small, engine: EngineCard, asked: Settings, request: Mapping[str, Any] | None = None) -> Trial:
    """The trial of some settings; what is generated is chosen by what they switch on, unless it is said.

    Settings that only the engine has begin with ``their_``, as in the rules.
    """
    how = _how(engine)
    if asked.get("lora"):
        file = small.adapter(how["lora"]["names"])
        path = _peft(file) if how["lora"]["peft"] else file
        asked = asked | {"lora": [{"path": str(path), "scale": 1.0}]}
    features = tuple(name for name, feature in catalog().features.items() if _is_on(feature.fields, asked))
    for one in how["beside"]:
        if _is_on((one["of"],), asked) and small.card.pipeline in one.get("pipelines", (small.card.pipeline,)):
            asked = one["settings"] | asked
    own = request is None
    request = dict(small.request if request is None else request) | ({} if request else _needed(small, features, asked))
    plain = validate({"version": 1, "model": small.model, "engine": engine.id})
    target = target_of(small.card, engine)
    target = target.by(rule for rule in target.rules if rule.severity != "advice" and not isinstance(rule, Reading))
    resolution = resolve_settings(plain | request | asked, target)
    if own and any(one.fields == ("negative_prompt",) and one.severity == "warning" for one in resolution.findings):
        del request["negative_prompt"]  # which this engine does not pass to the model
        resolution = resolve_settings(plain | request | asked, target)
    own_words = {name.removeprefix(THEIRS): value for name, value in asked.items() if name.startswith(THEIRS)}
    said = {name: asked[name] for name in asked if name in DEFAULTS}
    words, left = _words(small.model, said, request, resolution)
    command = how["command"].split()
    at = words.index(command[0])
    variables = dict(word.split("=", 1) for word in words[:at])
    end = words.index(REQUEST) if how["serves"] else len(words)
    words[end:end] = [word for name, value in own_words.items() for word in (f"--{name}", str(value))]
    return Trial(
        small=small,
        engine=engine,
        settings=asked,
        request=request,
        features=features,
        variables=variables,
        argv=tuple(words[at + len(command) :]),
        ranks=_ranks(resolution),
        findings=resolution.findings,
        unsaid=tuple(name for name in left if name in asked),
    )


def _peft(file: Path) -> Path:
    """The folder of an adapter as PEFT saves it, of attention only."""
    from safetensors.torch import load_file, save_file

    folder = file.parent / "peft"
    if not folder.is_dir():
        folder.mkdir()
        weights = {
            name: weight
            for name, weight in load_file(file).items()
            if name.split(".lora_")[0].endswith((".to_q", ".to_k", ".to_v"))
        }
        save_file(weights, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["to_q", "to_k", "to_v"]}
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _ranks(resolution: Resolution) -> int:
    """What the degrees add up to; of some engines, the shards where there is no other degree."""
    settings = resolution.settings
    ranks = int(resolution.target.quantities(settings)["gpus_needed"])
    if _how(resolution.engine)["shards_are_ranks"] and settings["use_hsdp"] and ranks == 1:
        return int(max(settings["hsdp_shard_size"], 1) * max(settings["hsdp_replicate_size"], 1))
    return ranks


def _words(model: str, asked: Settings, request: Settings, resolution: Resolution) -> tuple[list[str], list[str]]:
    """The words of a command, and the settings that it does not say; a server's is followed by what it is asked for."""
    served = _how(resolution.engine)["serves"]
    text, left = written({"model": model} | asked | ({"server": True} if served else request), resolution)
    words = _split(text)
    if served:
        asks, _ = written({"model": model} | request, resolution)
        words += [REQUEST, *_split(asks)[4:]]  # without the script and its model
    return words, left


def _split(text: str) -> list[str]:
    return shlex.split(text.replace("\\\n", ""))


def written(said: Settings, resolution: Resolution) -> tuple[str, list[str]]:
    """The command that says these settings, and the settings that it has no words for."""
    unwritten = Unwritten(dict(said), resolution)
    text = ENGINES[resolution.engine.family].write(unwritten)
    left = [name for name, value in unwritten.settings.items() if value != DEFAULTS[name]]
    if said.get("cache_dit") and said.get("tea_cache"):  # the second of two methods takes the place of the first
        left.append("tea_cache")
    return text, left


def _beside(asked: Settings, features: set[str]) -> Settings:
    """What the reference has of some settings: where all change the image, the adapter alone, beside others."""
    if features <= LOSSY:
        return {"lora": asked["lora"]} if "lora" in features and len(features) > 1 else {}
    lossless = {field for name, feature in catalog().features.items() if name not in LOSSY for field in feature.fields}
    return {name: value for name, value in asked.items() if name not in {*lossless, *RANKED}}


def _is_on(fields: tuple[str, ...], asked: Settings) -> bool:
    return any(name in asked and asked[name] != DEFAULTS[name] for name in fields)


def _needed(small: Small, features: tuple[str, ...], asked: Settings) -> Settings:
    """Steps to skip for a cache, an image of several tiles for tiles, and both branches of guidance for their ranks."""
    needed: Settings = {}
    if "cfg_parallel" in features and small.card.guidance is not None and small.card.guidance.branches > 1:
        needed["negative_prompt"] = NEGATIVE
    if {"cache_dit", "tea_cache"} & {*features}:
        needed["num_inference_steps"] = CACHED_STEPS
    if asked.get("vae_use_tiling"):
        needed |= {"width": TILED.get(small.card.pipeline, TILED_ELSEWHERE) * SIDE, "height": SIDE}
    return needed


def _how(engine: EngineCard) -> dict[str, Any]:
    """How an engine is run: its command, and what else a small model needs."""
    return environment(engine.id).described
