"""Small models in the place of published ones: diffusers folders, laid out as the hub's cache, under the hub's names.

An engine that is told a published name then finds the small one, by its own code, and looks nothing up on the network.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omni_config.cards import ModelCard
from omni_config.catalog.folder_card import card_of_folder
from omni_config.catalog.load import catalog
from omni_config.plan import EMBEDDED
from omni_config.schema.settings import Settings

COMMIT = "0" * 40
SIDE = 64  # pixels
STEPS = 4
PROMPT, NEGATIVE = "a red circle", "blue"


@dataclass(frozen=True)
class Small:
    """A published model that a small one of its class stands for, with the sizes of that: so its card says.

    ``request`` are the settings of what is generated; ``home`` is a folder for files that a config names.
    """

    model: str
    folder: Path
    home: Path
    card: ModelCard
    request: Settings = field(default_factory=dict)

    def adapter(self, prefix: str) -> Path:
        """A LoRA adapter of random weights, made when it is asked for; ``prefix`` is what its names begin with."""
        from safetensors.torch import load_file, save_file

        from runtime.proof.random_pipelines import adapter, transformer_of

        file = self.home / f"{self.card.pipeline}-lora" / f"{prefix}.safetensors"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            weights = load_file(adapter(transformer_of(str(self.folder)), file.parent))
            save_file({name.replace("transformer", prefix, 1): weight for name, weight in weights.items()}, file)
        return file


def small(model: str, folder: Path) -> Small:
    """The small one of a published model, built in a folder where none comes with the runtime.

    Raises:
        ValueError: there is none for it.
    """
    published = catalog().model(model)
    if published is None:
        raise ValueError(f"no card for model '{model}'")
    if model in EMBEDDED:
        raise ValueError(f"{model} is small itself; next: name the published model that it stands for")
    found = next((name for name in EMBEDDED if _pipeline(name) == published.pipeline), None)
    place = _embedded(found) if found else _build(published.pipeline, folder / published.pipeline)
    own = card_of_folder(place, catalog())
    request: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": STEPS, "width": SIDE, "height": SIDE, "seed": 7}
    if published.guidance is not None and published.guidance.distilled_argument is None:
        request["negative_prompt"] = NEGATIVE
    if published.task.endswith("_to_video"):
        request["num_frames"] = 5
    if published.task.startswith("image_to_"):
        request["image"] = str(_picture(folder))
    request |= REQUESTS.get(published.pipeline, {})
    return Small(model, place, folder, replace(published, dims=own.dims), request)


def lay_out(models: list[Small], hub: Path, names: Mapping[str, Mapping[str, str]]) -> None:
    """Lay models out as a cache of the hub, by their published names.

    ``names`` are, by pipeline, keys of a transformer's config that the engine reads under other names.
    """
    for one in models:
        home = hub / f"models--{one.model.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(COMMIT, encoding="utf-8")
        (home / "snapshots").mkdir()
        snapshot = home / "snapshots" / COMMIT
        if renamed := names.get(one.card.pipeline):
            shutil.copytree(one.folder, snapshot)
            file = snapshot / "transformer" / "config.json"
            config = json.loads(file.read_text(encoding="utf-8"))
            config |= {theirs: config[ours] for ours, theirs in renamed.items()}
            file.write_text(json.dumps(config), encoding="utf-8")
        else:
            snapshot.symlink_to(one.folder.resolve(), target_is_directory=True)


def _pipeline(model: str) -> str:
    card = catalog().model(model)
    return card.pipeline if card else ""


def _embedded(model: str) -> Path:
    from runtime.pipeline.load import FOLDERS

    return Path(FOLDERS[model])


def _picture(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir(exist_ok=True, parents=True)
    file = folder / "input.png"
    Image.effect_noise((SIDE, SIDE), 80).convert("RGB").save(file)
    return file


#: Where a step is slow: HunyuanVideo 1.5 attends to 2,000 tokens of text, however short it is.
REQUESTS: dict[str, Settings] = {
    "HunyuanVideo15Pipeline": {"num_inference_steps": 2},
    "LTX2Pipeline": {"num_frames": 31},  # of which 4 ranks can share the latents, by SGLang's count and by the model's
}
#: Caches compute the first blocks of a transformer, and up to eight of them: so many more are needed.
DEEPER: dict[str, dict[str, int]] = {
    "FluxPipeline": {"num_layers": 6, "num_single_layers": 6},
    "WanPipeline": {"num_layers": 8},
    "QwenImageEditPipeline": {"num_layers": 8},
    "QwenImageEditPlusPipeline": {"num_layers": 8},
}


def _build(pipeline: str, folder: Path) -> Path:
    import torch
    import transformers

    from runtime.proof import small_pipelines
    from runtime.proof.random_pipelines import PIPELINES

    builder: Callable[[], Any] | None = (PIPELINES | small_pipelines.PIPELINES).get(pipeline)
    if builder is None:
        raise ValueError(f"no small model of {pipeline}")
    if folder.is_dir():
        return folder
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    torch.manual_seed(0)
    pipe = builder()
    if changes := DEEPER.get(pipeline):
        pipe.transformer = type(pipe.transformer).from_config({**pipe.transformer.config, **changes})
    for name, layer in pipe.transformer.named_modules():
        if name.endswith("to_v"):  # or attention would hardly matter, and a picture not show whether it is right
            layer.weight.data *= 100
    pipe.save_pretrained(folder)
    if beside := small_pipelines.BESIDE.get(pipeline):
        beside(pipe, folder)
    return folder
