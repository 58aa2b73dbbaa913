"""Quantities of a model's card: what is known of its TeaCache coefficients, and the frames that its pipeline makes."""

from __future__ import annotations

from omni_config.rules.quantities import Quantities, quantity


@quantity
def coefficients_are_its_own(q: Quantities) -> bool:
    """Whether the model card's coefficients of TeaCache were found on runs of the model, or of one of its family."""
    return q.card.teacache_fit is not None and q.card.teacache_fit.found in ("fitted", "tuned")


@quantity
def coefficients_found(q: Quantities) -> str | None:
    """How the model card's coefficients of TeaCache were found, for people; None where it has none."""
    fit = q.card.teacache_fit
    if fit is None:
        return None
    ways = {"fitted": f"fitted to {fit.to}", "tuned": f"tuned by hand on {fit.to}", "borrowed": f"those of {fit.to}"}
    way = ways.get(fit.found, "published, without a word of how they were found")
    return f"{way} ({fit.by})"


@quantity
def least_change(q: Quantities) -> float | None:
    """The least change of a step that the card's coefficients of TeaCache give where they hold; None where no range is
    stated, or the config has coefficients of its own.
    """
    return min(_changes(q), default=None)


@quantity
def most_change(q: Quantities) -> float | None:
    """The most change of a step that they give where they hold."""
    return max(_changes(q), default=None)


def _changes(q: Quantities) -> list[float]:
    """What the card's polynomial gives at a hundred places of the range that it holds for."""
    fit, coefficients = q.card.teacache_fit, q.card.teacache_coefficients
    if q["coefficients"] is not None or coefficients is None or fit is None:
        return []
    if fit.lowest is None or fit.highest is None:
        return []
    found = []
    for place in range(101):
        moved, value = fit.lowest + (fit.highest - fit.lowest) * place / 100, 0.0
        for coefficient in coefficients:
            value = value * moved + coefficient
        found.append(round(value, 3))
    return found


#: Pipelines of diffusers 0.42.1 whose latent frames are (num_frames - 1) // factor + 1: they make 1 + a multiple.
_ONE_MORE = frozenset(
    f"{name}Pipeline"
    for name in (
        "WanImageToVideo",
        "WanVACE",
        "HunyuanVideo",
        "HunyuanVideoImageToVideo",
        "HunyuanVideo15",
        "HunyuanVideo15ImageToVideo",
        "Kandinsky5T2V",
        "Kandinsky5I2V",
        "LTX",
        "LTXImageToVideo",
        "LTX2",
        "LTX2ImageToVideo",
        "Mochi",
        "MotifVideo",
        "SkyReelsV2",
        "SkyReelsV2ImageToVideo",
        "CosmosTextToWorld",
        "SanaVideo",
        "EasyAnimate",
        "ConsisID",
    )
)


@quantity
def frames_made(q: Quantities) -> int | None:
    """Frames that a pipeline makes that rounds the number asked for down; None where it is not known to."""
    factor, frames = q["vae_temporal_factor"], q["num_frames"]
    if factor is None or frames is None or q["pipeline_name"] not in _ONE_MORE:
        return None
    return int((frames - 1) // factor * factor + 1)
