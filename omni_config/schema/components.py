"""The parts of a pipeline that can wait on the CPU, by our words and in our order."""

from __future__ import annotations

#: As ``document.Component`` has them (a test holds them together).
COMPONENTS = ("dit", "text_encoder", "image_encoder", "vae")
