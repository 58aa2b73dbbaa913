"""Output for programs and people: JSON, SARIF, GitHub, JUnit, the schema, the pages, and what files are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.catalog.policies import load_policies
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.output.pages import drift, schema

runner = CliRunner()
ROOT = Path(__file__).parents[2]
HEAD = "version: 1\nmodel: tiny\n"
BAD = HEAD + "# ü𝄞 wide\nhardware: {gpus: 4}\nparallel: {ulysses_degree: 2, vae_patch_parallel_size: 8}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text(HEAD)
    return tmp_path


def output(*arguments: str) -> str:
    return runner.invoke(app(), ["check", *arguments]).stdout


def test_json_carries_repairs_and_the_nearest_configurations(folder: Path) -> None:
    result = json.loads(output("--json", "."))
    assert result["checked"] == 2
    by_code = {finding["code"]: finding for finding in result["findings"]}
    assert by_code["OMNI101"]["repair"] == {"hardware.gpus": 2}
    assert by_code["OMNI401"]["changes"] == {"vae_patch_parallel_size": 2}
    (nearest,) = result["nearest"]
    assert nearest["file"] == "bad.yaml"
    assert {"hardware.gpus": 2} in nearest["changes"]


def test_sarif_is_sarif_2_1_0(folder: Path) -> None:
    log = json.loads(output("--output-format", "sarif", "bad.yaml"))
    assert log["version"] == "2.1.0"
    run = Sarif.model_validate(log).runs[0]  # models generated from the official schema, which allow no other key
    assert run.tool.driver.name == "omni-config"
    with pytest.raises(ValidationError):
        Sarif.model_validate(log | {"run": []})
    rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
    for result in log["runs"][0]["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        region = result["locations"][0]["physicalLocation"]["region"]
        assert 1 <= region["startColumn"] <= region["endColumn"]


def test_sarif_counts_utf16_columns(folder: Path) -> None:
    Path("wide.yaml").write_text(HEAD + "sampling: {prompt: '𝄞𝄞', steps: 1}\n")
    log = json.loads(output("--output-format", "sarif", "wide.yaml"))
    region = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 3, "startColumn": 28, "endColumn": 33}


def test_github_annotations_point_into_the_file(folder: Path) -> None:
    lines = output("--output-format", "github", "bad.yaml").splitlines()
    assert lines[0].startswith("::error file=bad.yaml,line=4,col=18,endColumn=19,title=OMNI101::hardware.gpus is 4")
    assert any(line.startswith("::warning file=bad.yaml,line=5") for line in lines)


def test_github_output_escapes_what_would_start_a_command(folder: Path) -> None:
    Path("x,y:z.yaml").write_text('version: 1\nmodel: "%0A::stop-commands::x"\n')
    line = output("--output-format", "github", "x,y:z.yaml").strip()
    assert line.count("\n") == 0
    assert "file=x%2Cy%3Az.yaml" in line
    assert "%250A" in line


def test_junit_counts_a_case_a_document(folder: Path) -> None:
    root = ElementTree.fromstring(output("--output-format", "junit", "bad.yaml", "good.yaml"))
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    failure = root.find("testsuite/testcase[@name='bad.yaml']/failure")
    assert failure is not None
    assert "OMNI101" in (failure.text or "")


def test_strict_makes_warnings_fail(folder: Path) -> None:
    Path("warn.yaml").write_text(HEAD + "parallel: {hsdp_shard_size: 2}\n")
    assert runner.invoke(app(), ["check", "warn.yaml"]).exit_code == 0
    assert runner.invoke(app(), ["check", "--strict", "warn.yaml"]).exit_code == 1


def test_a_comment_accepts_a_finding_of_its_line_and_the_plan_stands(folder: Path) -> None:
    Path("c.yaml").write_text(HEAD + "hardware:\n  gpus: 4  # omni: ignore[OMNI101]\n")
    result = runner.invoke(app(), ["check", "c.yaml"])
    assert result.exit_code == 0
    assert "1 accepted by a comment." in result.stdout
    assert check_bytes("c.yaml", Path("c.yaml").read_bytes())[0].plan is not None


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("# omni: ignore[OMNI102]", "accepts nothing"),
        ("# omni: ignore", "names no code"),
        ("# omni: ignore[OMNI904]", "accepts nothing"),
    ],
)
def test_a_comment_that_accepts_nothing_is_a_finding(comment: str, message: str) -> None:
    text = HEAD + f"hardware:\n  gpus: 4  {comment}\n"
    found = check_bytes("c.yaml", text.encode())[0].findings
    assert [finding.code for finding in found] == ["OMNI101", "OMNI907"]
    assert message in found[1].message


def test_an_unreadable_file_cannot_be_accepted() -> None:
    assert check_bytes("c.yaml", b"a: 1 # omni: ignore[OMNI904]\n")[0].exit_code == 2


def test_folders_globs_and_standard_input_are_read(folder: Path) -> None:
    (folder / "sub" / ".hidden").mkdir(parents=True)
    (folder / "sub" / "deep.yml").write_text(BAD)
    (folder / "sub" / ".hidden" / "x.yaml").write_text(BAD)
    (folder / "sub" / "other.yaml").write_text("kind: Deployment\nmode: 0644\nref: !Ref x\n")
    (folder / "sub" / "loop").symlink_to(folder)
    result = runner.invoke(app(), ["check", "."])
    assert "3 configs checked. 1 other file set aside." in result.stdout.replace("\n", " ")
    assert "2 configs checked" in output("*.yaml")
    assert "1 config checked" in runner.invoke(app(), ["check", "-"], input=HEAD).stdout
    assert runner.invoke(app(), ["check", "sub/other.yaml"]).exit_code == 2
    assert runner.invoke(app(), ["check", "none/*.yaml"]).exit_code == 2


def test_an_unreadable_file_is_a_finding(folder: Path) -> None:
    Path("self.yaml").symlink_to("self.yaml")
    result = runner.invoke(app(), ["check", "self.yaml"])
    assert result.exit_code == 2
    assert "OMNI902" in result.stdout


def test_the_schema_accepts_and_refuses_what_the_document_does() -> None:
    validator = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    for path in sorted(ROOT.glob("examples/**/*.yaml")):
        validator.validate(yaml.safe_load(path.read_text()))
        assert path.read_text().startswith("# yaml-language-server: $schema="), path
    assert not validator.is_valid({"version": 1, "model": "tiny", "a": 1})
    assert not validator.is_valid({"version": 1, "model": "tiny", "parallel": {"ulysses_degree": 0}})
    assert validator.is_valid({"version": 1, "model": "tiny", "cache": {"cache_dit": True}})
    assert not validator.is_valid({"version": 1, "model": "tiny", "cache": {"cache_dit": None}})


def test_the_pages_in_docs_are_those_of_the_catalog() -> None:
    assert drift(ROOT / "docs") == ""


def test_drift_shows_what_changed(tmp_path: Path) -> None:
    assert runner.invoke(app(), ["docs", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app(), ["docs", "--check", str(tmp_path)]).exit_code == 0
    page = tmp_path / "rules" / "OMNI101.md"
    page.write_text(page.read_text().replace("gpu-count", "gpus"))
    (tmp_path / "rules" / "OMNI199.md").write_text("old")
    result = runner.invoke(app(), ["docs", "--check", str(tmp_path)])
    assert result.exit_code == 1
    assert "-# OMNI101 gpus" in result.stdout
    assert "OMNI199.md: no longer generated" in result.stdout


def test_explain_and_rules(folder: Path) -> None:
    assert "Each rank has exactly one place" in runner.invoke(app(), ["explain", "omni101"]).stdout
    assert json.loads(runner.invoke(app(), ["explain", "--json", "OMNI101"]).stdout)["kind"] == "product"
    unknown = runner.invoke(app(), ["explain", "OMNI10"])
    assert unknown.exit_code == 2
    assert "did you mean OMNI" in unknown.stderr
    listed = json.loads(runner.invoke(app(), ["rules", "--json"]).stdout)
    assert [rule["code"] for rule in listed] == [rule.code for rule in catalog().rules]


POLICY = """\
- code: ACME001
  name: production-tiling
  kind: requires
  when: width >= 64
  needs: vae_use_tiling
  fields: [vae_use_tiling, width]
  repairs: [{vae_use_tiling: true}]
  message: "{width} px without tiling"
  why: A decode in one piece has run out of memory twice.
  fix: set vae.vae_use_tiling to true
"""


def test_an_organisation_adds_rules_of_its_own(folder: Path) -> None:
    Path("policy.yaml").write_text(POLICY)
    result = runner.invoke(app(), ["check", "--rules", "policy.yaml", "good.yaml"])
    assert result.exit_code == 1
    assert "ACME001 [error] 64 px without tiling" in result.stdout
    assert runner.invoke(app(), ["fix", "--unsafe", "--rules", "policy.yaml", "good.yaml"]).exit_code == 0
    assert "vae_use_tiling: true" in Path("good.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ACME001", "OMNI101", "OMNI is taken"),
        ("kind: requires", "kind: demands", "kind must be one of"),
        ("needs: vae_use_tiling", "needs: __import__('os')", "not allowed"),
        ("needs: vae_use_tiling", "needs: vae_tilingg", "vae_tilingg is not one of the quantities"),
        ("fields: [vae_use_tiling, width]", "fields: [tiling]", "tiling is not one of the fields"),
        ("why: A", "because: A", "unknown key because"),
        ("  message:", "  fix: [1]\n  message:", "twice"),
    ],
)
def test_a_policy_that_cannot_be_used_says_why(folder: Path, old: str, new: str, message: str) -> None:
    Path("policy.yaml").write_text(POLICY.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        load_policies("policy.yaml")
    result = runner.invoke(app(), ["check", "--rules", "policy.yaml", "good.yaml"])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_policy_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("code: ACME001\n")
    with pytest.raises(ValueError, match="a list of rules"):
        load_policies(tmp_path / "policy.yaml")


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    for number in range(200):
        (folder / f"{number}.yaml").write_text(BAD)
    code = "from omni_config.__main__ import main; main()"
    command = f"{sys.executable} -c '{code}' check . | head -1"
    result = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert result.stderr == ""
