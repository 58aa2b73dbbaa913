"""TensorRT-LLM VisualGen: the YAML of ``--visual_gen_args``, and ``trtllm-serve MODEL --visual_gen_args FILE``.

The engine is named as its package is on PyPI, ``tensorrt-llm``; VisualGen is the part of it that runs diffusion models.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from omni_config.catalog.identify import same_model
from omni_config.catalog.load import catalog
from omni_config.engines.facts import Facts, facts_of
from omni_config.engines.formats.draft import TEXTS, Draft, Key
from omni_config.engines.formats.flags import Flags
from omni_config.engines.formats.shell import Command
from omni_config.engines.formats.text import File
from omni_config.engines.said_version import said_version
from omni_config.engines.tensorrt_llm.values import refused, taken
from omni_config.reading.nodes import YamlNode
from omni_config.schema.components import COMPONENTS
from omni_config.schema.document import CacheDiT
from omni_config.schema.settings import DEFAULTS, PARAMETERS

ENGINE = "tensorrt-llm"
ROOT = "VisualGenArgs"

#: Sections, each with the class that reads it. Those of caches and of sparse attention are chosen by a key of theirs;
#: quant_config and pipeline_config are read by the model when it is loaded.
SECTIONS = {
    "attention_config": "AttentionConfig",
    "parallel_config": "ParallelConfig",
    "cache_config": "",
    "vae_config": "VAEConfig",
    "compilation_config": "CompilationConfig",
    "torch_compile_config": "TorchCompileConfig",
    "cuda_graph_config": "CudaGraphConfig",
    "cpu_offload_config": "CpuOffloadConfig",
    "runtime_lora_config": "RuntimeLoRAConfig",
}
CACHES = {"teacache": "TeaCacheConfig", "cache_dit": "CacheDiTConfig"}
SPARSE = {
    "skip_softmax": "SkipSoftmaxAttentionConfig",
    "vsa": "VideoSparseAttentionConfig",
    "sol_attn": "SolAttentionConfig",
}
FREE = ("quant_config", "pipeline_config")

#: The settings of ours that keys stand for, by class.
SETTINGS = {
    "VisualGenArgs": {"model": "model"},
    "ParallelConfig": {
        "cfg_size": "cfg_parallel_size",
        "ulysses_size": "ulysses_degree",
        "ring_size": "ring_degree",
        "tp_size": "tensor_parallel_size",
        "attn2d_size": "attention_2d",
        "async_ulysses": "async_ulysses",
        "parallel_vae_size": "vae_patch_parallel_size",
    },
    "TeaCacheConfig": {"teacache_thresh": "rel_l1_thresh", "coefficients": "coefficients"},
    "CacheDiTConfig": {name: name for name in PARAMETERS["cache_dit"]},
    "TorchCompileConfig": {"enable": "compile"},
    "CpuOffloadConfig": {"enable": "enable_cpu_offload", "pin_memory": "pin_cpu_memory"},
    "QuantAttentionConfig": {name: name for name in PARAMETERS["attention_quantization"]},
}
#: Keys on which nothing depends that is judged here: shapes of the warm-up, and how a step is launched.
QUIET = {
    "CompilationConfig": ("resolutions", "num_frames", "skip_warmup"),
    "TorchCompileConfig": ("enable_fullgraph", "enable_autotune"),
    "TeaCacheConfig": ("cache_backend",),
    "CacheDiTConfig": ("cache_backend",),
    "VisualGenArgs": ("revision", "enable_layerwise_nvtx_marker"),
}
#: What quant_algo names, by what is made of the weights: 8 bits, floating or whole.
QUANTIZATIONS = {"FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_BLOCK_SCALES": "fp8", "INT8": "int8"}
#: Stages of offload, in the order in which they run; there may be several of a kind: transformer_2.
STAGES = {"text_encoder": "text_encoder", "image_encoder": "image_encoder", "transformer": "dit", "vae": "vae"}
_NUMBER = re.compile(r"_\d+$")
BACKENDS = {"VANILLA": "native"}
#: The side of the image that ranks share in the VAE: its height or its width.
SPLIT_DIM = "parallel_vae_split_dim"

FLAGS = Flags(
    engine=ENGINE,
    model_first=True,
    settings={"host": "host", "port": "port"},
    quiet={"enable-visual-gen": 0, "log-level": 1, "served-model-name": 1, "media-storage-path": 1},
)
_ARGUMENTS = ("--visual_gen_args", "--extra_visual_gen_options", "--enable_visual_gen")
_OLD = "--extra_visual_gen_options"


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of a command; None where the command starts no VisualGen."""
    names = [PurePosixPath(word.value).name for word in command.words]
    if "trtllm-serve" not in names:
        return None
    at = names.index("trtllm-serve")
    words = command.words[at + 2 if names[at + 1 : at + 2] == ["serve"] else at + 1 :]
    flags = {word.value.partition("=")[0].replace("-", "_").replace("__", "--", 1) for word in words}
    draft = Draft(file, ENGINE, command.words[at].text.span)
    positional = FLAGS.read(draft, words)
    if positional and positional[0].names_model:
        draft.set("model", positional[0].value, positional[0].text.span)
    known = same_model(str(draft.get("model")), catalog()) if draft.has("model") else None
    if known is None and not flags.intersection(_ARGUMENTS):
        return None  # a language model
    for typed in draft.typed:
        if "--" + typed.name.lstrip("-").replace("-", "_") == _OLD and _schema(draft) is not None:
            message = f"trtllm-serve has no flag {_OLD} since 1.3.0rc19"
            draft.note("OMNI611", message, typed.span, next_step="did you mean --visual_gen_args?")
    draft.finish()
    return draft


def from_yaml(node: YamlNode, file: File) -> list[Draft]:
    """The deployment of a file for ``--visual_gen_args``; empty where the mapping is none."""
    if not _is_visual_gen(node):
        return []
    first = next(iter(node.children.values()))
    draft = Draft(file, ENGINE, first.key_span or first.span)
    facts = _schema(draft)
    for key, child in node.children.items():
        if key in FREE and isinstance(child.value, dict):
            _free(draft, str(key), child)
        elif key in SECTIONS and isinstance(child.value, dict):
            _section(draft, SECTIONS[str(key)], str(key), child, facts)
        elif child.value is not None or key not in SECTIONS:
            _key(draft, ROOT, str(key), child, facts)
    draft.options.setdefault("backend", YamlNode("VANILLA", draft.place))  # which it takes where none is said
    draft.finish()
    return [draft]


def _is_visual_gen(node: YamlNode) -> bool:
    """Whether a mapping is one of its own, and not that of ``trtllm-serve`` for a language model, which shares keys."""
    if not isinstance(node.value, dict):
        return False
    sections = {key: value for key, value in node.value.items() if isinstance(value, dict)}
    signs = {
        "attention_config": ("backend", "quant_attention_config", "sparse_attention_config"),
        "parallel_config": ("cfg_size", "ulysses_size", "ring_size", "tp_size", "attn2d_size", "parallel_vae_size"),
        "cache_config": ("cache_backend",),
        "cpu_offload_config": ("enable", "stages"),
        "compilation_config": ("resolutions", "skip_warmup", "num_frames"),
        "parallel": ("dit_cfg_size", "dit_ulysses_size"),  # until 1.3.0rc
        "teacache": ("enable_teacache",),
    }
    if any(set(names) & set(sections.get(section, ())) for section, names in signs.items()):
        return True
    known = {*SECTIONS, *FREE, "model", "revision", "enable_layerwise_nvtx_marker"}
    return set(node.value) <= known and bool(set(sections) & {"quant_config", "runtime_lora_config", "vae_config"})


def _schema(draft: Draft) -> Facts | None:
    """The facts of the version that the file names, else of the newest; None where nothing is known of it."""
    said = said_version(draft.file.source.text, ENGINE, draft.file.offset(draft.place))
    card = catalog().engine(f"{ENGINE}=={said.version}" if said else ENGINE)
    return facts_of(card.id) if card else None


def _section(draft: Draft, owner: str, name: str, section: YamlNode, facts: Facts | None) -> None:
    """A section whose class the schema states. Sections inside of it are read likewise."""
    span = section.key_span or section.span
    if name in ("cache_config", "sparse_attention_config"):
        by, classes = ("cache_backend", CACHES) if name == "cache_config" else ("algorithm", SPARSE)
        chosen = section.value.get(by)
        if chosen not in classes:
            message = f"{name} needs {by}, one of {', '.join(classes)}"
            draft.note("OMNI612", f"{message}, in {ENGINE}", span)
            return
        owner = classes[chosen]
    if owner == "TeaCacheConfig":
        draft.set("tea_cache", True, span)
    elif owner == "CacheDiTConfig":
        draft.set("cache_dit", True, span)
    elif owner == "RuntimeLoRAConfig":
        _lora(draft, section)
    for key, child in section.children.items():
        inner = {"quant_attention_config": "QuantAttentionConfig", "sparse_attention_config": ""}.get(str(key))
        if owner == "AttentionConfig" and inner is not None and isinstance(child.value, dict):
            draft.options[str(key)] = YamlNode(True, child.key_span or child.span)
            if inner:
                draft.set("attention_quantization", True, child.key_span or child.span)
            _section(draft, inner, str(key), child, facts)
        elif not (owner == "RuntimeLoRAConfig" and key in ("path", "scale") and draft.root.value.get("lora")):
            _key(draft, owner, str(key), child, facts)


def _key(draft: Draft, owner: str, name: str, child: YamlNode, facts: Facts | None) -> None:
    """One key: a setting of ours, one of its own, or one that its class refuses."""
    field = facts.field(owner, name) if facts else None
    if field is None:
        draft.keys.append(Key(owner, name, child))  # which the facts of the version judge
        return
    if takes := refused(child.value, field):
        draft.note("OMNI612", f"{name} takes {takes} in {ENGINE}, not {child.value}", child.span)
        return
    child = replace(child, value=taken(child.value, field))
    target = SETTINGS.get(owner, {}).get(name)
    if owner == "AttentionConfig" and name == "backend":
        if child.value in BACKENDS:
            draft.set("attention_backend", BACKENDS[child.value], child.span)
        draft.options[name] = child
        draft.left_out += [f"backend {child.value}"] if child.value not in BACKENDS else []
    elif name == SPLIT_DIM:
        draft.set("vae_parallel_mode", f"spatial_shard_{child.value}", child.span)
    elif owner == "CudaGraphConfig":
        draft.options["cuda_graph"] = child
        draft.left_out.append(name)
    elif name == "stages":
        _stages(draft, child)
    elif name in QUIET.get(owner, ()):
        draft.left_out.append(name)
    elif target is not None and _is_ours(target, child.value):
        draft.set(target, child.value, child.span)
    elif child.value is not None:
        draft.keys.append(Key(owner, name, child))


def _stages(draft: Draft, node: YamlNode) -> None:
    """The stages of offload, where each is a component that we have a word for; how they are grouped is its own."""
    names = node.value if isinstance(node.value, list) else []
    components = {STAGES.get(_NUMBER.sub("", name)) if isinstance(name, str) else None for name in names}
    if components and None not in components:
        draft.set("offload_components", [name for name in COMPONENTS if name in components], node.span)
    elif node.value is not None:
        draft.keys.append(Key("CpuOffloadConfig", "stages", node))


def _is_ours(setting: str, value: Any) -> bool:
    """Whether our setting takes the value, too: it may be narrower."""
    if setting == "coefficients":
        return isinstance(value, list) and len(value) == 5
    if setting in PARAMETERS["cache_dit"]:
        from pydantic import ValidationError

        try:
            CacheDiT.model_validate({setting: value})
        except ValidationError:
            return False
        return True
    if setting in PARAMETERS["attention_quantization"]:
        return True  # as the schema of the engine has them
    if setting == "pin_cpu_memory":
        return isinstance(value, bool)
    if setting in TEXTS:
        return isinstance(value, str) and value != ""
    if setting == "attention_2d":
        return isinstance(value, list)
    return isinstance(value, int | float) and isinstance(value, bool) == (DEFAULTS[setting] is False)


def _free(draft: Draft, name: str, section: YamlNode) -> None:
    """A mapping that the schema leaves open: of the quantization, only the kind is a setting of ours."""
    for key, child in section.children.items():
        span = child.key_span or child.span
        if name == "quant_config" and key == "quant_algo":
            if child.value not in (None, "NO_QUANT"):
                draft.set("quantization", QUANTIZATIONS.get(str(child.value), child.value), child.span)
            draft.options["quant_algo"] = child
        elif name == "quant_config":
            draft.left_out.append(str(key))
        else:
            draft.leave_unjudged(f"{name} {key}", span)


def _lora(draft: Draft, section: YamlNode) -> None:
    """The one adapter that it fuses into the weights at the start."""
    path, scale = section.children.get("path"), section.children.get("scale")
    if path is None or not isinstance(path.value, str) or not path.value:
        draft.options["lora_without_path"] = YamlNode(True, section.key_span or section.span)
        return
    children = {"path": path}
    if scale is not None and isinstance(scale.value, int | float):
        children["scale"] = YamlNode(float(scale.value), scale.span)
    value = {key: child.value for key, child in children.items()}
    span = section.key_span or section.span
    draft.root.value["lora"] = [value]
    draft.root.children["lora"] = YamlNode([value], span, children={0: YamlNode(value, span, children=dict(children))})
