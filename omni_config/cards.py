"""What the catalog knows about models, engines and features, typed. The facts themselves are YAML in ``catalog/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["text_to_image", "image_to_image", "text_to_video", "image_to_video", "text_to_audio"]
Verdict = Literal["supported", "unsupported", "unverified"]


@dataclass(frozen=True, eq=False, repr=False)
class Feature:
    """Something that can be switched on.

    ``active`` tells from the settings that it is on; ``switch_on`` are the smallest settings that make it so, and
    ``switch_off`` those that undo it. The rest says how the matrix asks about it: the ``sizes`` that a plain yes stands
    for, the settings that it is asked ``beside``, in turn, and those that may help where it is refused.
    A ``lossy`` feature changes the result by more than rounding. A ``rare`` one is asked about only where the
    engine has it for some model.
    """

    name: str
    title: str
    active: str
    fields: tuple[str, ...]
    switch_on: dict[str, Any]
    switch_off: dict[str, Any]
    summary: str
    sizes: tuple[int, ...] = ()
    beside: tuple[dict[str, Any], ...] = ()
    helped_by: tuple[dict[str, Any], ...] = ()
    lossy: bool = False
    rare: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Guidance:
    """How a pipeline does classifier-free guidance.

    ``argument`` is the pipeline's own name for the scale; guidance is on above ``off_at``, and for
    ``needs_negative_prompt`` (true CFG) only with a negative prompt. ``calls`` a step: two, or one batched call.
    ``distilled_argument`` is what it calls guidance that is fed to the model as an input, where the model has that.
    """

    argument: str
    off_at: float
    needs_negative_prompt: bool
    calls: Literal["two", "batched"]
    branches: int = 2
    distilled_argument: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TeaCacheFit:
    """How TeaCache's coefficients were found, and for which relative L1 distances of the input they hold.

    ``fitted`` to runs of the model ``to``, or ``tuned`` on it by hand; ``borrowed`` from that other model; or
    ``published`` without a word of how. ``lowest`` and ``highest`` are None where nobody says.
    """

    found: Literal["fitted", "tuned", "borrowed", "published"]
    by: str
    to: str | None = None
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Claim:
    """Which features one source says that a model or pipeline has.

    ``only`` holds the condition of a conditional yes, an expression over quantities. ``effects`` says what the engine
    really does with a feature that is not supported, where that is not what the engine card says of the feature.
    """

    source: str = ""
    supported: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    only: dict[str, str] = field(default_factory=dict)
    effects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class ModelCard:
    """One model: how it is loaded and the numbers that decide how it can be split.

    ``dims`` are counts and widths of the transformer; ``tensor_parallel_splits`` names those that tensor parallelism
    divides. ``vae`` is the diffusers class of the decoder. ``claims`` is by the name of the claimant, which an engine
    card refers to. ``teacache_coefficients`` is a polynomial, highest power first; ``teacache_fit`` tells more of it.
    ``aliases`` are other names under which an engine runs it. ``takes_image``: an engine's pipeline of it takes an
    image where one is given, and runs without.
    """

    id: str
    family: str
    pipeline: str
    task: Task
    guidance: Guidance | None
    defaults: dict[str, Any]
    dtype: Literal["float32", "bfloat16", "float16"]
    dims: dict[str, int]
    tensor_parallel_splits: tuple[str, ...]
    claims: dict[str, Claim]
    sources: tuple[str, ...]
    vae: str | None = None
    teacache_coefficients: tuple[float, ...] | None = None
    teacache_fit: TeaCacheFit | None = None
    aliases: tuple[str, ...] = ()
    takes_image: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class EngineCard:
    """What an engine can do in one version: by pipeline class, or by the claims of model cards that it names.

    ``pipelines`` may hold a model, too, where the models of one pipeline differ.
    ``features`` are those that it has for every model, ``unverified`` those of which nothing is said for any.
    ``effects`` says, by feature, what the engine does where it lacks it. ``aliases`` are other names of this card.
    ``registered`` are the pipelines of its facts. ``own_negative_prompt``: where none is said, it has one. Where
    ``offloads``, an expression over quantities, is true, it offloads by itself when memory is short.
    ``capabilities``: the features that its classes declare, by the names that they have there, of which the facts make
    ``pipelines``. A card without pipelines and without a claimant says the same of every model.
    """

    id: str
    title: str
    source: str
    aliases: tuple[str, ...] = ()
    claimant: str | None = None
    features: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    effects: dict[str, str] = field(default_factory=dict)
    pipelines: dict[str, Claim] = field(default_factory=dict)
    registered: tuple[str, ...] = ()
    own_negative_prompt: bool = False
    offloads: str = ""
    capabilities: dict[str, Any] = field(default_factory=dict)

    @property
    def tells_models_apart(self) -> bool:
        """Whether it says of single models what they can do."""
        return bool(self.pipelines or self.claimant)

    @property
    def family(self) -> str:
        """The engine without its version."""
        return self.id.partition("==")[0]

    def claim(self, card: ModelCard) -> Claim | None:
        """What is said of the model, or None where nothing is."""
        if self.claimant:
            return card.claims.get(self.claimant)
        if not self.tells_models_apart:
            return Claim()
        return self.pipelines.get(card.id) or self.pipelines.get(card.pipeline)

    def has_for_some(self, feature: str) -> bool:
        """Whether it has the feature for any model, or may have it."""
        claims = self.pipelines.values()
        said = (name for claim in claims for name in (*claim.supported, *claim.unverified, *claim.only))
        return feature in self.features or feature in said

    def effect(self, feature: str, card: ModelCard) -> str:
        """What the engine does with a feature that it lacks for this model, as ": it ..."; empty where unknown."""
        claim = self.claim(card)
        effect = (claim.effects.get(feature) if claim else None) or self.effects.get(feature)
        return f": it {effect}" if effect else ""

    def verdict(self, feature: str, card: ModelCard) -> Verdict:
        """Whether this engine has the feature for this model; nothing is denied of a model that it does not name."""
        claim = self.claim(card)
        for verdict in ("supported", "unsupported", "unverified"):
            if claim is not None and feature in getattr(claim, verdict):
                return verdict
        if claim is not None and feature in claim.only:
            return "supported"
        if feature in self.features:
            return "supported"
        return "unsupported" if claim is not None and feature not in self.unverified else "unverified"


@dataclass(frozen=True, eq=False, repr=False)
class Disagreement:
    """A question that an engine's guide, its tables and its source answer differently; None where one is silent.

    ``models`` and ``features`` say which cells of the matrix it is about; ``run`` is a command that shows it, and
    ``shows`` its outcome, where the engine itself has been run.
    """

    topic: str
    we_follow: str
    why: str
    prose: str | None = None
    table: str | None = None
    source_code: str | None = None
    models: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    run: str | None = None
    shows: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Retired:
    """A code that is no rule any more, and is never given to another: ``since`` is the version of omni-config."""

    code: str
    name: str
    since: str
    why: str
    replaced_by: str = ""
