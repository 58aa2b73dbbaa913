"""The guide's offline scripts: by task, where each stands, and the model of each where a command names none."""

from __future__ import annotations

from pathlib import PurePosixPath

FOLDER = PurePosixPath("examples/offline_inference")
SCRIPTS = {
    "text_to_image": ("text_to_image/text_to_image.py", "Qwen/Qwen-Image"),
    "image_to_image": ("image_to_image/image_edit.py", "Qwen/Qwen-Image-Edit"),
    "text_to_video": ("text_to_video/text_to_video.py", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"),
    "image_to_video": ("image_to_video/image_to_video.py", "Wan-AI/Wan2.2-I2V-A14B-Diffusers"),
    "text_to_audio": ("text_to_audio/text_to_audio.py", "stabilityai/stable-audio-open-1.0"),
}
#: The default of each script's argument parser, by the script's name.
MODELS = {PurePosixPath(path).name: model for path, model in SCRIPTS.values()}
