"""vLLM-Omni: ``vllm serve MODEL --omni ...``, the guide's offline scripts, and its files of stages and flags."""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePosixPath

from omni_config.catalog.load import catalog
from omni_config.engines.facts import plain_name
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.python import Script, plain, tree, words
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.engines.vllm_omni.arguments import PARALLEL, attention_config, cache_config, offload_config
from omni_config.engines.vllm_omni.flags import ENGINE, FLAGS
from omni_config.engines.vllm_omni.language import STAGED, of_version
from omni_config.engines.vllm_omni.models import PIPELINES
from omni_config.engines.vllm_omni.scripts import MODELS
from omni_config.engines.vllm_omni.stages import from_yaml

__all__ = ["from_command", "from_python", "from_yaml"]
_STARTS = ("Omni", "AsyncOmni", "OmniDiffusionConfig")
_SAMPLING = "OmniDiffusionSamplingParams"
#: Its arguments that are mappings.
_MAPPINGS = {"diffusion_offload_config": offload_config, "diffusion_attention_config": attention_config}

#: Where the engine's own examples stand.
EXAMPLES = "examples/offline_inference/"
PLAIN = "without --omni this starts plain vLLM, which serves no diffusion model"


#: Flags that name a file with more settings.
_FILES = ("config", "deploy-config", "stage-configs-path")


#: Programs that take --omni, and else start plain vLLM (entrypoints/cli/main.py:12 of 0.26.0 to 0.32.0rc1).
_OWN = ("vllm-omni", "vllm_omni.entrypoints.cli.main")
#: Those that need no --omni: its server itself (entrypoints/openai/api_server.py:3047 of 0.30.0), and Dynamo's worker.
_SERVERS = ("vllm_omni.entrypoints.openai.api_server", "dynamo.vllm.omni")


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of a command; None where the command does not start this engine."""
    words = command.words
    names = [PurePosixPath(word.value).name for word in words]
    for at, name in enumerate(names):
        if names[at + 1 : at + 2] == ["serve"] and name in ("vllm", *_OWN):
            draft = _draft(file, words[at : at + 2], words[at + 2 :])
            if "--omni" in names:
                return draft
            return _plain_vllm(draft, words[at:], name in _OWN)
        if at and names[at - 1].startswith("python"):
            if name in MODELS:
                return _draft(file, words[at : at + 1], words[at + 1 :], MODELS[name])
            if EXAMPLES in words[at].value:  # it has the engine's own flags, beside those of its program
                return _draft(file, words[at : at + 1], words[at + 1 :], own_parser=False)
        if at and names[at - 1] == "-m" and (name in _SERVERS or (name == "dynamo.vllm" and "--omni" in names)):
            return _draft(file, words[at : at + 1], words[at + 1 :], own_parser=name == _SERVERS[0])
    return None


def _plain_vllm(draft: Draft, words: list[Word], own: bool) -> Draft | None:
    """A start of plain vLLM where a diffusion model is meant: one that has a card, or one in vLLM-Omni's image or by
    its own command, which may be a language model, too.
    """
    if any(word.unknown and "@" in word.value for word in words):
        return None  # --omni may be among the words that only a run knows
    ends = {name.rpartition("/")[2].lower() for name in catalog().model_ids}
    of_diffusion = draft.has("model") and PurePosixPath(str(draft.get("model"))).name.lower() in ends
    if not of_diffusion and not own and re.search(r"\bvllm-omni[:@]", draft.file.source.text) is None:
        return None
    if not (own and of_diffusion):
        draft = Draft(draft.file, "", draft.place)  # nothing of it is judged
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
        for name, read in _MAPPINGS.items():
            if name in said and isinstance(said[name].value, dict):
                read(draft, said.pop(name))
        FLAGS.read(draft, words(said | inner, script.file, dict.fromkeys(("pin-cpu-memory",))))
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
    draft.of_version = partial(of_version, draft)
    draft.staged = STAGED
    return draft
