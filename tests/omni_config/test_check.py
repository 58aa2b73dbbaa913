"""``omni check``: what a user sees for each mistake, where it points, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config import check, load
from omni_config.checking.files import check_bytes
from omni_config.checking.schema_findings import instead
from omni_config.cli import app
from omni_config.schema.settings import FIELDS

runner = CliRunner()
HEAD = "version: 1\nmodel: tiny\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = Path("config.yaml")
        path.write_text(text)
        return path

    return write


def findings(path: Path) -> list[tuple[str, int, int, str]]:
    return [
        (finding.code, finding.span.line, finding.span.column, finding.next_step)
        for checked in check(path)
        for finding in checked.findings
        if finding.span
    ]


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "fix"),
    [
        (HEAD + "parallel:\n  ulyses_degree: 2\n", "OMNI904", 4, 3, "did you mean 'ulysses_degree'?"),
        (HEAD + "parallel: {usp: 2}\n", "OMNI904", 3, 12, "write parallel.ulysses_degree"),
        (HEAD + "num_gpus: 2\n", "OMNI904", 3, 1, "write hardware.gpus"),
        (HEAD + "paralel: {}\n", "OMNI904", 3, 1, "did you mean 'parallel'?"),
        (HEAD + "ulysses_degree: 2\n", "OMNI904", 3, 1, "it belongs in parallel"),
        (HEAD + "cache:\n  cache_dit: {fn_compute_blocks: 1}\n", "OMNI904", 4, 15, "did you mean 'Fn_compute_blocks'?"),
        (HEAD + "parallel: {ulysses_degree: '2'}\n", "OMNI905", 3, 28, "correct the value"),
        (HEAD + "parallel: {ulysses_degree: true}\n", "OMNI905", 3, 28, "correct the value"),
        (HEAD + "parallel: {ulysses_degree: 0}\n", "OMNI905", 3, 28, "correct the value"),
        (HEAD + "sampling: {cfg_scale: 1e3}\n", "OMNI905", 3, 23, "correct the value"),
        (HEAD + "sampling: {prompt: no}\n", "OMNI905", 3, 20, "correct the value"),
        (HEAD + "cache: {tea_cache: }\n", "OMNI905", 3, 20, "correct the value"),
        (HEAD + "cache: {tea_cache: {rel_l1_thresh: .nan}}\n", "OMNI905", 3, 36, "correct the value"),
        ("version: 2\nmodel: tiny\n", "OMNI905", 1, 10, "correct the value"),
        ("version: 1\nparallel: {}\ncache: {}\n", "OMNI906", 1, 1, "add model"),
        ("version: 1\n", "OMNI908", 1, 1, "name a config"),
        ("- 1\n", "OMNI908", 1, 1, "name a config"),
        ("", "OMNI906", 1, 1, "add it"),
        ("version: 1\nmodel: Qwen/qwen-imag\n", "OMNI501", 2, 8, "did you mean Qwen/Qwen-Image or"),
        (HEAD + "engine: vllm\n", "OMNI502", 3, 9, "did you mean vllm-omni?"),
        (HEAD + "hardware:\n  gpus: 3\n", "OMNI101", 4, 9, "set hardware.gpus to 1"),
        (
            HEAD + "parallel:\n  tensor_parallel_size: 4\n",
            "OMNI102",
            4,
            25,
            "set parallel.tensor_parallel_size to 1 or 2",
        ),
    ],
)
def test_a_mistake_is_found_where_it_stands(config, text: str, code: str, line: int, column: int, fix: str) -> None:
    found = findings(config(text))
    assert (code, line, column) in [item[:3] for item in found]
    assert any(item[0] == code and item[3].startswith(fix) for item in found)


def test_the_other_half_of_a_conflict_is_shown_too(config) -> None:
    config(HEAD + "cache:\n  tea_cache: {}\n  cache_dit: {}\n")
    finding = next(f for f in check("config.yaml")[0].findings if f.code == "OMNI201")
    assert finding.span is not None
    assert (finding.span.line, [span.line for span in finding.related]) == (5, [4])


def test_text_shows_place_code_caret_reason_and_next_step(config) -> None:
    config(HEAD + "hardware:\n  gpus: 4\nparallel:\n  ulysses_degree: 2\n")
    result = runner.invoke(app(), ["check", "config.yaml"])
    assert result.exit_code == 1
    assert result.output.splitlines()[:7] == [
        "config.yaml:4:9: OMNI101 [error] hardware.gpus is 4, but ulysses 2 x ring 1 x cfg 1 x tensor 1 = 2",
        "4 |   gpus: 4",
        "  |         ^",
        "6 |   ulysses_degree: 2",
        "  |                   -",
        "  = why: Each rank has exactly one place in the mesh cfg x ring x ulysses x tensor, so GPUs and degrees must "
        "agree.",
        "  = next: set hardware.gpus to 2, or choose degrees whose product is 4",
    ]
    assert result.output.endswith("1 error; 1 config checked.\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD, 0),
        (HEAD + "parallel: {ulysses_degree: 2}\n", 0),
        (HEAD + "hardware: {gpus: 4}\n", 1),
        (HEAD + "a: 1\n", 2),
        ("a: [\n", 2),
        ("version: 1\nmodel: other\n", 2),
    ],
)
def test_exit_codes(config, text: str, code: int) -> None:
    config(text)
    assert runner.invoke(app(), ["check", "config.yaml"]).exit_code == code


def test_files_that_are_not_there_or_are_folders(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name in ("missing.yaml", "folder.yaml"):
        result = runner.invoke(app(), ["check", str(tmp_path / name)])
        assert result.exit_code == 2
        assert "OMNI902" in result.output


def test_a_message_is_one_line_whatever_a_key_is(config) -> None:
    (checked,) = check(config(HEAD + '"a\\nb\\u2028c": 1\n'))
    assert checked.findings[0].message == r"unknown key 'a\nb\u2028c'"


def test_what_lists_hold_is_known_too(config) -> None:
    (checked,) = check(config(HEAD + "lora: [{path: a, scal: 1}]\n"))
    (finding,) = checked.findings
    assert (finding.code, finding.message) == ("OMNI904", "unknown key 'scal' in lora.0")
    assert finding.next_step == "did you mean 'scale'?"


def test_json_holds_what_a_program_needs(config) -> None:
    config(HEAD + "hardware: {gpus: 4}\n")
    result = runner.invoke(app(), ["check", "--json", "config.yaml"])
    (finding,) = json.loads(result.output)["findings"]
    assert finding["code"] == "OMNI101"
    assert finding["location"] == {"file": "config.yaml", "line": 3, "column": 18, "end_column": 19}


def test_several_documents_in_a_file_are_each_checked(config) -> None:
    config(HEAD + "---\n" + HEAD + "hardware: {gpus: 4}\n")
    assert [len(checked.findings) for checked in check("config.yaml")] == [0, 1]


def test_load_raises_one_readable_line(config) -> None:
    assert load(config(HEAD)).model == "tiny"
    with pytest.raises(ValueError, match=r"config.yaml:3:1: OMNI904 unknown key 'a'"):
        load(config(HEAD + "a: 1\n"))


def test_the_command_line_loads_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys, omni_config.cli, omni_config.output.run_check, runtime;"
        "bad = {'torch', 'diffusers', 'transformers', 'cache_dit', 'numpy'};"
        "sys.exit(', '.join(bad & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_clean_file_is_checked_without_what_only_others_need(config) -> None:
    config(HEAD)
    code = (
        "import sys; from omni_config.output.run_check import run; code = run(['config.yaml']);"
        "bad = {'rich', 'typer', 'pydantic', 'pydantic_core.core_schema', 'tomllib', 'subprocess'} & set(sys.modules);"
        "assert not bad, bad;"
        "import pydantic, pydantic_core; from omni_config.schema.document import Document;"
        "assert Document.model_validate({'version': 1, 'model': 'tiny'}).model == 'tiny';"
        "from omni_config.schema.settings import validate\n"
        "try: validate({'version': 'x'})\n"
        "except pydantic_core.ValidationError: sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_an_adapter_that_is_not_there_is_found_where_it_is_named(config) -> None:
    text = HEAD + "lora:\n  - path: there.safetensors\n  - {scale: 0.5, path: gone.safetensors}\n"
    Path("there.safetensors").write_bytes(b"")
    (finding,) = findings(config(text))
    assert finding[:3] == ("OMNI610", 5, 24)
    Path("gone.safetensors").write_bytes(b"")
    assert findings(config(text)) == []
    Path("there.bin").write_bytes(b"")
    assert findings(config(text.replace("there.safetensors", "there.bin")))[0][:3] == ("OMNI610", 4, 11)


def test_a_value_that_is_left_out_at_the_end_of_an_engines_file_is_no_traceback() -> None:
    from omni_config.checking.files import check_bytes

    assert check_bytes("stages.yaml", b" omni:")


def test_what_to_write_instead_of_a_key_is_a_key() -> None:
    for key, stated in instead().items():
        assert key not in FIELDS
        for name in stated.split(" or "):
            assert tuple(name.partition(":")[0].split(".")) in FIELDS.values(), key


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("[]", "sampling.prompt: must have at least 1 item, not 0"),
        ("[1]", "sampling.prompt.0: must be text; YAML reads 1 as 1: quote it"),
        ("[a cat, [a dog]]", "sampling.prompt.1: must be text, not a list"),
        ("{a: cat}", "sampling.prompt: must be text, not a mapping"),
        ("5", "sampling.prompt: must be text; YAML reads 5 as 5: quote it"),
    ],
)
def test_what_is_no_prompt_and_no_list_of_prompts_is_one_finding(prompt: str, message: str) -> None:
    text = f"version: 1\nmodel: tiny\nsampling: {{prompt: {prompt}}}\n"
    (checked,) = check_bytes("config.yaml", text.encode())
    assert [finding.message for finding in checked.findings] == [message]


def test_prompts_in_a_list_are_in_the_plan_in_their_order() -> None:
    text = b"version: 1\nmodel: tiny\nsampling: {prompt: [a cat, a dog]}\n"
    (checked,) = check_bytes("config.yaml", text)
    assert checked.findings == ()
    assert checked.plan is not None
    assert checked.plan.sampling.prompt == ["a cat", "a dog"]
