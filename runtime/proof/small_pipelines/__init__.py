"""Small pipelines of random weights with which other engines are run, too: who changes one runs those again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.proof.small_pipelines import flux_2, hunyuan_video_1_5, ltx_2, stable_diffusion_3

#: What builds each class.
PIPELINES: dict[str, Callable[[], Any]] = {
    "Flux2Pipeline": flux_2.flux_2,
    "Flux2KleinPipeline": flux_2.flux_2_klein,
    "HunyuanVideo15Pipeline": hunyuan_video_1_5.hunyuan_video_15,
    "LTX2Pipeline": ltx_2.ltx_2,
    "StableDiffusion3Pipeline": stable_diffusion_3.stable_diffusion_3,
}
#: What lies in a class's published folder beside the pipeline, saved into a folder.
BESIDE: dict[str, Callable[[Any, Path], None]] = {"LTX2Pipeline": ltx_2.beside}
