"""From a document to a Plan: adjusting rules to a fixed point, then the refusing ones, then advice. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog.load import catalog
from omni_config.findings import Finding
from omni_config.rules.quantities import Quantities
from omni_config.rules.rule import Rule
from omni_config.schema.settings import PARAMETERS, Settings, settings_of, tree_of

if TYPE_CHECKING:
    from omni_config.plan import CacheDiT, Plan, TeaCache
    from omni_config.schema.document import Document


@dataclass(frozen=True)
class Resolution:
    """What a document means: its settings with every default and adjustment in them, and what was found on the way."""

    settings: Settings
    findings: tuple[Finding, ...]
    card: ModelCard
    engine: EngineCard

    @property
    def plan(self) -> Plan | None:
        """The Plan; None where a finding is an error."""
        return None if any(finding.severity == "error" for finding in self.findings) else self.accepted_plan()

    def accepted_plan(self) -> Plan:
        """The Plan whatever the findings are; for a config whose author has accepted them one by one."""
        return _plan(self.settings, self.card, self.engine)

    @property
    def document(self) -> Document:
        """The document that says what was resolved; resolving it again changes nothing."""
        from omni_config.schema.document import Document

        return Document.model_validate(tree_of(self.settings))


def resolve(document: Document, card: ModelCard, engine: EngineCard, policies: tuple[Rule, ...] = ()) -> Resolution:
    """Apply all rules, and an organisation's own, to a document, for a model and an engine."""
    return resolve_settings(settings_of(document), card, engine, (*catalog().rules, *policies))


def resolve_settings(settings: Settings, card: ModelCard, engine: EngineCard, rules: Iterable[Rule]) -> Resolution:
    """``resolve`` for flat settings and given rules; the searches call this."""
    features = catalog().features
    defaults = card.defaults | {"dtype": card.dtype}
    settings = settings | {name: value for name, value in defaults.items() if settings[name] is None}
    adjusting = [rule for rule in rules if rule.adjusts]
    findings: list[Finding] = []
    q = Quantities(settings, card, engine, features)
    # Each adjustment switches something off or lowers it, so there is an end, and it does not depend on the order:
    # no adjusting rule reads what another one lowers, which a test shuffles.
    while found := [finding for rule in adjusting for finding in rule.check(q)]:
        findings += found
        settings = settings | {name: value for finding in found for name, value in finding.changes}
        q = Quantities(settings, card, engine, features)
    for rule in rules:
        if not rule.adjusts:
            findings += rule.check(q)
    if settings["gpus"] is None:
        settings = settings | {"gpus": q["world_size"]}
    return Resolution(settings, tuple(findings), card, engine)


def _plan(settings: Settings, card: ModelCard, engine: EngineCard) -> Plan:
    from omni_config.mesh import Mesh
    from omni_config.plan import VERSION, Lora, Model, Plan, Sampling, Vae, Video

    s = settings
    q = Quantities(s, card, engine, catalog().features)
    if s["enable_layerwise_offload"]:
        offload = "layerwise"
    else:
        offload = "model" if s["enable_cpu_offload"] else "none"
    guidance = {}
    if card.guidance and s["cfg_scale"] is not None:
        guidance[card.guidance.argument] = float(s["cfg_scale"])
    if card.guidance and card.guidance.distilled_argument and s["guidance_scale"] is not None:
        guidance[card.guidance.distilled_argument] = float(s["guidance_scale"])
    return Plan(
        version=VERSION,
        engine=engine.id,
        model=Model(card.id, s["model"], card.pipeline, card.task, s["dtype"]),
        guidance_calls=card.guidance.calls if card.guidance else None,
        mesh=Mesh.of(s, nodes=q["nodes"]),
        cache=_cache(s, card),
        offload=offload,  # type: ignore[arg-type]
        lora=[Lora(item["path"], float(item["scale"])) for item in s["lora"]],
        text_encoder_tensor_parallel=s["text_encoder_tensor_parallel"],
        compile=s["compile"],
        attention_backend=s["attention_backend"] or "native",
        vae=Vae(s["vae_use_tiling"], s["vae_use_slicing"], s["vae_patch_parallel_size"]),
        sampling=Sampling(
            prompt=s["prompt"],
            negative_prompt=s["negative_prompt"],
            image=s["image"] if card.task.startswith("image_to_") else None,  # OMNI508 says so
            width=s["width"],
            height=s["height"],
            num_images_per_prompt=s["num_images_per_prompt"],
            video=Video(s["num_frames"], s["fps"]) if card.task.endswith("_to_video") else None,  # OMNI511 says so
            num_inference_steps=s["num_inference_steps"],
            guidance=guidance,
            guidance_branches=q["cfg_branches"],
            seed=s["seed"],
        ),
        output=s["output"],
    )


def _cache(settings: Settings, card: ModelCard) -> TeaCache | CacheDiT | None:
    from omni_config.plan import CacheDiT, TeaCache

    if settings["cache_dit"]:
        return CacheDiT(**{name: settings[name] for name in PARAMETERS["cache_dit"]})
    if settings["tea_cache"]:
        parameters = {name: settings[name] for name in PARAMETERS["tea_cache"]}
        coefficients = parameters["coefficients"] or card.teacache_coefficients
        return TeaCache(**parameters | {"coefficients": coefficients and tuple(map(float, coefficients))})
    return None
