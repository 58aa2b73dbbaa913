"""What is run of each pipeline: settings of a config, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, get_args

from omni_config.schema.document import AttentionBackend

#: Packages of attention backends; the others come with torch.
PACKAGES = {"flash": "flash_attn", "_flash_3": "flash_attn_interface", "sage": "sageattention", "xformers": "xformers"}


@dataclass(frozen=True)
class Case:
    """``changes`` are sections of the config. ``exact``: the image is that of the plain pipeline, up to rounding.

    ``last``: what it does to a model cannot be done again in its process.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    limit: float = 60.0  # seconds
    ranks: int = 1
    last: bool = False


_TEA_CACHE = Case("TeaCache", {"cache": {"tea_cache": True}}, exact=False)
_CACHE_DIT = Case("Cache-DiT", {"cache": {"cache_dit": True}}, exact=False)
_TILES = Case("VAE tiles", {"vae": {"vae_use_tiling": True}})
_LORA = Case("LoRA", {"lora": [{"path": "made here"}]}, exact=False)
_TWO = Case("two images", {"sampling": {"num_images_per_prompt": 2}}, exact=False)
_QUANTIZED = [
    Case(kind, {"execution": {"quantization": kind}}, exact=False)
    for kind in ("int8_weight_only", "fp8_weight_only", "fp8")
]
_OFFLOADS = (
    Case("layerwise offload", {"memory": {"enable_layerwise_offload": True}}, limit=90.0),
    Case("model offload", {"memory": {"enable_cpu_offload": True}}, limit=90.0),
)
_COMPILE = Case("compile", {"execution": {"compile": True}}, limit=180.0)
_BACKENDS = [
    Case(f"attention {name}", {"execution": {"attention_backend": name}}, limit=120.0)
    for name in get_args(AttentionBackend)
    if name != "native" and find_spec(PACKAGES.get(name, "torch"))
]
#: By pipeline, those first that say most. Nobody has published coefficients of TeaCache for Wan.
OF_ONE_GPU = {
    "flux": (Case("plain"), _TEA_CACHE, _CACHE_DIT, _TILES, _LORA, _TWO, *_QUANTIZED, *_BACKENDS, _COMPILE, *_OFFLOADS),
    "wan": (Case("plain"), _CACHE_DIT, _TILES, *_OFFLOADS),
    "z-image": (Case("plain"), _TEA_CACHE, _CACHE_DIT, _TILES, _LORA, _TWO),
    "qwen-image": (Case("plain"), *_QUANTIZED, _TEA_CACHE, _CACHE_DIT, _TILES, _TWO),
}


def of_several_gpus(model: str, ranks: int) -> list[Case]:
    """Each axis over all ranks; guidance is split of what has two branches by default."""
    axes: dict[str, dict[str, Any]] = {}
    if model == "flux":
        axes = {
            f"Ulysses {ranks}": {"ulysses_degree": ranks},
            f"Ring {ranks}": {"ring_degree": ranks},
            f"HSDP {ranks}": {"ulysses_degree": ranks, "use_hsdp": True},
            f"TP {ranks}": {"tensor_parallel_size": ranks},
            f"TP {ranks}, text encoder": {"tensor_parallel_size": ranks, "text_encoder_tensor_parallel": True},
        }
    if model == "wan":
        rest = {"ulysses_degree": ranks // 2} if ranks > 2 else {}
        axes = {
            " ".join(["CFG 2", *(f"Ulysses {degree}" for degree in rest.values())]): {"cfg_parallel_size": 2} | rest
        }
    return [
        Case(name, {"parallel": changes}, limit=120.0, ranks=ranks, last="tensor_parallel_size" in changes)
        for name, changes in axes.items()
    ]
