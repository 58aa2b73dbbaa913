"""LTX-2: videos with sound, each a stream of its own; guidance is one call with the batch doubled, and two more."""

from __future__ import annotations

from typing import Any

from omni_config.plan import Plan
from runtime.models.family import Family, tokens_out

_BOTH = ("hidden_states", "audio_hidden_states", "encoder_hidden_states", "audio_encoder_hidden_states", "timestep")
_ALSO = ("sigma", "encoder_attention_mask", "audio_encoder_attention_mask", "video_coords", "audio_coords")


def _at_its_rate(plan: Plan, arguments: dict[str, Any]) -> dict[str, Any]:
    """The length of the sound is that of the frames at their rate."""
    video = plan.sampling.video
    return arguments | ({"frame_rate": float(video.fps)} if video and video.fps else {})


FAMILY = Family(
    transformer="LTX2VideoTransformer3DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens=None,
    output_shape=tokens_out,
    batched_arguments=_BOTH + _ALSO,
    masked=True,
    call={"LTX2Pipeline": _at_its_rate},
)
