"""A request for images or a video becomes the sampling of a Plan by the rules that checked the config, or an error."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ValidationError

from omni_config.checking.document import CheckResult
from omni_config.findings import Finding
from omni_config.plan import Plan, Sampling
from omni_config.resolving.resolver import resolve_settings
from omni_config.schema.settings import FIELDS, Settings, validate
from runtime.pipeline.adapters import Adapter
from runtime.serving.errors import RequestError
from runtime.serving.loras import LoraRequest, adapters_of, names_in


class _Request(BaseModel):
    """What is asked of every model. A field that is not listed is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(description="What is to be seen.")
    model: str | None = Field(default=None, description="The model that is served; it may be left out.")
    size: str | None = Field(
        default=None, pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$", description="WIDTHxHEIGHT, or auto."
    )
    width: int | None = Field(default=None, ge=1, le=99999, description="With `height`, in place of `size`.")
    height: int | None = Field(default=None, ge=1, le=99999, description="With `width`, in place of `size`.")
    negative_prompt: str | None = Field(default=None, description="What must not be seen.")
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000, description="Denoising steps.")
    true_cfg_scale: float | None = Field(default=None, ge=0, le=100, description="Strength of guidance.")
    guidance_scale: float | None = Field(
        default=None, ge=0, le=100, description="Distilled guidance; or the strength, where the model calls it so."
    )
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="Of the noise; left out, a random one.")
    generator_device: str | None = Field(
        default=None, pattern="^cpu$", description="Only cpu, where all noise is drawn."
    )
    lora: LoraRequest | list[LoraRequest] | None = Field(
        default=None, description="Adapters of the folder that the server allows."
    )
    user: str | None = Field(
        default=None, max_length=256, description="Taken for OpenAI's sake; nothing depends on it."
    )


class ImageRequest(_Request):
    """What the image APIs of OpenAI, vLLM-Omni and SGLang ask for."""

    n: int | None = Field(default=None, ge=1, le=64, description="Images; their seeds count up from `seed`.")
    response_format: str | None = Field(default=None, pattern="^(b64_json|url)$", description="b64_json, or url.")
    stream: bool | None = Field(default=None, description="Answer with server-sent events; of one image.")
    partial_images: int | None = Field(default=None, ge=0, le=3, description="Images on the way, when streaming.")
    output_format: str | None = Field(default=None, pattern="^png$", description="Only png.")
    quality: str | None = Field(default=None, pattern="^auto$", description="Only auto.")
    background: str | None = Field(default=None, pattern="^auto$", description="Only auto.")
    moderation: str | None = Field(default=None, pattern="^auto$", description="Only auto.")


class VideoRequest(_Request):
    """What the video APIs of OpenAI, vLLM-Omni and SGLang ask for."""

    seconds: Annotated[str, Field(pattern="^[1-9][0-9]{0,3}$")] | Annotated[int, Field(ge=1, le=9999)] | None = Field(
        default=None, description="Length, in place of `num_frames`."
    )
    num_frames: int | None = Field(default=None, ge=1, le=4096, description="Frames.")
    fps: int | None = Field(default=None, ge=1, le=240, description="Frames a second of the file.")


_STEPS_OF_WARM_UP = 2


class Accepted(NamedTuple):
    """What a request becomes; ``warnings`` are what rules have said of it."""

    sampling: Sampling
    adapters: list[Adapter]
    warnings: list[Finding]


@dataclass(frozen=True)
class ServedConfig:
    """The config that is served: what requests are judged against."""

    checked: CheckResult

    @property
    def plan(self) -> Plan:
        """The Plan whose workers are warm."""
        assert self.checked.plan is not None
        return self.checked.plan

    @property
    def settings(self) -> Settings:
        """Those of the config, with what rules have changed."""
        assert self.checked.resolution is not None
        return self.checked.resolution.settings

    def to_dict(self) -> dict[str, Any]:
        """The Plan, the limits of the server, and what the check found; JSON-ready, without the key."""
        shown = (name for name, path in FIELDS.items() if path[:-1] == ("server",) and not name.startswith("api_key"))
        findings = [finding.to_dict() | {"location": None, "related": []} for finding in self.checked.findings]
        return {
            "plan": self.plan.to_dict(),
            "data_parallel_size": self.replicas,
            "adapters": names_in(self.settings["lora_folder"]),
            "server": {name: self.settings[name] for name in shown},
            "findings": findings,
        }

    @property
    def replicas(self) -> int:
        """How many times the Plan is started."""
        return self.settings["data_parallel_size"] or 1

    @property
    def takes_image(self) -> bool:
        """Whether the model edits an image, or makes a video of one."""
        return self.plan.model.task in ("image_to_image", "image_to_video")

    @property
    def makes_videos(self) -> bool:
        """Whether what it makes is a video."""
        return self.plan.sampling.video is not None

    @property
    def asked_by(self) -> tuple[str, str]:
        """What the model does, and the path by which it is asked."""
        if self.makes_videos:
            return "makes videos", "/v1/videos"
        return ("edits images", "/v1/images/edits") if self.takes_image else ("makes images", "/v1/images/generations")

    def warm_up(self, image: str) -> Sampling:
        """What the workers make before they count as ready; ``image`` is the input of a model that takes one.

        Of a video that no cache has to see whole, a few steps are enough: all of them may take minutes.
        """
        sampling = replace(self.plan.sampling, num_images_per_prompt=1, prompt=self.plan.sampling.prompts[0] or "a")
        if self.makes_videos and self.plan.cache is None:
            sampling = replace(sampling, num_inference_steps=min(sampling.num_inference_steps, _STEPS_OF_WARM_UP))
        return replace(sampling, image=image if self.takes_image else None)

    def sampling(self, request: ImageRequest | VideoRequest, image: str | None = None) -> Accepted:
        """What becomes of a request: the config, with the request in it, goes through all rules.

        ``image`` is the path under which the server keeps the input image.

        Raises:
            RequestError: a limit is passed, or a rule broken.
        """
        self._require_limits(request)
        assert self.checked.node is not None
        assert self.checked.resolution is not None
        tree = dict(self.checked.node.value)
        tree["sampling"] = dict(tree.get("sampling") or {}) | self._sampling_of(request)
        if image is not None:
            tree["sampling"]["image"] = image
        asked = request.lora if isinstance(request.lora, list) else [request.lora] if request.lora else []
        adapters = adapters_of(asked, self.settings["lora_folder"], self.settings["max_loras"])
        named = [{"path": adapter.path, "scale": adapter.scale} for adapter in adapters]
        tree["lora"] = [*(tree.get("lora") or ()), *named]
        if request.seed is None and "seed" not in tree["sampling"]:
            tree["sampling"]["seed"] = secrets.randbelow(2**32)
        try:
            settings = validate(tree)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise RequestError(400, f"{first['loc'][-1]}: {first['msg'].lower()}", code="OMNI905") from None
        resolution = resolve_settings(settings, self.checked.resolution.target)
        known = {finding.code for finding in (*self.checked.findings, *self.checked.ignored)}
        new = [finding for finding in resolution.findings if finding.code not in known]
        for finding in new:
            if finding.severity == "error":
                raise RequestError(400, f"{finding.message}; next: {finding.next_step}", code=finding.code)
        plan = resolution.accepted_plan()
        if replace(plan, sampling=self.plan.sampling, lora=self.plan.lora) != self.plan:
            raise RequestError(400, "this request needs another plan than the one that is served")
        if plan.sampling.width * plan.sampling.height > self.settings["max_pixels"]:
            raise RequestError(400, f"at most {self.settings['max_pixels']} pixels an image or frame", param="size")
        return Accepted(plan.sampling, adapters, [finding for finding in new if finding.severity == "warning"])

    def _require_limits(self, request: ImageRequest | VideoRequest) -> None:
        limits = self.settings
        if request.model not in (None, self.plan.model.id, self.plan.model.source):
            message = f"the model {request.model!r} is not served here; {self.plan.model.id!r} is"
            raise RequestError(404, message, param="model", code="model_not_found")
        if not request.prompt:
            raise RequestError(400, "the prompt is empty", param="prompt")
        for name in ("prompt", "negative_prompt"):
            self._require_readable(getattr(request, name) or "", name)
        if request.num_inference_steps is not None and request.num_inference_steps > limits["max_steps"]:
            raise RequestError(400, f"at most {limits['max_steps']} steps", param="num_inference_steps")
        if isinstance(request, VideoRequest):
            return
        if request.response_format == "url" and request.stream:
            message = "a stream holds its images; next: response_format b64_json"
            raise RequestError(400, message, param="response_format", code="unsupported_value")
        if (request.n or 1) > limits["max_images"]:
            raise RequestError(400, f"at most {limits['max_images']} images a request", param="n")
        if request.partial_images and not request.stream:
            raise RequestError(400, "partial_images needs stream: true", param="partial_images")
        if request.stream and (request.n or 1) > 1:
            raise RequestError(400, "a stream is of one image; next: n 1", param="n")

    def _require_readable(self, prompt: str, name: str) -> None:
        """A prompt that a tokenizer or a processor chokes on would end a worker."""
        if len(prompt) > self.settings["max_prompt_length"]:
            raise RequestError(400, f"at most {self.settings['max_prompt_length']} characters a prompt", param=name)
        if re.search("[\ud800-\udfff]", prompt):
            raise RequestError(400, f"{name} is not Unicode", param=name)
        # An editing pipeline counts these, and every one must be an image.
        if self.takes_image and (found := re.search(r"<\|(image|video|vision)_\w+\|>", prompt)):
            raise RequestError(400, f"{found[0]} is a word of the model's own", param=name)

    def _sampling_of(self, request: ImageRequest | VideoRequest) -> dict[str, Any]:
        """The request in the words of the document."""
        assert self.checked.resolution is not None
        guidance = self.checked.resolution.card.guidance
        said = {name: getattr(request, name) for name in ("prompt", "negative_prompt", "num_inference_steps", "seed")}
        if isinstance(request, ImageRequest):
            said["num_images_per_prompt"] = request.n
        else:
            said["fps"], said["num_frames"] = request.fps, self._frames_of(request)
        if request.size not in (None, "auto"):
            if request.width is not None or request.height is not None:
                raise RequestError(400, "size, or width and height", param="size")
            said["width"], said["height"] = map(int, request.size.split("x"))
        elif (request.width is None) != (request.height is None):
            raise RequestError(400, "width and height go together", param="height" if request.width else "width")
        else:
            said["width"], said["height"] = request.width, request.height
        said["cfg_scale"], said["guidance_scale"] = request.true_cfg_scale, request.guidance_scale
        if guidance is not None and guidance.argument == "guidance_scale" and request.guidance_scale is not None:
            if request.true_cfg_scale is not None:
                raise RequestError(400, "this model has one guidance: true_cfg_scale or guidance_scale")
            said["cfg_scale"], said["guidance_scale"] = request.guidance_scale, None
        return {name: value for name, value in said.items() if value is not None}

    def _frames_of(self, request: VideoRequest) -> int | None:
        """Frames of a video: of a length, as many as the model can make in it, and the one that it begins with."""
        if request.seconds is None:
            frames = request.num_frames
        elif request.num_frames is not None:
            raise RequestError(400, "seconds, or num_frames", param="seconds")
        else:
            assert self.checked.resolution is not None
            video = self.plan.sampling.video
            fps = request.fps or (video.fps if video else None)
            assert fps is not None, "the runtime's Plans of videos have one"
            factor = int(self.checked.resolution.card.dims.get("vae_temporal_factor", 1))
            frames = int(request.seconds) * fps // factor * factor + 1
        if frames is not None and frames > self.settings["max_frames"]:
            param = "num_frames" if request.seconds is None else "seconds"
            raise RequestError(400, f"at most {self.settings['max_frames']} frames a video", param=param)
        return frames
