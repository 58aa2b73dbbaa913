"""vLLM-Omni: ``vllm serve MODEL --omni ...``, the guide's offline scripts, and its files of stages and flags."""

from __future__ import annotations

from pathlib import PurePosixPath

from omni_config.engines.facts import plain_name
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.engines.vllm_omni.flags import ENGINE, FLAGS
from omni_config.engines.vllm_omni.models import PIPELINES
from omni_config.engines.vllm_omni.scripts import MODELS
from omni_config.engines.vllm_omni.stages import from_yaml

__all__ = ["from_command", "from_yaml"]


#: Flags that name a file with more settings.
_FILES = ("config", "deploy-config", "stage-configs-path")


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of a command; None where the command does not start this engine."""
    words = command.words
    names = [PurePosixPath(word.value).name for word in words]
    for at, name in enumerate(names):
        if names[at + 1 : at + 2] == ["serve"]:
            if (
                name == "vllm-omni"
                or name == "vllm_omni.entrypoints.cli.main"
                or (name == "vllm" and "--omni" in names)
            ):
                return _draft(file, words[at : at + 2], words[at + 2 :])
        elif name in MODELS and at and names[at - 1].startswith("python"):
            return _draft(file, words[at : at + 1], words[at + 1 :], MODELS[name])
    for at, name in enumerate(names):
        if name.startswith("vllm-omni:") and names[0] in ("docker", "podman"):  # its entry point: vllm serve --omni
            return _draft(file, words[at : at + 1], words[at + 1 :])
    return None


def _draft(file: File, start: list[Word], arguments: list[Word], model: str | None = None) -> Draft:
    draft = Draft(file, ENGINE, start[0].text.span)
    draft.pipelines = PIPELINES
    draft.own_parser = model is None  # a script has flags of its own, too
    arguments = [word for word in arguments if word.value != "--omni"]  # which only says whose command it is
    positional = [word for word in FLAGS.read(draft, arguments) if word.value != "diffusion"]  # serve diffusion MODEL
    draft.says_more |= any(plain_name(typed.name) in _FILES for typed in draft.typed)
    if positional and not positional[0].unknown and not draft.has("model"):
        draft.set("model", positional[0].value, positional[0].text.span)
    if model and not draft.has("model"):
        draft.set("model", model, start[0].text.span)
    draft.finish()
    return draft
