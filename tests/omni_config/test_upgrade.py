"""``omni diff`` between two versions of an engine: what an upgrade does to a file that stays as it is.

Each trap has a file that trips over it, and the places in both versions' sources where the behaviour differs.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from typer.testing import CliRunner

from omni_config.checking.upgrade import default_of, setting_of, stated
from omni_config.cli import app
from omni_config.engines.facts import facts_of, plain_name, shipped
from omni_config.facts.difference import difference
from omni_config.schema.settings import FIELDS

runner = CliRunner()
SERVE = "vllm serve Qwen/Qwen-Image --omni"
GENERATE = "sglang generate --model-path Qwen/Qwen-Image --prompt x"
STAGE = "stages:\n  - stage_id: 0\n    stage_type: diffusion\n    "
OURS = "version: 1\nmodel: Qwen/Qwen-Image\nengine: vllm-omni==0.26\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str) -> str:
    """The name of a file with this text: a script, or a stage file."""
    name = "run.sh" if text.startswith(("vllm", "sglang", "SGLANG")) else "stages.yaml"
    Path(name).write_text(f"{text}\n")
    return name


def upgrade(family: str, old: str, new: str, text: str, exit_code: int) -> dict[str, Any]:
    """What ``omni diff --json`` says of the one deployment in a text."""
    command = ["diff", "--json", "--engine", f"{family}=={old}", "--engine", f"{family}=={new}", write(text)]
    result = runner.invoke(app(), command)
    assert result.exit_code == exit_code, result.output
    (found,) = json.loads(result.stdout)
    assert bool(found["lost"]) == bool(exit_code)
    return dict(found)


def codes(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["code"] for finding in findings if finding["severity"] == "error"]


class TestRefused:
    def test_a_flag_that_is_renamed(self) -> None:
        # vLLM-Omni 0.26.0, entrypoints/cli/serve.py:245; 0.28.0 has only --deploy-config.
        found = upgrade("vllm-omni", "0.26", "0.28", f"{SERVE} --stage-configs-path stages.yaml", 1)
        assert found["renamed"] == [{"old": "--stage-configs-path", "new": "--deploy-config", "since": "0.28"}]
        (finding,) = found["appeared"]
        assert (finding["code"], finding["fix"]) == ("OMNI611", "write --deploy-config")
        assert found["lost"] == ["runs: yes to no", "OMNI611 vllm-omni==0.28 has no flag --stage-configs-path"]

    def test_a_flag_that_is_gone(self) -> None:
        # 0.30.0, entrypoints/cli/serve.py:1089; its one pipeline is gone, too (0.30.0, models/hidream_image).
        command = f"{SERVE} --model-class-name HiDreamImagePipeline --auxiliary-text-encoder /llama"
        found = upgrade("vllm-omni", "0.30", "0.32.0rc1", command, 1)
        assert codes(found["appeared"]) == ["OMNI614", "OMNI611"]
        assert found["appeared"][0]["fix"] == "did you mean HiDreamO1ImagePipeline?"
        assert found["renamed"] == []

    @pytest.mark.parametrize(
        ("old", "new", "pipeline"),
        [
            ("0.26", "0.28", "AudioXPipeline"),
            ("0.26", "0.28", "DreamIDOmniPipeline"),
            ("0.26", "0.28", "MagiHumanPipeline"),
            ("0.26", "0.28", "SoulXSingerPipeline"),
            ("0.26", "0.28", "SoulXSingerSVCPipeline"),
            ("0.30", "0.32.0rc1", "HiDreamImagePipeline"),
            ("0.30", "0.32.0rc1", "Pi05Pipeline"),
        ],
    )
    def test_a_pipeline_that_is_no_longer_registered(self, old: str, new: str, pipeline: str) -> None:
        found = upgrade("vllm-omni", old, new, f"{STAGE}model_class_name: {pipeline}", 1)
        assert codes(found["appeared"]) == ["OMNI614"]
        assert found["lost"][-1] == f"OMNI614 vllm-omni=={new} registers no pipeline {pipeline}"

    @pytest.mark.parametrize("text", ["vllm serve {} --omni", "version: 1\nmodel: {}\nengine: vllm-omni"])
    @pytest.mark.parametrize(
        ("old", "new", "model", "pipeline"),
        [
            ("0.26", "0.28", "XuGuo699/DreamID-Omni", "DreamIDOmniPipeline"),
            ("0.30", "0.32.0rc1", "HiDream-ai/HiDream-I1-Full", "HiDreamImagePipeline"),
        ],
    )
    def test_a_model_whose_pipeline_is_no_longer_registered(
        self, old: str, new: str, model: str, pipeline: str, text: str
    ) -> None:
        # 0.28.0, diffusion/registry.py:447.
        found = upgrade("vllm-omni", old, new, text.format(model), 1)
        assert f"pipeline: {pipeline} is no longer registered" in str(found["lost"])
        upgrade("vllm-omni", old, old, text.format(model), 0)

    def test_a_pipeline_that_diffusers_runs_needs_no_registration(self) -> None:
        command = "vllm serve XuGuo699/DreamID-Omni --omni --diffusion-load-format diffusers"
        assert "pipeline" not in str(upgrade("vllm-omni", "0.26", "0.28", command, 0)["lost"])

    def test_a_key_that_was_dropped(self) -> None:
        # 0.28.0 drops what OmniDiffusionConfig does not have, 0.30.0 refuses it (diffusion/data.py:1763).
        text = f"{STAGE}model_class_name: QwenImagePipeline\n    warp_factor: 9"
        found = upgrade("vllm-omni", "0.28", "0.30", text, 1)
        assert (codes(found["appeared"]), codes(found["disappeared"])) == (["OMNI615"], ["OMNI608"])
        upgrade("vllm-omni", "0.26", "0.28", text, 0)

    @pytest.mark.parametrize("section", ["parallel_config: {ulyses_degree: 2}", "cache_config: {rel_l1_tresh: 0.3}"])
    def test_keys_that_every_version_treats_alike_are_no_difference(self, section: str) -> None:
        # DiffusionParallelConfig refuses them since 0.26.0, DiffusionCacheConfig drops them up to 0.32.0rc1.
        text = f"{STAGE}model_class_name: QwenImagePipeline\n    cache_backend: tea_cache\n    {section}"
        for old, new in combinations(["0.26", "0.28", "0.30", "0.32.0rc1"], 2):
            found = upgrade("vllm-omni", old, new, text, 0)
            assert found["appeared"] == found["disappeared"] == []

    def test_the_second_of_two_unknown_flags(self) -> None:
        command = f"{SERVE} --no-such-flag 1 --auxiliary-text-encoder /llama"
        found = upgrade("vllm-omni", "0.30", "0.32.0rc1", command, 1)
        assert found["lost"] == ["OMNI611 vllm-omni==0.32.0rc1 has no flag --auxiliary-text-encoder"]

    @pytest.mark.parametrize(
        ("family", "old", "new", "flag", "code"),
        [
            ("vllm-omni", "0.28", "0.30", "--diffusion-offload-config '{}'", "OMNI611"),
            ("vllm-omni", "0.30", "0.32.0rc1", "--vae-parallel-mode batch", "OMNI612"),
            ("vllm-omni", "0.30", "0.32.0rc1", "--collect-stage-metrics --disable-log-stats", "OMNI611"),
            ("sglang", "0.5.18", "0.5.20", "--layerwise-residency-policy strided", "OMNI611"),
            ("sglang", "0.5.20", "0.5.22", "--numa-node 0", "OMNI611"),
            ("sglang", "0.5.20", "0.5.22", "--enable-metrics", "OMNI611"),
        ],
    )
    def test_a_flag_or_choice_that_is_new_is_refused_on_the_way_back(
        self, family: str, old: str, new: str, flag: str, code: str
    ) -> None:
        command = f"{SERVE if family == 'vllm-omni' else GENERATE} {flag}"
        back = upgrade(family, new, old, command, 1)
        assert code in codes(back["appeared"])

    def test_a_file_that_both_versions_take_alike(self) -> None:
        found = upgrade("vllm-omni", "0.28", "0.30", f"{SERVE} --usp 2 --num-gpus 2 --cache-backend tea_cache", 0)
        assert found["settings"] == {"engine": ["vllm-omni==0.28", "vllm-omni==0.30"]}
        assert not any(found[key] for key in ("facts", "renamed", "defaults", "appeared", "disappeared", "lost"))


class TestDefaults:
    @pytest.mark.parametrize(("gpus", "code"), [(4, "OMNI121"), (3, "OMNI120")])
    @pytest.mark.parametrize("ours", [False, True])
    def test_spare_gpus_become_replicas_and_their_count_must_be_a_multiple(
        self, gpus: int, code: str, ours: bool
    ) -> None:
        # 0.26.0, diffusion/data.py:945 refuses too few only; 0.28.0, data.py:383 works the replicas out.
        text = f"{OURS}hardware: {{gpus: {gpus}}}\nparallel: {{ulysses_degree: 2}}"
        found = upgrade("vllm-omni", "0.26", "0.28", text if ours else f"{SERVE} --num-gpus {gpus} --usp 2", 1)
        assert codes(found["appeared"]) == [code]
        (default,) = found["defaults"]
        assert (default["setting"], default["before"], default["after"]) == ("data_parallel_size", 1, None)
        assert default["says"].endswith(f"{gpus} GPUs for 2 ranks")

    @pytest.mark.parametrize("arguments", ["--usp 2", "--num-gpus 2 --usp 2"])
    def test_without_spare_gpus_the_default_matters_to_nobody(self, arguments: str) -> None:
        assert upgrade("vllm-omni", "0.26", "0.28", f"{SERVE} {arguments}", 0)["defaults"] == []

    @pytest.mark.parametrize(
        ("pipeline", "cache", "named"),
        [
            ("MiniMaxH3Pipeline", "cache_backend: tea_cache", True),
            ("MiniMaxH3Pipeline", "cache_backend: tea_cache\n    cache_config: {rel_l1_thresh: 0.1}", False),
            ("MiniMaxH3Pipeline", "cache_backend: none", False),
            ("QwenImagePipeline", "cache_backend: tea_cache", False),  # stays 0.2
        ],
    )
    def test_the_threshold_of_teacache_is_the_model_s_own(self, pipeline: str, cache: str, named: bool) -> None:
        # 0.28.0, diffusion/cache/teacache/config.py:97 to 133.
        found = upgrade("vllm-omni", "0.26", "0.28", f"{STAGE}model_class_name: {pipeline}\n    {cache}", 0)
        assert [item["setting"] for item in found["defaults"]] == ["rel_l1_thresh"] * named

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ("--pipeline-class-name LTX2TwoStagePipeline", True),
            ("--pipeline-class-name LTX2TwoStagePipeline --enable-breakable-cuda-graph false", False),
            ("--pipeline-class-name LTX2TwoStagePipeline --enable-torch-compile true", False),
            ("", False),
        ],
    )
    def test_sglang_captures_graphs_by_itself(self, arguments: str, named: bool) -> None:
        # SGLang 0.5.23, server_args.py:867; before, only where it was asked to.
        command = f"sglang serve --model-path Lightricks/LTX-2 --num-gpus 1 {arguments}"
        found = upgrade("sglang", "0.5.22", "0.5.23", command, 0)
        assert [item["setting"] for item in found["defaults"]] == ["enable_breakable_cuda_graph"] * named

    @pytest.mark.parametrize(
        ("model", "arguments", "named"),
        [("Z-Image", "", True), ("Z-Image", " --negative-prompt y", False), ("Z-Image-Turbo", "", False)],
    )
    def test_sglang_guides_z_image_away_from_another_text(self, model: str, arguments: str, named: bool) -> None:
        # configs/sample/zimage.py:43 of 0.5.20, :14 of 0.5.22.
        command = f"sglang generate --model-path Tongyi-MAI/{model} --prompt x{arguments}"
        found = upgrade("sglang", "0.5.20", "0.5.22", command, 0)
        assert [item["setting"] for item in found["defaults"]] == ["negative_prompt"] * named

    @pytest.mark.parametrize("family", ["vllm-omni", "sglang", "xdit"])
    def test_every_default_that_changed_and_that_a_guard_reads_is_answered(self, family: str) -> None:
        answered = stated(family)["defaults"]
        changed = set()
        for old, new in combinations(shipped(family), 2):
            before, after = facts_of(old), facts_of(new)
            assert before is not None
            assert after is not None
            sections = difference(before.data, after.data)
            keys = {key for name in ("flags", "fields") if name in sections for key in sections[name].changed}
            read = before.decides | after.decides | FIELDS.keys()
            changed |= {
                key for key in keys if default_of(before, key) != default_of(after, key) and setting_of(key) in read
            }
        assert changed == answered.keys()
        for entry in answered.values():
            assert entry.keys() in ({"when", "says"}, {"because"})


class TestRenamed:
    def test_a_key_of_a_file(self) -> None:
        # SGLang 0.5.18, server_args.py:315; 0.5.20, server_args.py:361.
        text = "model_path: Qwen/Qwen-Image\ncomponent_transformer_weights_paths: {transformer: /w}"
        Path("server.yaml").write_text(text)
        command = ["diff", "--engine", "sglang==0.5.18", "--engine", "sglang==0.5.20", "server.yaml"]
        shown = runner.invoke(app(), command).stdout
        assert "component_transformer_weights_paths -> component_weights_paths (since 0.5.20)" in shown
        back = ["diff", "--engine", "sglang==0.5.20", "--engine", "sglang==0.5.22", "server.yaml"]
        assert "Renamed" not in runner.invoke(app(), back).stdout

    @pytest.mark.parametrize("family", ["vllm-omni", "sglang"])
    def test_the_new_name_is_there_since_that_version(self, family: str) -> None:
        for entry in stated(family)["renamed"]:
            facts = facts_of(f"{family}=={entry['since']}")
            assert facts is not None
            earlier = [engine for engine in shipped(family) if _number(engine) < Version(entry["since"])]
            before = facts_of(earlier[-1])
            assert before is not None
            if entry["old"].startswith("--"):
                assert before.flag(entry["old"])
                assert facts.flag(entry["old"]) is None
                assert facts.flag(entry["new"])
            else:
                assert plain_name(entry["new"]).replace("-", "_") in facts.names


def _number(engine: str) -> Version:
    return Version(engine.partition("==")[2])


class TestShown:
    def test_text_says_what_to_write(self) -> None:
        name = write(f"{SERVE} --stage-configs-path s.yaml --num-gpus 4 --usp 2")
        result = runner.invoke(app(), ["diff", "--engine", "vllm-omni==0.26", "--engine", "vllm-omni==0.28", name])
        assert result.exit_code == 1
        assert "  --stage-configs-path -> --deploy-config (since 0.28)\n" in result.stdout
        assert "  data_parallel_size 1 -> none: spare GPUs become replicas" in result.stdout
        assert "has no flag --stage-configs-path; next: write --deploy-config\n" in result.stdout

    def test_an_empty_text_is_shown_as_one(self) -> None:
        name = write("sglang generate --model-path Tongyi-MAI/Z-Image --prompt x")
        result = runner.invoke(app(), ["diff", "--engine", "sglang==0.5.20", "--engine", "sglang==0.5.22", name])
        assert "negative_prompt ' ' -> ''" in result.stdout

    def test_each_deployment_of_a_file_is_named(self) -> None:
        name = write(f"{SERVE} --usp 2\n{SERVE} --stage-configs-path s.yaml")
        result = runner.invoke(app(), ["diff", "--engine", "vllm-omni==0.26", "--engine", "vllm-omni==0.28", name])
        assert "run.sh:1\n" in result.stdout
        assert "run.sh:2\n" in result.stdout

    def test_versions_are_written_as_pip_writes_them(self) -> None:
        name = write(f"{SERVE} --num-gpus 4 --usp 2")
        command = ["diff", "--json", "--engine", "vllm-omni==0.26.0", "--engine", "vllm-omni==0.28.0", name]
        (found,) = json.loads(runner.invoke(app(), command).stdout)
        assert [item["setting"] for item in found["defaults"]] == ["data_parallel_size"]

    def test_another_engine_reads_the_settings_of_a_file_and_not_its_flags(self) -> None:
        name = write(f"{SERVE} --usp 2 --no-such-flag 1")
        command = ["diff", "--json", "--engine", "vllm-omni==0.30", "--engine", "sglang==0.5.23", name]
        (found,) = json.loads(runner.invoke(app(), command).stdout)
        assert codes(found["disappeared"]) == ["OMNI611"]
        assert (found["renamed"], found["defaults"]) == ([], [])

    def test_a_comment_that_accepts_a_finding_of_one_version_is_no_difference(self) -> None:
        write(f"{SERVE} --num-gpus 4 --usp 2  # omni: ignore[OMNI121]")
        command = ["diff", "--json", "--engine", "vllm-omni==0.28", "--engine", "vllm-omni==0.26", "run.sh"]
        result = runner.invoke(app(), command)
        (found,) = json.loads(result.stdout)
        assert (result.exit_code, found["appeared"]) == (0, [])


class TestCases:
    @pytest.mark.parametrize(
        ("old", "new", "text", "code"),
        [
            # 0.28.0, config/stage_config.py:706: the older schema of stage files.
            (
                "0.26",
                "0.28",
                "stage_args:\n  - stage_id: 0\n    stage_type: diffusion\n    engine_args: {model: Qwen/Qwen-Image}",
                "OMNI6102",
            ),
            # 0.30.0, diffusion/data.py:1264; 0.28.0 has no such condition.
            ("0.28", "0.30", f'{SERVE} --kv-transfer-config \'{{"kv_connector": "x"}}\'', "OMNI6102"),
            # 0.30.0, diffusion/data.py:59: an old name beside the new one; 0.28.0, data.py:50 dropped the old one.
            (
                "0.28",
                "0.30",
                f"{STAGE}model_class_name: QwenImagePipeline\n"
                "    kv_cache_skip_steps: '0-3'\n    diffusion_kv_cache_skip_steps: '0-3'",
                "OMNI6102",
            ),
            # 0.32.0rc1, diffusion/registry.py:514: the new way of decoding is not for every VAE.
            ("0.30", "0.32.0rc1", f"{SERVE} --usp 2 --vae-patch-parallel-size 2 --vae-parallel-mode batch", "OMNI4120"),
        ],
    )
    def test_vllm_omni_starts_to_refuse(self, old: str, new: str, text: str, code: str) -> None:
        assert code in codes(upgrade("vllm-omni", old, new, text, 1)["appeared"])

    def test_all_gather_goes_together_with_ulysses(self) -> None:
        # 0.30.0, diffusion/data.py:364; 0.32.0rc1, data.py:361 still refuses Ring.
        ulysses = f"{SERVE} --allgather-degree 2 --ulysses-degree 2"
        assert codes(upgrade("vllm-omni", "0.30", "0.32.0rc1", ulysses, 0)["disappeared"]) == ["OMNI1101"]
        ring = f"{SERVE} --allgather-degree 2 --ring-degree 2"
        assert codes(upgrade("vllm-omni", "0.30", "0.32.0rc1", ring, 0)["appeared"]) == ["OMNI1101"]  # in other words

    def test_old_names_of_keys_are_taken(self) -> None:
        # 0.30.0, diffusion/data.py:86 to 95; 0.28.0, data.py:50 to 75.
        text = f"{STAGE}model_class_name: QwenImagePipeline\n    static_lora_scale: 0.5\n    quantization: fp8"
        found = upgrade("vllm-omni", "0.28", "0.30", text, 0)
        assert [item["new"] for item in found["renamed"]] == ["lora_scale", "quantization_config"]
        assert codes(found["appeared"]) == []

    def test_minimax_h3_by_its_id(self) -> None:
        command = "vllm serve MiniMaxAI/MiniMax-H3 --omni --cache-backend tea_cache"
        found = upgrade("vllm-omni", "0.26", "0.28", command, 0)
        assert [item["setting"] for item in found["defaults"]] == ["rel_l1_thresh"]

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            # 0.5.18, server_args.py:3017; 0.5.20 streams no skipped blocks (server_args.py:2513).
            (f"SGLANG_CACHE_DIT_ENABLED=true {GENERATE} --dit-layerwise-offload true", "OMNI2201"),
            # 0.5.18, server_args.py:3174; gone in 0.5.20.
            (f"{GENERATE} --encoder-parallel dp --tp-size 2 --num-gpus 2", "OMNI1201"),
        ],
    )
    def test_sglang_no_longer_refuses(self, text: str, code: str) -> None:
        assert codes(upgrade("sglang", "0.5.18", "0.5.20", text, 0)["disappeared"]) == [code]
        assert code in codes(upgrade("sglang", "0.5.20", "0.5.18", text, 1)["appeared"])

    def test_sglang_drops_a_key_that_was_renamed(self) -> None:
        # 0.5.18, server_args.py:315; 0.5.20, server_args.py:361.
        text = "model_path: Qwen/Qwen-Image\ncomponent_transformer_weights_paths: {transformer: /w}"
        found = upgrade("sglang", "0.5.18", "0.5.20", text, 1)
        (finding,) = found["appeared"]
        assert (finding["code"], finding["fix"]) == ("OMNI608", "write component_weights_paths")

    @pytest.mark.parametrize(
        ("model", "setting", "values"),
        [
            ("OpenVDN/vdn-minimax-h3", "num_inference_steps", (9, 8)),
        ],
    )
    def test_sglang_takes_another_number_of_steps(self, model: str, setting: str, values: tuple[int, int]) -> None:
        # configs/sample/minimax_h3.py:337 and minimax_h3_vdn.py:15 of 0.5.20.
        command = f"sglang generate --model-path {model} --prompt x"
        (default,) = upgrade("sglang", "0.5.20", "0.5.22", command, 0)["defaults"]
        assert (default["setting"], default["before"], default["after"]) == (setting, *values)
        assert upgrade("sglang", "0.5.20", "0.5.22", f"{command} --num-inference-steps 8", 0)["defaults"] == []
