"""The predicted final image, decoded before the last step is done."""

from __future__ import annotations

from typing import Any

from runtime.errors import CannotRunError


def preview(pipe: Any, step: int, before: Any, after: Any, height: int, width: int) -> list[Any]:
    """Images (PIL) that the model expected at ``step`` (from 0), from the latents before and after it.

    A step of flow matching moves the latents along the velocity v from noise level s to s': x' = x + (s' - s) v. The
    image at the end of that line is x' - s' v. Collective where the VAE is shared by ranks.

    Raises:
        CannotRunError: the latents are normalized in a way that is not known here, as FLUX.2's are.
    """
    import torch

    if hasattr(pipe.vae, "bn"):
        raise CannotRunError(f"{type(pipe).__name__} has no previews; next: ask for the image alone")
    level, following = (float(pipe.scheduler.sigmas[index]) for index in (step, step + 1))
    with torch.no_grad():
        latents = after - following * (after - before) / (following - level)
        if latents.ndim == 3:  # (batch, patches, channels of a patch)
            latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
        latents = latents.to(pipe.vae.dtype)
        decoded = pipe.vae.decode(_unscaled(pipe.vae.config, latents), return_dict=False)[0]
        decoded = decoded[:, :, 0] if decoded.ndim == 5 else decoded
        images: list[Any] = pipe.image_processor.postprocess(decoded, output_type="pil")
    return images


def _unscaled(config: Any, latents: Any) -> Any:
    """Latents as the VAE made them: it scales by one number, or each channel by its own."""
    import torch

    if config.get("latents_mean") is None:
        return latents / config.scaling_factor + (config.get("shift_factor") or 0.0)
    mean, std = (torch.tensor(numbers).view(1, -1, 1, 1, 1) for numbers in (config.latents_mean, config.latents_std))
    return latents * std.to(latents) + mean.to(latents)
