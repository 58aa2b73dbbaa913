"""Quantities that rules speak of by name: settings, dimensions of the model, features, and the derived ones below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd
from typing import Any, TypeVar

from omni_config.cards import EngineCard, Feature, ModelCard
from omni_config.mesh import degree, further, ranks
from omni_config.rules.expressions import parse

T = TypeVar("T")


class NotKnown(TypeError):
    """A rule asked for what only a run knows."""


class _Unknown:
    """The value of a setting that only a run knows, or that is said twice: it is there, so it is not None, and whoever
    compares it gets an error.
    """

    def _refuse(self, *_: object) -> Any:
        raise NotKnown("this value is not known")

    def __str__(self) -> str:
        return "(not known)"

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__


UNKNOWN = _Unknown()


def has_unknown(value: Any) -> bool:
    """Whether a value, or any part of it, is one that only a run knows."""
    if isinstance(value, dict | list | tuple):
        return any(map(has_unknown, value.values() if isinstance(value, dict) else value))
    return value is UNKNOWN


class Quantities(dict[str, Any]):
    """Settings and card facts, with derived quantities computed when they are first asked for.

    Unknown dimensions are None, and rules that need them are skipped.
    """

    def __init__(
        self, settings: Mapping[str, Any], card: ModelCard, engine: EngineCard, features: Mapping[str, Feature]
    ) -> None:
        super().__init__(settings)
        self.settings = settings
        self.card = card
        self.engine_card = engine
        self.features = features

    def __missing__(self, name: str) -> Any:
        if name in DERIVED:
            value = DERIVED[name](self)
        elif name in self.features:
            value = bool(parse(self.features[name].active)(self))
        elif name in DIMS:
            value = self.card.dims.get(name)
        elif name.startswith(THEIRS):
            if SAYS_MORE in self:
                raise TypeError("only a run knows whether this is set")
            value = None  # the file does not say it
        else:
            raise KeyError(name)
        self[name] = value
        return value

    def changed(self, **changes: Any) -> Quantities:
        """The quantities of the same config with other settings."""
        settings = {name: self[name] for name in self.settings}  # through self, which may note what is read
        return Quantities(settings | changes, self.card, self.engine_card, self.features)


#: In front of the name of an engine's own setting, for which there is none of ours: its value, or None where the file
#: does not say it.
THEIRS = "their_"

#: Beside them: there may be others, which only a run knows.
SAYS_MORE = "says_more"

#: Derived quantities by name, each a function of the others; see ``quantity``.
DERIVED: dict[str, Callable[[Quantities], Any]] = {}


def quantity(function: Callable[[Quantities], T]) -> Callable[[Quantities], T]:
    """Makes a function a derived quantity: rules speak of it by its name, and its docstring says what it is."""
    DERIVED[function.__name__] = function
    return function


#: Dimensions that a model card may state, with the words for people.
DIMS = {
    "num_attention_heads": "attention heads",
    "num_kv_heads": "key/value heads",
    "hidden_size": "hidden size",
    "attention_width": "width of all attention heads together, where it is not the hidden size",
    "ffn_dim": "feed-forward width",
    "output_dim": "output width",
    "num_layers": "blocks",
    "two_transformers": "1 where two transformers take turns",
    "without_text_encoder": "1 where the pipeline has no text encoder",
    "vae_only_tiles": "1 where the VAE decodes in tiles in any case",
    "ffn_matrices": "matrices of a feed-forward: 2, or 3 where it is gated",
    "double_stream_layers": "blocks with weights of their own for the text",
    "refiner_layers": "blocks that the image passes before it meets the text, which passes as many",
    "cross_attention": "1 where text enters by cross-attention rather than as tokens of the sequence",
    "linear_attention": "1 where attention is linear in the number of tokens",
    "text_tokens": "tokens of a prompt",
    "condition_tokens": "tokens of the input image in the sequence",
    "patch_size": "patch size",
    "vae_scale_factor": "VAE scale factor",
    "vae_temporal_factor": "frames a latent frame",
    "transformer_parameters": "parameters of the transformer, in millions",
    "text_encoder_parameters": "parameters of the text encoders, in millions",
    "text_encoder_whole_parameters": "those of them that no rank shares: embeddings, heads, vision; in millions",
    "text_encoder_heads": "attention heads of the text encoder",
    "text_encoder_kv_heads": "key/value heads of the text encoder",
    "text_encoder_ffn_dim": "feed-forward width of the text encoder",
}


@quantity
def world_size(q: Quantities) -> int:
    """Ranks: ulysses x ring x cfg x tensor, and what else the engine has."""
    return ranks(q)


@quantity
def further_degrees(q: Quantities) -> str:
    """The axes that only other engines have, where they are in use: " x allgather 2"."""
    return "".join(f" x {name} {size}" for name, size in further(q).items())


@quantity
def dit_group_size(q: Quantities) -> int:
    """Ranks that hold the DiT, and so the group that VAE patch parallelism reuses."""
    return world_size(q)


@quantity
def text_encoder_ranks(q: Quantities) -> int:
    """Ranks that share one copy of the text encoder: as many as its own setting says, else those of tensor parallelism;
    with cache-dit all.
    """
    own = int(q["text_encoder_tensor_parallel_size"])
    if own > 1 or not q["text_encoder_tensor_parallel"]:
        return own
    return int(q["world_size"] if q["engine_name"].startswith("cache-dit") else q["tensor_parallel_size"])


@quantity
def heads_per_tensor_rank(q: Quantities) -> int | None:
    """Attention heads that one tensor rank holds; None where they are unknown or do not divide."""
    return _shared(q["num_attention_heads"], q["tensor_parallel_size"])


@quantity
def kv_heads_per_tensor_rank(q: Quantities) -> int | None:
    """Key/value heads that one tensor rank holds; None where they are unknown or do not divide."""
    return _shared(q["num_kv_heads"], q["tensor_parallel_size"])


def _shared(count: int | None, ranks: int) -> int | None:
    return None if count is None or count % ranks else count // ranks


@quantity
def tensor_parallel_choices(q: Quantities) -> str:
    """Tensor-parallel sizes that divide every dimension which the model card says is split: "1 or 2"."""
    common = gcd(*(q.card.dims[name] for name in q.card.tensor_parallel_splits)) or 1
    return one_of([size for size in range(1, common + 1) if common % size == 0])


@quantity
def tensor_parallel_dims(q: Quantities) -> str:
    """The dimensions that tensor parallelism splits, for people."""
    return ", ".join(f"{DIMS[name]} {q.card.dims[name]}" for name in q.card.tensor_parallel_splits)


@quantity
def ulysses_choices(q: Quantities) -> str:
    """Ulysses degrees that divide the heads of a tensor rank."""
    heads = q["heads_per_tensor_rank"] or 1
    return one_of([size for size in range(1, heads + 1) if heads % size == 0])


@quantity
def cfg_branches(q: Quantities) -> int:
    """Predictions that classifier-free guidance makes a step; 1 where it is off."""
    guidance = q.card.guidance
    if guidance is None or not q["guided"] or (q["needs_negative_prompt"] and q["negative_prompt"] is None):
        return 1
    return guidance.branches


@quantity
def pixel_multiple(q: Quantities) -> int | None:
    """Width and height must be multiples of this: pixels a latent times latents a patch."""
    scale, patch = q["vae_scale_factor"], q["patch_size"]
    return None if scale is None or patch is None else scale * patch


#: Pipelines of diffusers 0.42.1 and vLLM-Omni 0.26 to 0.32 that round other sizes, most of them with a warning.
_ROUNDS = frozenset(
    f"{name}Pipeline"
    for name in (
        "Flux",
        "FluxKontext",
        "Flux2",
        "Flux2Klein",
        "QwenImage",
        "QwenImageEdit",
        "QwenImageEditPlus",
        "LongCatImage",
        "LongCatImageEdit",
        "OvisImage",
    )
)


@quantity
def other_sizes_run(q: Quantities) -> bool:
    """Whether the engine runs sizes that are no multiples too. SGLang checks none but in stages that have own rules."""
    return q["engine_name"].startswith("sglang") or (q["engine_name"] != "native" and q["pipeline_name"] in _ROUNDS)


@quantity
def image_tokens(q: Quantities) -> int | None:
    """Tokens of the image or video: latent frames x rows x columns of patches. Text tokens come on top."""
    multiple, temporal, frames = q["pixel_multiple"], q["vae_temporal_factor"], q["num_frames"]
    if multiple is None or q["width"] is None or q["height"] is None:
        return None
    latent_frames = 1 if temporal is None or frames is None else (frames - 1) // temporal + 1
    return int(latent_frames * (q["width"] // multiple) * (q["height"] // multiple))


@quantity
def sequence_ranks(q: Quantities) -> int:
    """Ranks that share a sequence: ulysses x ring x allgather x those of 2D attention."""
    return int(q["ulysses_degree"] * q["ring_degree"] * q["allgather_degree"] * degree(q["attention_2d"]))


@quantity
def attention_2d_ranks(q: Quantities) -> int:
    """Rows times columns of 2D attention; 1 where it is off."""
    return degree(q["attention_2d"])


@quantity
def tokens_per_rank(q: Quantities) -> int | None:
    """Image tokens that one rank holds."""
    tokens = q["image_tokens"]
    return None if tokens is None else tokens // q["sequence_ranks"]


@quantity
def gpu_count(q: Quantities) -> int:
    """GPUs of the deployment; the product of the degrees where the config does not say."""
    return int(q["gpus"] or q["world_size"])


@quantity
def inferred_replicas(q: Quantities) -> int:
    """Whole replicas that the GPUs allow: gpus / world_size."""
    return int(q["gpu_count"] // q["world_size"])


@quantity
def replicas(q: Quantities) -> int:
    """Whole replicas that the config asks for; 1 where it does not say."""
    return int(q["data_parallel_size"] or 1)


@quantity
def gpus_needed(q: Quantities) -> int:
    """GPUs that the degrees and replicas add up to, and those of a VAE with ranks of its own; as many as there
    are, where only a run knows what else is set.
    """
    if SAYS_MORE in q and q["gpus"]:
        return int(q["gpus"])
    return int(q["world_size"] * q["replicas"] + count(q, "their_vae_parallel_size"))


@quantity
def used_gpus(q: Quantities) -> Any:
    """GPUs that the engine takes: as many as it is told, else what its ranks add up to."""
    said = q["their_used_gpus"]
    return int(q["gpus"] or q["gpus_needed"]) if said is None else said


@quantity
def more_ranks(q: Quantities) -> str:
    """What a VAE with ranks of its own adds to the product of the degrees: " + VAE 1"."""
    vae = count(q, "their_vae_parallel_size")
    return f" + VAE {vae}" if vae else ""


def count(q: Quantities, name: str) -> int:
    """A count that an engine's own setting says; 0 where it says none, or only a run knows."""
    value = None if SAYS_MORE in q and name not in q else q[name]
    return value if isinstance(value, int) else 0


@quantity
def other_ranks(q: Quantities) -> int:
    """Ranks that HSDP may shard over: cfg x those of a sequence."""
    return int(q["cfg_parallel_size"] * q["sequence_ranks"])


@quantity
def hsdp_shards(q: Quantities) -> int:
    """Ranks that share one copy of the weights by HSDP; without a number, all that a copy leaves."""
    said = int(q["hsdp_shard_size"])
    return said if said > 0 else max(1, int(q["other_ranks"]) // int(q["hsdp_replicate_size"]))


@quantity
def bytes_per_value(q: Quantities) -> int:
    """Bytes of a weight or an activation that is not quantized: 4 in float32, else 2."""
    return 4 if (q["dtype"] or q.card.dtype) == "float32" else 2


#: Pipelines whose text encoder SGLang 0.5.18 to 0.5.23 keeps in float32 (configs/pipeline_configs/wan.py, helios.py).
_FLOAT32_TEXT = frozenset(
    f"{name}Pipeline"
    for name in ("Wan", "WanImageToVideo", "WanDMD", "WanCausalDMD", "WanImageToVideoDmd", "Helios", "HeliosPyramid")
)


@quantity
def text_encoder_bytes(q: Quantities) -> int:
    """Bytes of a weight of the text encoder's blocks: 1 where they are quantized."""
    return 1 if q["text_encoder_quantization"] else int(q["text_encoder_whole_bytes"])


@quantity
def text_encoder_whole_bytes(q: Quantities) -> int:
    """The same before it is quantized; 4 where the engine keeps it in float32 whatever the DiT has."""
    wide = q["engine_name"].startswith("sglang") and q["pipeline_name"] in _FLOAT32_TEXT
    return 4 if wide else int(q["bytes_per_value"])


@quantity
def offline(q: Quantities) -> bool:
    """Whether the config says what to generate; a server's config does not."""
    return bool(q["prompt"] != "")


@quantity
def card_branches(q: Quantities) -> int:
    """Branches that the model's guidance has when it is on; 1 for a model without."""
    return q.card.guidance.branches if q.card.guidance else 1


@quantity
def guidance_off_at(q: Quantities) -> float | None:
    """Guidance is on above this scale."""
    return q.card.guidance.off_at if q.card.guidance else None


@quantity
def needs_negative_prompt(q: Quantities) -> bool:
    """Whether the model's guidance is off without a negative prompt (true CFG), and the engine has none of its own."""
    needs = q.card.guidance is not None and q.card.guidance.needs_negative_prompt
    return needs and not q.engine_card.own_negative_prompt


@quantity
def batched_guidance(q: Quantities) -> bool:
    """Whether both branches of guidance are one call of the model, with both prompts in one batch."""
    return q.card.guidance is not None and q.card.guidance.calls == "batched"


@quantity
def takes_distilled_guidance(q: Quantities) -> bool:
    """Whether guidance_scale is an input of the model."""
    return q.card.guidance is not None and q.card.guidance.distilled_argument is not None


@quantity
def guided(q: Quantities) -> bool:
    """Whether the guidance scale alone would switch classifier-free guidance on."""
    return bool(
        q["guidance_off_at"] is not None and q["cfg_scale"] is not None and q["cfg_scale"] > q["guidance_off_at"]
    )


@quantity
def prompt_letters(q: Quantities) -> int | None:
    """Characters of the prompt, of several the longest; None where the config has none."""
    prompt = q["prompt"]
    return max(map(len, prompt)) if isinstance(prompt, tuple) else None if prompt is None else len(prompt)


@quantity
def prompts(q: Quantities) -> int:
    """Prompts of one call of the pipeline."""
    return len(q["prompt"]) if isinstance(q["prompt"], tuple) else 1


@quantity
def images(q: Quantities) -> int:
    """Images, or videos, of one call of the pipeline."""
    return int(q["prompts"] * q["num_images_per_prompt"])


@quantity
def negative_letters(q: Quantities) -> int:
    """Characters of the negative prompt; 0 where the config has none."""
    return len(q["negative_prompt"] or "")


@quantity
def task(q: Quantities) -> str:
    """What the model makes of what."""
    return q.card.task


#: Pipelines of the built-in runtime that look at an image where one is given; WanPipeline is exchanged for another.
_OPTIONAL_IMAGE = frozenset(
    ("Flux2Pipeline", "Flux2KleinPipeline", "QwenImage21Pipeline", "WanVACEPipeline", "WanPipeline")
)


@quantity
def takes_image(q: Quantities) -> bool:
    """Whether a pipeline of the model looks at an input image; not all that engines take does the built-in runtime."""
    runs = q["engine_name"] != "native" or q["pipeline_name"] in _OPTIONAL_IMAGE
    return q.card.task.startswith("image_to_") or (q.card.takes_image and runs)


@quantity
def needs_image(q: Quantities) -> bool:
    """Whether an engine's pipeline of the model fails without an input image; xDiT's runner asks for one by itself."""
    optional = q.card.takes_image and str(q["engine_name"]).partition("==")[0] not in ("native", "xdit")
    return q.card.task.startswith("image_to_") and not optional


@quantity
def known_coefficients(q: Quantities) -> bool:
    """Whether TeaCache has coefficients: the config's own, or the model card's."""
    return q["coefficients"] is not None or q.card.teacache_coefficients is not None


@quantity
def some_adapter_is_off(q: Quantities) -> bool:
    """Whether a LoRA adapter has scale 0."""
    return any((item["scale"] if isinstance(item, dict) else item.scale) == 0 for item in q["lora"])


@quantity
def some_adapter_is_a_file(q: Quantities) -> bool:
    """Whether a LoRA adapter is a file of weights, and not a folder or a repository."""
    paths = [item["path"] if isinstance(item, dict) else item.path for item in q["lora"]]
    return any(str(path).endswith(".safetensors") for path in paths)


@quantity
def model_name(q: Quantities) -> str:
    """Id of the model card."""
    return q.card.id


@quantity
def pipeline_name(q: Quantities) -> str:
    """Pipeline class of the model."""
    return q.card.pipeline


@quantity
def engine_knows_model(q: Quantities) -> bool:
    """Whether the engine's card says anything of the model, or the engine registers its pipeline."""
    return q.engine_card.claim(q.card) is not None or q.card.pipeline in q.engine_card.registered


@quantity
def engine_name(q: Quantities) -> str:
    """Id of the engine card."""
    return q.engine_card.id


def one_of(values: list[int]) -> str:
    """``[1, 2, 4]`` as "1, 2 or 4"."""
    *front, last = [str(value) for value in values]
    return f"{', '.join(front)} or {last}" if front else last
