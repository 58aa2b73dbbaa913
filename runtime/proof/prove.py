"""Proves a Plan by a run: what its ranks compute is what the plain pipeline computes on one.

The reference of a Plan is the plain pipeline on one rank: no parallelism, no cache, no offload. It decodes in tiles
where the Plan does, because tiles make another image: the norms of a decoder see one tile. Only where tiles are all
that the Plan switches on does the reference decode the whole image. It loads the same adapters; only where they are all
that the Plan switches on does the reference have them added to its weights. Last latents and images are compared,
within the bound of what the Plan switches on and the reference does not. A comparison that cannot fail proves nothing,
so each run is followed by controls: the same call with a weight of one rank damaged must break the bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from omni_config.plan import Plan
from runtime.proof.batch import Case, Outcome, run
from runtime.report import RankResult, versions

if TYPE_CHECKING:
    from runtime.proof.batch import Arrays, Damage, Part

Kind = Literal["lossless", "cache", "quantized", "tiles"]
#: How much nearer to the reference's image than any damage a cache or tiles must be, in dB, where damage changes
#: little: half the squared error.
NEARER = 3.0


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a run is from the reference."""

    difference: float
    """Largest absolute difference of any rank's last latents, and of rank 0's sound, where there is any."""
    psnr: float
    """Of rank 0's image, in dB of its 8-bit values; infinite where the images are equal."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a distance must keep: at most this difference (infinite: any), and at least this PSNR."""

    difference: float
    psnr: float

    def holds(self, distance: Distance) -> bool:
        """Whether a distance keeps both; one that is not a number keeps none."""
        return distance.difference <= self.difference and distance.psnr >= self.psnr


@dataclass(frozen=True, slots=True)
class Proof:
    """What a run has shown of a Plan. ``seconds`` is wall-clock of the run with its controls, beside other runs."""

    plan: dict[str, Any]
    kind: Kind
    bound: Bound
    distance: Distance | None
    """None where the run, or its reference, failed."""
    controls: dict[str, Distance]
    """By the part in which a weight was damaged."""
    problem: str | None
    """Why this proves nothing, in one line; None where it does."""
    features: dict[str, dict[str, Any]]
    """What each feature measured on rank 0."""
    seconds: float
    versions: dict[str, str]
    log: str = ""
    """The traceback of the rank that failed; of a run that made no progress, the stacks of its ranks."""

    @property
    def passed(self) -> bool:
        """Whether the bound was kept, and broken by every control."""
        return self.problem is None

    def to_dict(self) -> dict[str, Any]:
        """The proof as JSON-ready values; numbers that are not finite are None."""
        return {"passed": self.passed} | _finite(asdict(self))  # type: ignore[operator, no-any-return]


def prove(plan: Plan, *, timeout: float = 600.0, on_progress: Callable[[int, int], None] | None = None) -> Proof:
    """Run a Plan and its reference, and compare them.

    Raises:
        LaunchError: torchrun failed as a whole; a run that fails is a Proof with a problem.
    """
    return prove_all({"": plan}, timeout=timeout, on_progress=on_progress)[""]


def prove_all(
    plans: Mapping[str, Plan],
    *,
    timeout: float = 600.0,
    on_progress: Callable[[int, int], None] | None = None,
    on_proof: Callable[[str, Proof], None] | None = None,
) -> dict[str, Proof]:
    """Prove many Plans under one start of torchrun, as many ranks at once as the largest needs; the proofs by name.

    References are run once for all Plans that share them. ``timeout`` bounds the seconds in which a run makes no
    progress. ``on_progress`` gets the number of runs that are done, and of all. ``on_proof`` gets the name and the
    proof of each Plan as soon as it is judged: what it has taken is not lost where this raises, or is interrupted.

    Raises:
        LaunchError: torchrun failed as a whole; a run that fails is a Proof with a problem.
    """
    references = {name: json.dumps([plan.plain().to_dict(), _merged(plan)]) for name, plan in plans.items()}
    cases = {references[name]: Case(plan.plain(), merged=_merged(plan)) for name, plan in plans.items()}
    cases |= {f"plan {name}": Case(plan, _controls(plan)) for name, plan in plans.items()}
    outcomes: dict[str, Outcome] = {}
    proofs: dict[str, Proof] = {}

    def judge(case: str, outcome: Outcome) -> None:
        outcomes[case] = outcome
        for name, plan in plans.items():
            own, plain = outcomes.get(f"plan {name}"), outcomes.get(references[name])
            if case in (f"plan {name}", references[name]) and own is not None and plain is not None:
                proofs[name] = _judge(plan, own, plain)
                if on_proof is not None:
                    on_proof(name, proofs[name])

    run(cases, timeout=timeout, on_progress=on_progress, on_outcome=judge)
    return {name: proofs[name] for name in plans}


def _is_own_reference(plan: Plan) -> bool:
    return replace(plan, output="") == plan.plain()


def _merged(plan: Plan) -> bool:
    """Whether the reference has the adapters in its weights, as it would be the same otherwise."""
    return bool(plan.lora) and _is_own_reference(plan)


def kind(plan: Plan) -> Kind:
    """What a Plan switches on, and its reference does not, that bounds how near they can be."""
    if plan.cache is not None:
        return "cache"
    if plan.quantization is not None or plan.text_encoder_quantization is not None:
        return "quantized"
    return "tiles" if plan.vae.use_tiling and not plan.plain().vae.use_tiling else "lossless"


def bound(plan: Plan) -> Bound:
    """The bound of a Plan.

    Latents of half precision round differently in each order of summation (by up to 0.09 in bfloat16 on the embedded
    model, whose images were then 52 dB apart), so there the image alone is bounded. So it is where an input image
    is encoded in tiles. How much tiles change depends on the decoder, and a cache on the model, as does what a damaged
    weight changes: see ``NEARER``.
    """
    exact = plan.model.dtype == "float32"
    if kind(plan) in ("cache", "quantized"):
        return Bound(math.inf, 35.0)
    if kind(plan) == "tiles":
        return Bound(1e-4 if exact and not _encodes(plan) else math.inf, 20.0)
    return Bound(1e-4, 48.0) if exact else Bound(math.inf, 40.0)  # each value off by one: 48.1 dB


def _encodes(plan: Plan) -> bool:
    """Whether the VAE encodes an input: VACE's does, of grey frames where none are given."""
    return plan.model.task.startswith("image_to_") or plan.model.pipeline == "WanVACEPipeline"


def _controls(plan: Plan) -> dict[Part, Damage]:
    """A number is enough where latents must agree; images may differ by more than it changes, and so may latents
    where a prompt's tokens hardly heed it."""
    controls: dict[Part, Damage] = {"transformer": "number" if bound(plan).difference < math.inf else "matrix"}
    if plan.text_encoder_tensor_parallel or plan.text_encoder_quantization is not None:
        controls["text_encoder"] = "matrix"
    shared = len(plan.decoding_ranks) > 1 or kind(plan) == "tiles"
    return controls | {"vae": "matrix"} if shared else controls


def _judge(plan: Plan, own: Outcome, plain: Outcome) -> Proof:
    limit = bound(plan)
    distance: Distance | None = None
    controls: dict[str, Distance] = {}
    problem = own.error
    if own.error is None and plain.error is not None:
        problem = f"the plain pipeline: {plain.error}"
    if problem is None:
        distance = _distance(own, plain)
        controls = {part: _distance(own, plain, f"{part} ") for part in _controls(plan)}
        unnoticed = [control.psnr for control in controls.values() if limit.holds(control)]
        if unnoticed and kind(plan) != "lossless" and max(unnoticed) + NEARER <= distance.psnr:
            limit = replace(limit, psnr=max(unnoticed) + NEARER)
        problem = _problem(plan, limit, distance, controls, own.ranks[0])
    return Proof(
        plan=plan.to_dict(),
        kind=kind(plan),
        bound=limit,
        distance=distance,
        controls=controls,
        problem=problem,
        features=own.ranks[0].features if own.ranks else {},
        seconds=own.seconds,
        versions=versions(),
        log=own.traceback or plain.traceback,
    )


def _problem(
    plan: Plan, limit: Bound, distance: Distance, controls: dict[str, Distance], measured: RankResult
) -> str | None:
    decoded = measured.features.get("vae", {})
    if _is_own_reference(plan) and not plan.lora:
        return "the config is the plain pipeline, so there is nothing to compare"
    if not distance.difference <= limit.difference:
        return f"latents differ by {distance.difference:.2g}, and {limit.difference:g} is allowed"
    if not distance.psnr >= limit.psnr:
        return f"the image is {distance.psnr:.1f} dB from that of the plain pipeline, and {limit.psnr:g} are needed"
    if kind(plan) == "cache" and not measured.steps_cached:
        return "no step was cached, so nothing was compared; more steps, or a higher threshold"
    if plan.mesh.cfg > 1 and not measured.features["cfg_parallel"]["calls_shared"]:
        return "no call of the transformer was shared by the branches of guidance, so nothing was compared"
    if plan.attention_backend != "native" and not measured.features["attention_backend"]["calls"]:
        return "no attention was computed by the backend, so nothing was compared"
    if kind(plan) == "tiles" and decoded["decoder_calls"] < 2:
        return "the image is no larger than a tile, so nothing was compared; choose a larger width or height"
    if plan.vae.use_slicing and decoded["most_pictures_a_call"] > 1:
        return f"{decoded['most_pictures_a_call']} images were decoded at once, in spite of slicing"
    for part, control in controls.items():
        if limit.holds(control):
            why = "; an image that is no larger than a tile is decoded by one rank" if part == "vae" else ""
            return f"a damaged weight of the {part} was not noticed, so the comparison proves nothing{why}"
    return None


def _distance(own: Outcome, plain: Outcome, prefix: str = "") -> Distance:
    import numpy as np

    expected: Arrays = plain.arrays[0]
    latents = [float(np.abs(arrays[f"{prefix}latents"] - expected["latents"]).max()) for arrays in own.arrays]
    if "sound" in expected:
        latents.append(float(np.abs(own.arrays[0][f"{prefix}sound"] - expected["sound"]).max()))
    images = (own.arrays[0][f"{prefix}image"], expected["image"])
    error = float(np.mean((images[0].astype(float) - images[1]) ** 2))
    return Distance(float(np.max(latents)), 10 * math.log10(255**2 / error) if error else math.inf)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
