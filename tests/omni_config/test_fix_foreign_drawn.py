"""``omni fix`` over drawn files of other engines: it ends in a clean check, once is enough, and all else stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_config.checking.files import check_bytes
from omni_config.checking.fix import fix
from omni_config.engines.facts import FOLDER as ENGINES

MODELS = ("Qwen/Qwen-Image", "Tongyi-MAI/Z-Image-Turbo")
DEGREES = st.sampled_from([1, 2, 3, 4, 5, 6, 8])
#: Flags that are drawn, by engine; None is a switch.
FLAGS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "vllm": {
        "--usp": DEGREES,
        "--ring": DEGREES,
        "--cfg-parallel-size": DEGREES,
        "--tensor-parallel-size": DEGREES,
        "--vae-patch-parallel-size": DEGREES,
        "--num-gpus": DEGREES,
        "--enable-cpu-offload": st.none(),
        "--enable-layerwise-offload": st.none(),
        "--vae-use-slicing": st.none(),
        "--cache-backend": st.sampled_from(["tea_cache", "cache_dit"]),
        "--ulysses-mode": st.sampled_from(["strict", "advanced_uaa"]),
    },
    "sglang": {
        "--num-gpus": DEGREES,
        "--ulysses-degree": DEGREES,
        "--ring-degree": DEGREES,
        "--tp-size": DEGREES,
        "--enable-cfg-parallel": st.none(),
        "--enable-teacache": st.none(),
        "--dit-cpu-offload": st.sampled_from(["true", "false"]),
        "--vae-slicing": st.none(),
    },
    "xdit": {
        "--ulysses_degree": DEGREES,
        "--ring_degree": DEGREES,
        "--tensor_parallel_degree": DEGREES,
        "--use_cfg_parallel": st.none(),
        "--use_parallel_vae": st.none(),
        "--enable_tiling": st.none(),
        "--enable_slicing": st.none(),
    },
}
PROGRAMS = {
    "vllm": ["vllm", "serve", "{model}", "--omni"],
    "sglang": ["sglang", "serve", "--model-path", "{model}"],
    "xdit": ["xdit", "--model", "{model}"],
}
KEPT = {
    "vllm": ["--port", "8091"],
    "sglang": ["--host", "0.0.0.0"],
    "xdit": ["--warmup_steps", "1"],
}
ABOVE = "#!/bin/bash\nset -e   # 5 ranks, --usp 5\nexport A='--ring 3'\n"
BELOW = "\necho '--usp 5' # done\n"


@st.composite
def commands(draw: st.DrawFn) -> tuple[str, list[list[str]]]:
    """A form, and the groups of words of a command: its program, then each flag with its value."""
    engine = draw(st.sampled_from(sorted(FLAGS)))
    names = draw(st.lists(st.sampled_from(sorted(FLAGS[engine])), unique=True, min_size=1, max_size=5))
    attached = draw(st.booleans())
    groups = [[word.format(model=draw(st.sampled_from(MODELS))) for word in PROGRAMS[engine]]]
    for name in names:
        value = draw(FLAGS[engine][name])
        words = [name] if value is None else [name, str(value)]
        groups.append(["=".join(words)] if attached else words)
    groups.insert(draw(st.integers(1, len(groups))), KEPT[engine])
    return draw(st.sampled_from(sorted(FORMS))), groups


def shell(groups: list[list[str]]) -> tuple[str, str, str]:
    return ABOVE, " ".join(word for group in groups for word in group), BELOW


def continued(groups: list[list[str]]) -> tuple[str, str, str]:
    return ABOVE, " \\\n    ".join(" ".join(group) for group in groups), " > log.txt 2>&1 &" + BELOW


def dockerfile(groups: list[list[str]]) -> tuple[str, str, str]:
    words = json.dumps([word for group in groups for word in group])
    return "FROM scratch\n# --usp 5\nENTRYPOINT ", words, "\nEXPOSE 8091\n"


def compose(groups: list[list[str]]) -> tuple[str, str, str]:
    lines = "\n      ".join(" ".join(group) for group in groups)
    head = "services:\n  other: {image: nginx, command: [nginx]}  # --usp 5\n  images:\n    command: >\n      "
    return head, lines, "\n    ports: ['8091:8091']\n"


def flow(groups: list[list[str]]) -> tuple[str, str, str]:
    words = ", ".join(f"'{word}'" for group in groups for word in group)
    return "services:\n  images:\n    # --usp 5\n    command: [", words, "]\n    ports: ['8091:8091']\n"


def kubernetes(groups: list[list[str]]) -> tuple[str, str, str]:
    program, *flags = groups
    head = f"kind: Deployment\nspec:\n  containers:\n    - name: a  # --usp 5\n      command: {json.dumps(program)}\n"
    items = "\n".join(f'        - "{word}"' for group in flags for word in group)
    return head + "      args:\n", items, "\n      env: []\n"


def bash(groups: list[list[str]]) -> tuple[str, str, str]:
    words = " ".join(word for group in groups for word in group)
    return "services:\n  images:\n    command: ['bash', '-lc', 'cd /srv && exec ", words, "']\n    ports: []\n"


FORMS = {
    "shell": shell,
    "continued": continued,
    "dockerfile": dockerfile,
    "compose": compose,
    "flow": flow,
    "kubernetes": kubernetes,
    "bash": bash,
}


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str, str, list[str]]:
    """What stands above a drawn deployment, it, what stands below, and words of it that no repair is about."""
    form, groups = draw(commands())
    kept = next(group for group in groups[1:] if group in KEPT.values())
    return *FORMS[form](groups), kept


@st.composite
def scripts(draw: st.DrawFn) -> tuple[str, str, str, list[str]]:
    """The same of Python."""
    sizes = {name: draw(DEGREES) for name in ("ulysses_degree", "ring_degree", "tensor_parallel_size")}
    said = draw(st.lists(st.sampled_from(sorted(sizes)), unique=True, min_size=1))
    lines = draw(st.booleans())
    separator = ",\n        " if lines else ", "
    inner = separator.join(f"{name}={sizes[name]}" for name in said)
    inner = f"\n        {inner},\n    " if lines else inner
    switches = draw(st.lists(st.sampled_from(["enable_cpu_offload", "enable_layerwise_offload"]), unique=True))
    rest = "".join(f"    {name}=True,\n" for name in switches)
    head = "from vllm_omni import Omni\nfrom vllm_omni.diffusion.data import DiffusionParallelConfig\n\n# by hand\n"
    model = draw(st.sampled_from(MODELS))
    body = f'omni = Omni(\n    model="{model}",  # ours\n    parallel_config=DiffusionParallelConfig({inner}),\n{rest})'
    return head, body, "\nprint(5)  # ulysses_degree=5\n", ['",  # ours']


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str, str, list[str]]:
    """The same of the YAML of engines."""
    sizes = draw(st.dictionaries(st.sampled_from(["usp", "ring", "tensor-parallel-size"]), DEGREES, min_size=1))
    if draw(st.booleans()):
        lines = "".join(f"{key}: {size}  # by hand\n" for key, size in sizes.items())
        return "# usp\nmodel: Qwen/Qwen-Image\nomni: true\n", f"cache-backend: cache_dit\n{lines}", "port: 8091\n", []
    names = {"usp": "ulysses_size", "ring": "ring_size", "tensor-parallel-size": "tp_size"}
    lines = "".join(f"  {names[key]}: {size}  # by hand\n" for key, size in sizes.items())
    return "model: Qwen/Qwen-Image\nattention_config: {backend: FA4}\n", f"parallel_config:\n{lines}", "# 5\n", []


@given(files() | scripts() | keys())
@settings(max_examples=200, deadline=None)
def test_fix_ends_in_a_clean_check_and_all_else_stays(drawn: tuple[str, str, str, list[str]]) -> None:
    above, body, below, kept = drawn
    text = above + body + below
    fixed = fix("file", text, unsafe=True)
    shown = (text, fixed.after, fixed.failed)
    (checked,) = check_bytes("file", fixed.after.encode())
    assert checked.exit_code == 0, (*shown, [finding.message for finding in checked.findings])
    assert fix("file", fixed.after, unsafe=True).after == fixed.after, shown
    assert fixed.after.startswith(above), shown
    assert fixed.after.endswith(below), shown
    assert all(word in fixed.after[len(above) : -len(below)] for word in kept), shown


@pytest.mark.parametrize("path", sorted(ENGINES.glob("*/examples.yaml")), ids=lambda path: path.parent.name)
def test_documented_files_are_mended_or_refused_and_once_is_enough(path: Path) -> None:
    for example in yaml.safe_load(path.read_text()):
        fixed = fix("file", example["text"], unsafe=True)
        left = [document for document in check_bytes("file", fixed.after.encode()) if document.exit_code]
        assert bool(left) == bool(fixed.failed), (example["text"], fixed.failed)
        assert not left or fixed.after == fix("file", example["text"]).after, example["text"]
        assert fix("file", fixed.after, unsafe=True).after == fixed.after, example["text"]
