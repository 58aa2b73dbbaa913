"""``omni fix``: it ends in a clean check, and nothing else in the file changes."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from omni_config.checking.files import check_bytes
from omni_config.checking.fix import fix
from omni_config.cli import app

runner = CliRunner()
TEXT = """\
# our deployment; ask before changing
version: 1
model: "Tongyi-MAI/Z-Image-Turbo"   # quoted on purpose
engine: vllm-omni

hardware:
  gpus: 2      # one node
parallel: {ulysses_degree: 2, vae_patch_parallel_size: 16}
memory:
  # both, to be sure
  enable_cpu_offload: true
cache:
  cache_dit:
    taylorseer_order: 2   # no effect
    Fn_compute_blocks: 1
sampling:
  prompt: 'a cat'  # single quotes
"""


def test_safe_repairs_write_down_what_happens_anyway_and_touch_nothing_else() -> None:
    fixed = fix("c.yaml", TEXT)
    changed = [line for line in difflib.ndiff(TEXT.splitlines(), fixed.after.splitlines()) if line[0] in "+-"]
    assert changed == [
        "- parallel: {ulysses_degree: 2, vae_patch_parallel_size: 16}",
        "+ parallel: {ulysses_degree: 2, vae_patch_parallel_size: 2}",
        "-     taylorseer_order: 2   # no effect",
        "+     taylorseer_order: 1   # no effect",
        "+ vae:",
        "+   vae_use_tiling: true",
    ]
    assert {finding.code for finding in fixed.applied} == {"OMNI401", "OMNI402", "OMNI204"}


def test_unsafe_repairs_take_the_nearest_configuration_and_right_a_misspelt_key() -> None:
    text = TEXT.replace("parallel:", "paralel:").replace("gpus: 2 ", "gpus: 8 ")
    assert check_bytes("c.yaml", text.encode())[0].exit_code == 2
    assert fix("c.yaml", text).after == text
    fixed = fix("c.yaml", text, unsafe=True)
    assert check_bytes("c.yaml", fixed.after.encode())[0].exit_code == 0
    assert "# quoted on purpose" in fixed.after
    assert "'a cat'  # single quotes" in fixed.after


def test_the_other_documents_of_a_file_stay_as_they_are() -> None:
    other = "version: 1\nmodel: tiny  # untouched\n"
    fixed = fix("c.yaml", f"{other}---\n{TEXT}---\n{other}")
    first, _, last = fixed.after.split("---\n")
    assert (first, last) == (other, other)
    assert fixed.applied


def test_an_alias_is_left_to_its_author() -> None:
    text = (
        "version: 1\nmodel: tiny\ncache: {tea_cache: &off false, cache_dit: {}}\nmemory: {enable_cpu_offload: *off}\n"
    )
    assert fix("c.yaml", text, unsafe=True).after == text
    text = "version: 1\nmodel: Qwen/Qwen-Image\nengine: vllm-omni\ncache: {tea_cache: &both {}, cache_dit: *both}\n"
    fixed = fix("c.yaml", text, unsafe=True)
    assert fixed.after == text
    assert fixed.failed


class Dumper(yaml.SafeDumper):
    """Without aliases, which are left to their author."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    degree = st.sampled_from([1, 2, 3, 4, 8])
    sections = {
        "hardware": st.fixed_dictionaries({"gpus": st.sampled_from([1, 2, 4, 6, 8])}),
        "parallel": st.dictionaries(
            st.sampled_from(
                [
                    "ulysses_degree",
                    "ring_degree",
                    "cfg_parallel_size",
                    "tensor_parallel_size",
                    "vae_patch_parallel_size",
                ]
            ),
            degree,
            min_size=1,
        ),
        "cache": st.dictionaries(st.sampled_from(["tea_cache", "cache_dit"]), st.just({}) | st.booleans(), min_size=1),
        "memory": st.dictionaries(
            st.sampled_from(["enable_cpu_offload", "enable_layerwise_offload"]), st.booleans(), min_size=1
        ),
        "vae": st.dictionaries(st.sampled_from(["vae_use_tiling", "vae_use_slicing"]), st.booleans(), min_size=1),
        "execution": st.fixed_dictionaries({"step_execution": st.booleans()}),
        "sampling": st.dictionaries(
            st.sampled_from(["prompt", "negative_prompt", "image"]), st.text(max_size=8), min_size=1
        ),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(sections)), unique=True))
    model, engine = draw(
        st.sampled_from(
            [
                ("tiny", "native"),
                ("Tongyi-MAI/Z-Image", "native"),
                ("Tongyi-MAI/Z-Image", "vllm-omni"),
                ("Qwen/Qwen-Image", "vllm-omni"),
                ("Qwen/Qwen-Image-Edit", "vllm-omni==0.30"),
            ]
        )
    )
    head = {"version": 1, "model": model, "engine": engine}
    return head | {name: draw(sections[name]) for name in chosen}


@given(documents(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_fix_always_ends_in_a_clean_check(document: dict[str, Any], flow: bool) -> None:
    text = yaml.dump(document, Dumper=Dumper, sort_keys=False, default_flow_style=flow, allow_unicode=True)
    fixed = fix("c.yaml", text, unsafe=True)
    (checked,) = check_bytes("c.yaml", fixed.after.encode())
    assert checked.exit_code == 0, (text, fixed.after, [f.message for f in checked.findings], fixed.failed)
    again = fix("c.yaml", fixed.after, unsafe=True)
    assert again.after == fixed.after


@given(documents(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_keys_never_matters(document: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = [(key, shuffled(inner)) for key, inner in value.items()]
        random.shuffle(items)
        return dict(items)

    one, other = (
        check_bytes("c.yaml", yaml.safe_dump(each, sort_keys=False, allow_unicode=True).encode())[0]
        for each in (document, shuffled(document))
    )
    assert sorted((f.code, f.message) for f in one.findings) == sorted((f.code, f.message) for f in other.findings)
    assert one.plan == other.plan


@given(documents())
@settings(max_examples=60, deadline=None)
def test_findings_point_at_a_line_that_holds_the_key_they_name(document: dict[str, Any]) -> None:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (checked,) = check_bytes("c.yaml", text.encode())
    lines = text.splitlines()
    for finding in checked.findings:
        assert finding.span is not None
        names = [*finding.fields, "model"]
        assert any(f"{name}:" in lines[finding.span.line - 1] for name in names), finding


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    return path


def test_diff_shows_and_writes_nothing(file: Path) -> None:
    result = runner.invoke(app(), ["fix", "--diff", str(file)])
    assert result.exit_code == 0
    assert "-parallel: {ulysses_degree: 2, vae_patch_parallel_size: 16}" in result.stdout
    assert file.read_text() == TEXT


def test_fix_writes_in_place_and_keeps_mode_and_byte_order_mark(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    file.chmod(0o640)
    assert runner.invoke(app(), ["fix", str(file)]).exit_code == 0
    assert file.read_bytes().startswith(b"\xef\xbb\xbf# our deployment")
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_what_cannot_be_repaired_exits_with_1_or_2(file: Path) -> None:
    file.write_text("version: 1\nmodel: tiny\nhardware: {gpus: 4}\n")
    assert runner.invoke(app(), ["fix", str(file)]).exit_code == 1
    assert runner.invoke(app(), ["fix", "--unsafe", str(file)]).exit_code == 0
    file.write_text("a: [")
    assert runner.invoke(app(), ["fix", str(file)]).exit_code == 2
    assert runner.invoke(app(), ["fix", str(file.parent / "none.yaml")]).exit_code == 2
