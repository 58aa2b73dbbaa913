"""Files of other engines, read where they stand: findings point into them, and nothing has to be converted.

A command (shell script, Dockerfile, compose file, Kubernetes manifest), the YAML of an engine, or a Python script.
"""

from __future__ import annotations

import re

from omni_config.engines import ENGINES
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.text import File
from omni_config.findings import Source
from omni_config.reading.discover import PYTHON
from omni_config.reading.nodes import YamlNode

_IMPORT = re.compile(r"(?:from|import)[ \t]+(?:diffusers|cache_dit|vllm_omni|sglang|xfuser|fastvideo)\b")


def drafts_of(source: Source, nodes: list[YamlNode] | None) -> list[Draft]:
    """The deployments of a file that is not ours; empty where there are none. ``nodes`` None: it is not YAML either."""
    if _IMPORT.search(source.text):
        found = _of_python(source)
        if found:
            return found
    if source.name.endswith(PYTHON):
        return []
    engines = [engine for engine in ENGINES.values() if any(word in source.text for word in engine.words)]
    if not engines:
        return []
    from omni_config.engines.formats import containers
    from omni_config.engines.formats.gpus import of_job
    from omni_config.engines.formats.shell import Command, commands

    file = File(source)
    if nodes is None and "{{" in source.text and not source.text.startswith("#!"):
        from omni_config.engines.formats.templates import template

        file, nodes = template(source) or (file, None)
    found = []
    documents = [node for node in nodes or () if isinstance(node.value, dict) and node.value]
    for node in documents:
        readers = (engine.from_yaml(node, file) for engine in engines if engine.files)
        found += next(filter(None, readers), [])  # a document is that of one engine
    for draft in found:
        draft.form = "yaml"
    if documents and not found:
        from omni_config.engines.formats.manifests import commands_of

        found = containers.drafts(commands_of(documents, file), file, engines)
    if found or any(len(node.value) > 1 or isinstance(next(iter(node.value.values())), dict) for node in documents):
        return found  # a line of a script may well be a mapping, too: one word, a colon, and more words
    if re.search(r"^FROM[ \t]", source.text, re.MULTILINE):
        return containers.drafts(containers.dockerfile(file), file, engines)
    job = Command(gpus=of_job(source.text, file.span))
    return containers.drafts(commands(file.text, within=job), file, engines)


def _of_python(source: Source) -> list[Draft]:
    """The deployments of a Python script or notebook; empty where it is none, or deploys nothing that is known."""
    from omni_config.engines.formats import python_reader

    script = python_reader.read(File(source))
    if script is None:
        return []
    drafts = [draft for engine in ENGINES.values() if engine.scripts for draft in engine.from_python(script)]
    if len(drafts) == 1 and drafts[0].get("engine") in ("vllm-omni", "sglang"):  # which start workers of their own
        from omni_config.engines.formats.gpus import give, of_python

        give([(drafts[0], *of_python(script.file.text))])
    for draft in drafts:
        draft.form = "python"
    for call in script.calls if not drafts else ():
        if call.name.startswith("fastvideo.") and call.name.endswith("VideoGenerator.from_pretrained"):
            drafts.append(Draft(script.file, "", call.span))
            drafts[-1].leave_unjudged("FastVideo, of which nothing is known here", call.span)
    return drafts
