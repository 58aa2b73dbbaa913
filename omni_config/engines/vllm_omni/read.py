"""vLLM-Omni: ``vllm serve MODEL --omni ...``, the guide's offline scripts, and its files of stages and flags."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath

from omni_config.catalog.load import catalog
from omni_config.engines.facts import plain_name
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.python import Script, plain, tree, words
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.engines.vllm_omni.arguments import PARALLEL, cache_config
from omni_config.engines.vllm_omni.flags import ENGINE, FLAGS
from omni_config.engines.vllm_omni.language import of_language_models
from omni_config.engines.vllm_omni.models import PIPELINES
from omni_config.engines.vllm_omni.scripts import MODELS
from omni_config.engines.vllm_omni.stages import from_yaml

__all__ = ["from_command", "from_python", "from_yaml"]
_STARTS = ("Omni", "AsyncOmni", "OmniDiffusionConfig")
_SAMPLING = "OmniDiffusionSamplingParams"

#: Where the engine's own examples stand.
EXAMPLES = "examples/offline_inference/"
PLAIN = "without --omni this starts plain vLLM, which serves no diffusion model"


#: Flags that name a file with more settings.
_FILES = ("config", "deploy-config", "stage-configs-path")


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of a command; None where the command does not start this engine."""
    words = command.words
    names = [PurePosixPath(word.value).name for word in words]
    for at, name in enumerate(names):
        if names[at + 1 : at + 2] == ["serve"]:
            if name in ("vllm-omni", "vllm_omni.entrypoints.cli.main") or (name == "vllm" and "--omni" in names):
                draft = _draft(file, words[at : at + 2], words[at + 2 :])
                if "--omni" not in names:
                    draft.note("OMNI616", PLAIN, draft.place)
                return draft
            if name == "vllm" and (plain := _plain_vllm(file, words[at:])) is not None:
                return plain
        elif at and names[at - 1].startswith("python"):
            if name in MODELS:
                return _draft(file, words[at : at + 1], words[at + 1 :], MODELS[name])
            if EXAMPLES in words[at].value:  # it has the engine's own flags, beside those of its program
                return _draft(file, words[at : at + 1], words[at + 1 :], own_parser=False)
    for at, name in enumerate(names):
        if name.startswith("vllm-omni:") and names[0] in ("docker", "podman"):  # its entry point: vllm serve --omni
            return _draft(file, words[at : at + 1], words[at + 1 :])
    return None


def _plain_vllm(file: File, words: list[Word]) -> Draft | None:
    """A start of plain vLLM where a diffusion model is meant: one that has a card, or one in an image of vLLM-Omni."""
    values = [word.value for word in words]
    models = [after for flag, after in pairwise(values) if flag in ("serve", "--model")]
    ends = {name.rpartition("/")[2].lower() for name in catalog().model_ids}
    of_diffusion = any(PurePosixPath(model).name.lower() in ends for model in models if not model.startswith("-"))
    if not of_diffusion and re.search(r"\bvllm-omni[:@]", file.source.text) is None:
        return None
    draft = Draft(file, "", words[0].text.span)  # nothing of it is judged
    draft.note("OMNI616", PLAIN, draft.place, "error" if of_diffusion else "warning")
    return draft


def from_python(script: Script) -> list[Draft]:
    """The deployments of a script: each engine that it makes; its sampling where the script has but one."""
    made = [call for call in script.calls if call.name.startswith("vllm_omni.") and call.last in _STARTS]
    sampling = [call for call in script.calls if call.name.startswith("vllm_omni.") and call.last == _SAMPLING]
    drafts = []
    for call in made:
        draft = Draft(script.file, ENGINE, call.span)
        draft.pipelines = PIPELINES
        said = tree(call.keywords, "vllm_omni")
        if call.arguments:
            said.setdefault("model", plain(call.arguments[0]))
        parallel, cache = said.pop("parallel_config", None), said.pop("cache_config", None)
        inner = parallel.children if parallel and isinstance(parallel.value, dict) else {}
        if parallel and not inner:
            draft.not_known(PARALLEL.values(), "parallel_config", parallel.span)
        FLAGS.read(draft, words(said | inner, script.file))
        if len(made) == len(sampling) == 1:
            FLAGS.read(draft, words(sampling[0].keywords, script.file))
        if cache is not None and isinstance(cache.value, dict):
            cache_config(draft, cache, cache.span)
        elif cache is not None and cache.value is not None:
            draft.leave_unjudged("cache_config (known only to a run)", cache.span)
        draft.finish()
        drafts.append(draft)
    return drafts


def _draft(
    file: File, start: list[Word], arguments: list[Word], model: str | None = None, *, own_parser: bool = True
) -> Draft:
    draft = Draft(file, ENGINE, start[0].text.span)
    draft.pipelines = PIPELINES
    draft.own_parser = own_parser and model is None  # a script has flags of its own, too
    arguments = [word for word in arguments if word.value != "--omni"]  # which only says whose command it is
    positional = [word for word in FLAGS.read(draft, arguments) if word.value != "diffusion"]  # serve diffusion MODEL
    draft.says_more |= any(plain_name(typed.name) in _FILES for typed in draft.typed)
    if positional and positional[0].names_model and not draft.has("model"):
        draft.set("model", positional[0].value, positional[0].text.span)
    if model and not draft.has("model"):
        draft.set("model", model, start[0].text.span)
    draft.finish()
    draft.of_version = partial(of_language_models, draft)
    return draft
