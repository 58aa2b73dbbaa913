"""From a document to a Plan: adjusting rules to a fixed point, then the refusing ones, then advice. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni_config.cards import EngineCard, ModelCard
from omni_config.findings import Finding
from omni_config.resolving.target import Target
from omni_config.schema.settings import PARAMETERS, Settings, settings_of, tree_of

if TYPE_CHECKING:
    from omni_config.plan import CacheDiT, Plan, TeaCache
    from omni_config.schema.document import Document


@dataclass(frozen=True, eq=False, repr=False)
class Resolution:
    """What a document means: its settings with every default and adjustment in them, and what was found on the way."""

    settings: Settings
    findings: tuple[Finding, ...]
    target: Target

    @property
    def card(self) -> ModelCard:
        """The model."""
        return self.target.card

    @property
    def engine(self) -> EngineCard:
        """The engine."""
        return self.target.engine

    @property
    def plan(self) -> Plan | None:
        """The Plan; None where a finding is an error."""
        return None if any(finding.severity == "error" for finding in self.findings) else self.accepted_plan()

    def accepted_plan(self) -> Plan:
        """The Plan whatever the findings are; for a config whose author has accepted them one by one."""
        return _plan(self.settings, self.target)

    @property
    def document(self) -> Document:
        """The document that says what was resolved; resolving it again changes nothing."""
        from omni_config.schema.document import Document

        return Document.model_validate(tree_of(self.settings))


def resolve(document: Document, target: Target) -> Resolution:
    """Apply all rules to a document, for a model and an engine (``omni_config.target_of``)."""
    return resolve_settings(settings_of(document), target)


def resolve_settings(settings: Settings, target: Target) -> Resolution:
    """``resolve`` for flat settings; the searches call this."""
    settings, findings = target.applied(settings)
    return Resolution(settings, tuple(findings), target)


def _plan(settings: Settings, target: Target) -> Plan:
    from omni_config.mesh import Mesh, further
    from omni_config.plan import VERSION, Hsdp, Lora, Model, Plan, Sampling, Vae, Video

    s, card, engine = settings, target.card, target.engine
    q = target.quantities(s)
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
        mesh=Mesh.of(s, nodes=1 if further(s) else q["nodes"]),  # where there is more, the engine places the ranks
        hsdp=Hsdp(s["hsdp_replicate_size"], q["hsdp_shards"]) if s["use_hsdp"] else None,
        cache=_cache(s, card),
        offload=offload,  # type: ignore[arg-type]
        lora=[Lora(item["path"], float(item["scale"])) for item in s["lora"]],
        quantization=s["quantization"],
        text_encoder_quantization=s["text_encoder_quantization"],
        text_encoder_tensor_parallel=s["text_encoder_tensor_parallel"],
        compile=s["compile"],
        attention_backend=s["attention_backend"] or "native",
        vae=Vae(s["vae_use_tiling"], s["vae_use_slicing"], s["vae_patch_parallel_size"]),
        sampling=Sampling(
            prompt=list(s["prompt"]) if isinstance(s["prompt"], tuple) else s["prompt"],
            negative_prompt=s["negative_prompt"],
            image=s["image"] if q["takes_image"] else None,  # OMNI508 says so
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
