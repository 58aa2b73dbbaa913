"""What one pass through a DiT computes, from the dimensions of its card and the size of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEEDED = ("num_layers", "num_attention_heads", "hidden_size", "ffn_dim", "image_tokens")


@dataclass(frozen=True, slots=True)
class Work:
    """One pass of one image through all blocks, undivided. Flops count a multiplication and an addition as two.

    ``tokens`` are those that attend to each other: the image's, its condition's, and the text's where text joins the
    sequence. ``block_weights`` are the elements of the blocks' matrices; ``all_reduces`` what tensor parallelism needs
    in a pass, each of a hidden vector a token. ``calls`` are blocks as they are called: one with weights of its own for
    the text counts twice.
    """

    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    tokens: int
    projection_flops: float
    ffn_flops: float
    attention_flops: float
    block_weights: float
    all_reduces: int
    live_values: float
    batch: int
    calls: int


def unknown(q: Mapping[str, Any]) -> list[str]:
    """Names of the quantities without which nothing can be estimated, and which the card does not state."""
    return [name for name in NEEDED if q[name] is None]


def work_of(q: Mapping[str, Any]) -> Work:
    """The work of a config; ``unknown`` must be empty."""
    blocks, heads, hidden, ffn = (q[name] for name in NEEDED[:4])
    kv_heads = q["num_kv_heads"] or heads
    double, refiners = q["double_stream_layers"] or 0, q["refiner_layers"] or 0
    text, crossed = q["text_tokens"] or 0, bool(q["cross_attention"])
    image = q["image_tokens"] + (q["condition_tokens"] or 0)
    tokens = image if crossed else image + text
    width = q["attention_width"] or hidden
    attention = 2 * hidden * width + 2 * hidden * (width * kv_heads // heads)
    feed_forward = (q["ffn_matrices"] or 2) * hidden * ffn
    # Refiners are blocks of the same size before the joint ones: some see only the image, as many only the text.
    passes = blocks + refiners
    scores = blocks * tokens**2 + refiners * (image**2 + text**2)
    projections = passes * tokens * attention
    weights = (blocks + double + 2 * refiners) * (attention + feed_forward)
    if q["linear_attention"]:  # a state of head by head for each head, instead of scores of token by token
        scores = passes * tokens * 2 * width // heads
    if crossed:
        projections += blocks * (image + text) * 2 * hidden * hidden
        scores += blocks * image * text
        weights += blocks * 4 * hidden * hidden
    # A block of a single stream behind double ones has attention and feed-forward side by side, and adds them once.
    fused = blocks - double if double else 0
    return Work(
        blocks=passes,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        tokens=tokens,
        projection_flops=2.0 * projections,
        ffn_flops=2.0 * passes * tokens * feed_forward,
        attention_flops=4.0 * scores * width,
        block_weights=float(weights),
        all_reduces=(3 if crossed else 2) * (passes - fused) + fused,
        # Hidden vectors around attention, and the wide ones inside the feed-forward; more where both are live at once.
        live_values=float(tokens * ((6 + (4 if fused else 0)) * hidden + (q["ffn_matrices"] or 2) * ffn)),
        batch=q["images"],
        calls=blocks + double + 2 * refiners,
    )


def forwards_a_step(q: Mapping[str, Any]) -> int:
    """Passes that one rank makes in a step: branches of guidance, shared out by CFG-parallel."""
    return -(-int(q["cfg_branches"]) // int(q["cfg_parallel_size"]))


def computed_steps(q: Mapping[str, Any], hits: float, computed: float) -> float:
    """Steps that are computed rather than reused, for a share of hits (Cache-DiT) or of computed steps (TeaCache)."""
    steps = float(q["num_inference_steps"])
    if q["tea_cache"]:
        return steps * computed
    if not q["cache_dit"]:
        return steps
    warm = min(steps, float(q["max_warmup_steps"]))
    row = q["max_continuous_cached_steps"]
    skippable = (steps - warm) * (row / (row + 1) if row >= 0 else 1.0)
    if q["max_cached_steps"] >= 0:
        skippable = min(skippable, float(q["max_cached_steps"]))
    return steps - hits * skippable
