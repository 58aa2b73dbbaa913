"""Files of other engines, read where they stand: findings point into them, and nothing has to be converted.

A command (shell script, Dockerfile, compose file, Kubernetes manifest), vLLM-Omni's stage and deploy YAML, cache-dit's
YAML, SGLang's config files.
"""

from __future__ import annotations

import re

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.text import File
from omni_config.reading.nodes import Source, YamlNode

#: A file that holds none of these words is no file of an engine; asked before anything is read closely.
_WORDS = re.compile(
    r"vllm|sglang|xdit|_example\.py|stage_id|cache_config|parallelism_config|quantize_config|model_path|usp|omni"
    r"|(?:text_to_|image_to_|image_edit)"
)


def drafts_of(source: Source, nodes: list[YamlNode] | None) -> list[Draft]:
    """The deployments of a file that is not ours; empty where there are none. ``nodes`` None: it is not YAML either."""
    if not _WORDS.search(source.text):
        return []
    from omni_config.engines.cache_dit import read as cache_dit
    from omni_config.engines.formats import containers
    from omni_config.engines.formats.shell import commands
    from omni_config.engines.sglang import read as sglang
    from omni_config.engines.vllm_omni import stages

    file = File(source)
    found: list[Draft] = []
    for node in nodes or ():
        if not isinstance(node.value, dict):
            continue
        found += stages.drafts_of([node], file)
        found += [draft for read in (cache_dit.read, sglang.read_config) if (draft := read(node, file))]
        if not found:
            found += containers.drafts(containers.manifest(node, file), file)
    if found or any(isinstance(node.value, dict) and "model" in node.value for node in nodes or ()):
        return found
    if re.search(r"^FROM[ \t]", source.text, re.MULTILINE):
        return containers.drafts(containers.dockerfile(file), file)
    return containers.drafts(commands(file.text), file)  # a script; one line of it may well be YAML, too
