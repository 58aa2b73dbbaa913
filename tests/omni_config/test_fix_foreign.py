"""``omni fix`` of files of other engines, form by form: what it changes, what it leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.checking.files import check_bytes
from omni_config.checking.fix import fix
from omni_config.cli import app

runner = CliRunner()

#: By name: a file, and the parts of it that a repair replaces, each with what stands there then.
EDITS: dict[str, tuple[str, dict[str, str]]] = {
    "a flag of a line": (
        "vllm serve Qwen/Qwen-Image --omni --usp 5 --tensor-parallel-size 2 --cache-backend tea_cache\n",
        {"--usp 5": "--usp 4"},
    ),
    "a switch of a line, and a number": (
        "sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --enable-teacache --ulysses-degree 3\n",
        {" --enable-teacache": "", "degree 3": "degree 4"},
    ),
    "the switch of a line, at its end": (
        "xdit --model FLUX.1-dev --ulysses_degree 2 --prompt hi --use_cfg_parallel  # fast\n",
        {" --use_cfg_parallel": ""},
    ),
    "a continued line goes whole": (
        "sglang serve \\\n  --model-path Qwen/Qwen-Image \\\n  --enable-teacache \\\n  --port 8000 > log 2>&1 &\n",
        {"  --enable-teacache \\\n": ""},
    ),
    "the last of continued lines goes with what continues it": (
        "sglang serve \\\n  --model-path Qwen/Qwen-Image \\\n  --enable-teacache\necho done\n",
        {" \\\n  --enable-teacache\n": "\n"},
    ),
    "the last of continued lines goes before a redirection": (
        "sglang serve \\\n  --model-path Qwen/Qwen-Image \\\n  --enable-teacache > log\n",
        {"--enable-teacache > log": "> log"},
    ),
    "a new flag on the line": (
        "sglang serve --model-path Qwen/Qwen-Image --ulysses-degree 2 | tee log\n",
        {"degree 2": "degree 2 --num-gpus 2"},
    ),
    "a new flag with its value attached": (
        "sglang serve --model-path=Qwen/Qwen-Image --ulysses-degree=2\n",
        {"degree=2": "degree=2 --num-gpus=2"},
    ),
    "a new flag on a continued line of its own": (
        "sglang serve \\\n    --model-path Qwen/Qwen-Image \\\n    --ulysses-degree 2\n",
        {"degree 2": "degree 2 \\\n    --num-gpus 2"},
    ),
    "a new flag where lines end in CRLF": (
        "sglang serve \\\r\n  --model-path Qwen/Qwen-Image \\\r\n  --ulysses-degree 2\r\necho\r\n",
        {"degree 2": "degree 2 \\\r\n  --num-gpus 2"},
    ),
    "a number in a variable": (
        "N=3  # ranks\nsglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree $N\n",
        {"N=3": "N=4"},
    ),
    "a default of a variable": (
        'sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree "${U:-3}"\n',
        {"U:-3": "U:-4"},
    ),
    "a flag in an array": (
        'ARGS=(--usp 5\n      --ring 1)\nvllm serve Qwen/Qwen-Image --omni "${ARGS[@]}"\n',
        {"--usp 5": "--usp 4"},
    ),
    "a variable that another deployment reads stays": (
        "N=3\n"
        "sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree $N &\n"
        "sglang serve --model-path Qwen/Qwen-Image --num-gpus 3 --ulysses-degree $N\n",
        {"--num-gpus 4": "--num-gpus 3"},
    ),
    "two deployments": (
        "sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree 3 &\n"
        "vllm serve Qwen/Qwen-Image --omni --usp 5\n",
        {"degree 3": "degree 4", "--usp 5": "--usp 4"},
    ),
    "the processes of the launcher": (
        "torchrun --nproc_per_node=3 xfuser/runner.py --model FLUX.1-dev --ulysses_degree 2 --prompt hi\n",
        {"node=3": "node=2"},
    ),
    "a switch for all ranks follows the degree": (
        "xdit --model FLUX.1-dev --ulysses_degree 3 --use_parallel_vae --height 1024 --width 1024\n",
        {"degree 3": "degree 4"},
    ),
    "a variable of the environment": (
        "export SGLANG_CACHE_DIT_ENABLED=true  # on\nexport SGLANG_CACHE_DIT_FN=70\n"
        "sglang serve --model-path Qwen/Qwen-Image\n",
        {"ENABLED=true": "ENABLED=false"},
    ),
    "a cache and its parameters": (
        "vllm serve Wan-AI/Wan2.2-T2V-A14B-Diffusers --omni \\\n  --cache-backend tea_cache \\\n"
        "  --cache-config '{\"rel_l1_thresh\": 0.2}' \\\n  --usp 2\n",
        {"  --cache-backend tea_cache \\\n  --cache-config '{\"rel_l1_thresh\": 0.2}' \\\n": ""},
    ),
    "a key of a flag's JSON": (
        "vllm serve Qwen/Qwen-Image --omni --cache-backend cache_dit --cache-config '{\"taylorseer_order\": 2}'\n",
        {'order": 2': 'order": 1'},
    ),
    "one of two kinds of offload": (
        "vllm serve Qwen/Qwen-Image --omni --enable-cpu-offload --enable-layerwise-offload\n",
        {" --enable-cpu-offload": ""},
    ),
    "a misspelt flag": (
        "vllm serve Qwen/Qwen-Image --omni --cfg-parallel-szie 2\n",
        {"--cfg-parallel-szie": "--cfg-parallel-size"},
    ),
    "a flag that is not there": (
        "sglang serve --model-path Qwen/Qwen-Image --warmup --vae-tiling\n",
        {" --warmup": ""},
    ),
    "compose: a folded command": (
        "services:\n  image:\n    image: vllm/vllm-omni:v0.30.0\n    command: >\n      --model Qwen/Qwen-Image\n"
        "      --cfg-parallel-size 4\n    ports: ['8000:8000']  # ours\n",
        {"size 4": "size 2"},
    ),
    "compose: a new flag of a folded command": (
        "services:\n  image:\n    command: >\n      sglang serve\n      --model-path Qwen/Qwen-Image\n"
        "      --ulysses-degree 2\n    ports: []\n",
        {"degree 2\n": "degree 2\n      --num-gpus 2\n"},
    ),
    "compose: a command in quotes": (
        'services:\n  a: {command: "sglang serve --model-path Qwen/Qwen-Image --enable-teacache"}\n',
        {" --enable-teacache": ""},
    ),
    "compose: a list on a line": (
        "services:\n  a:\n    command: [sglang, serve, --model-path, Qwen/Qwen-Image, --ulysses-degree, '2']\n",
        {"'2']": "'2', --num-gpus, \"2\"]"},
    ),
    "compose: a switch in a list": (
        'services:\n  a:\n    command: ["sglang", "serve", "--enable-teacache", "--model-path", "Qwen/Qwen-Image"]\n',
        {'"--enable-teacache", ': ""},
    ),
    "Kubernetes: the last switch of a list": (
        "spec:\n  containers:\n    - command: [sglang, serve]\n      args:\n        - --model-path\n"
        "        - Qwen/Qwen-Image\n        - --enable-teacache\n      env: []  # none\n",
        {"        - --enable-teacache\n": ""},
    ),
    "Kubernetes: a new flag of a list": (
        'spec:\n  containers:\n    - command: [sglang, serve]\n      args:\n        - "--model-path"\n'
        '        - "Qwen/Qwen-Image"\n        - "--ulysses-degree"\n        - "2"  # two\n      env: []\n',
        {"# two\n": '# two\n        - "--num-gpus"\n        - "2"\n'},
    ),
    "Kubernetes: a script of a shell": (
        "spec:\n  containers:\n    - command: [/bin/bash, -lc]\n      args:\n        - |\n          echo start\n"
        "          exec vllm serve Qwen/Qwen-Image --omni \\\n            --cfg-parallel-size 4\n",
        {"size 4": "size 2"},
    ),
    "a script in quotes": (
        'services:\n  a:\n    command: ["bash", "-lc", "cd /srv && sglang serve --model-path Qwen/Qwen-Image '
        '--num-gpus 4 --ulysses-degree 3"]\n',
        {"degree 3": "degree 4"},
    ),
    "Dockerfile: JSON": (
        'FROM vllm/vllm-omni:v0.30.0\nENTRYPOINT ["vllm", "serve"]\nCMD ["Qwen/Qwen-Image", "--omni", \\\n'
        '     "--cfg-parallel-size", "4"]\n',
        {'"4"': '"2"'},
    ),
    "Dockerfile: a new flag of JSON": (
        'FROM x\nCMD ["sglang", "serve", \\\n     "--model-path", "Qwen/Qwen-Image", \\\n'
        '     "--ulysses-degree", "2"]\n',
        {'"2"]': '"2", \\\n     "--num-gpus", "2"]'},
    ),
    "Dockerfile: a shell, with a comment inside": (
        "FROM x\nRUN true && \\\n    sglang serve --model-path Qwen/Qwen-Image \\\n      --num-gpus 4 \\\n"
        "      # three\n      --ulysses-degree 3\n",
        {"degree 3": "degree 4"},
    ),
    "stages of vLLM-Omni": (
        "stages:\n  - stage_id: 0\n    stage_type: diffusion\n    model: Qwen/Qwen-Image\n"
        "    parallel_config: {ulysses_degree: 5, tensor_parallel_size: 2}  # ours\n",
        {"degree: 5": "degree: 4"},
    ),
    "flags of vLLM-Omni as keys": (
        "model: Qwen/Qwen-Image\nomni: true\nusp: 5  # ours\nport: 8000\n",
        {"usp: 5": "usp: 4"},
    ),
    "a file of SGLang": (
        "model_path: Qwen/Qwen-Image\nulysses_degree: 2  # two\nenable_teacache: true\n",
        {"teacache: true\n": "teacache: false\nnum_gpus: 2\n"},
    ),
    "a file of TensorRT-LLM": (
        "model: Qwen/Qwen-Image\nattention_config:\n  backend: VANILLA\nparallel_config:\n  cfg_size: 1\n"
        "  ulysses_size: 5  # ours\n",
        {"ulysses_size: 5": "ulysses_size: 6"},
    ),
    "a key that TensorRT-LLM does not have": (
        "model: Qwen/Qwen-Image\nattention_config:\n  backend: VANILLA\nparallel_config:\n  ulyses_size: 2\n"
        "  cfg_size: 1\n",
        {"ulyses_size": "ulysses_size"},
    ),
    "a file of cache-dit": (
        "cache_config:\n  taylorseer_order: 2  # ours\nparallelism_config:\n  ulysses_size: 2\n",
        {"order: 2": "order: 1"},
    ),
    "Python of vLLM-Omni": (
        "from vllm_omni import Omni\nfrom vllm_omni.diffusion.data import DiffusionParallelConfig\n\n"
        'omni = Omni(\n    model="Qwen/Qwen-Image",  # ours\n'
        "    parallel_config=DiffusionParallelConfig(ulysses_degree=5, ring_degree=1),\n"
        "    enable_cpu_offload=True,\n    enable_layerwise_offload=True,\n)\n",
        {"degree=5": "degree=4", "cpu_offload=True": "cpu_offload=False"},
    ),
    "Python: entries of mappings": (
        'from vllm_omni import Omni\nkw = dict(model="Qwen/Qwen-Image", parallel_config={"ulysses_degree": 5})\n'
        "o = Omni(**kw)\n",
        {'degree": 5': 'degree": 4'},
    ),
    "Python: an entry of a mapping goes": (
        "from diffusers import QwenImagePipeline\n"
        'pipe = QwenImagePipeline.from_pretrained("Qwen/Qwen-Image")\n'
        'pipe(**{"prompt": "a cat", "negative_prompt": " ", "true_cfg_scale": 1.0})\n',
        {'"negative_prompt": " ", ': ""},
    ),
    "Python: a name that is assigned once": (
        "from diffusers import ContextParallelConfig, DiffusionPipeline\nN = 5  # ranks\n"
        'pipe = DiffusionPipeline.from_pretrained("Qwen/Qwen-Image")\n'
        "pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=N))\n",
        {"N = 5": "N = 4"},
    ),
    "Python of SGLang, a new argument": (
        "from sglang.multimodal_gen import DiffGenerator\n\ngenerator = DiffGenerator.from_pretrained(\n"
        '    model_path="Qwen/Qwen-Image",\n    ulysses_degree=2,  # two\n)\n',
        {"# two\n": "# two\n    num_gpus=2,\n"},
    ),
    "Python of SGLang, a new argument of a line": (
        "from sglang.multimodal_gen import DiffGenerator\n"
        'g = DiffGenerator.from_pretrained(model_path="Qwen/Qwen-Image", ulysses_degree=2)\n',
        {"degree=2": "degree=2, num_gpus=2"},
    ),
    "Python of xDiT": (
        'from xfuser import xFuserArgs\na = xFuserArgs(model="FLUX.1-dev", ulysses_degree=2, use_cfg_parallel=True)\n',
        {"parallel=True": "parallel=False"},
    ),
    "Python of cache-dit": (
        "import cache_dit\nfrom cache_dit import DBCacheConfig, ParallelismConfig\n"
        'from diffusers import QwenImagePipeline\npipe = QwenImagePipeline.from_pretrained("Qwen/Qwen-Image")\n'
        "cache_dit.enable_cache(\n    pipe,\n    cache_config=DBCacheConfig(Fn_compute_blocks=8),\n"
        "    parallelism_config=ParallelismConfig(tp_size=5),\n)\n",
        {"tp_size=5": "tp_size=6"},
    ),
    "a notebook": (
        json.dumps(
            {
                "cells": [
                    {
                        "cell_type": "code",
                        "source": [
                            "from diffusers import DiffusionPipeline, ContextParallelConfig\n",
                            'pipe = DiffusionPipeline.from_pretrained("Qwen/Qwen-Image")\n',
                            "config = ContextParallelConfig(ulysses_degree=5)\n",
                            "pipe.transformer.enable_parallelism(config=config)",
                        ],
                    }
                ]
            }
        ),
        {"degree=5": "degree=4"},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_what_it_is_about_and_nothing_else(name: str) -> None:
    before, parts = EDITS[name]
    wanted = before
    for old, new in parts.items():
        assert wanted.count(old) == 1
        wanted = wanted.replace(old, new)
    fixed = fix("nb.ipynb" if name == "a notebook" else "file", before, unsafe=True)
    assert fixed.after == wanted, fixed.failed
    left = check_bytes("nb.ipynb" if name == "a notebook" else "file", wanted.encode())
    assert all(document.exit_code == 0 for document in left)
    assert fix("file", wanted, unsafe=True).after == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "from vllm_omni import Omni\nimport argparse\np = argparse.ArgumentParser()\n"
            'p.add_argument("--usp", default=5)\na = p.parse_args()\n'
            'o = Omni(model="Qwen/Qwen-Image", parallel_config={"ulysses_degree": a.usp})\n',
            "ulysses_degree is a.usp, which is no literal",
        ),
        (
            "N=3\nsglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree $N --tp-size $N\n",
            "",
        ),
        (
            "from diffusers import DiffusionPipeline\npipe = DiffusionPipeline.from_pretrained('Qwen/Qwen-Image')\n"
            "pipe.enable_model_cpu_offload()\n"
            "pipe.transformer.enable_group_offload(onload_device='cuda', num_blocks_per_group=1)\n",
            "OMNI3503 has no repair that is known here, so by hand: keep one of the two",
        ),
        (
            "stage_args:\n  - stage_id: 0\n    stage_type: diffusion\n    engine_args:\n      model: Qwen/Qwen-Image\n",
            "OMNI6102 has no repair that is known here",
        ),
        (
            "a: &sizes {ulysses_size: 5}\nmodel: Qwen/Qwen-Image\nattention_config: {backend: FA4}\n"
            "parallel_config: *sizes\n",
            "",
        ),
    ],
)
def test_what_cannot_be_edited_is_refused_with_a_reason_and_the_file_stays(text: str, reason: str) -> None:
    fixed = fix("file", text, unsafe=True)
    assert fixed.after == text
    assert any(reason in failed for failed in fixed.failed), fixed.failed


def test_without_unsafe_only_what_happens_anyway_is_written_down() -> None:
    text = "vllm serve Qwen/Qwen-Image --omni --usp 5 --vae-patch-parallel-size 2\n"
    fixed = fix("run.sh", text)
    assert fixed.after == text.replace("size 2", "size 2 --vae-use-tiling")
    assert [finding.code for finding in fixed.applied] == ["OMNI402"]
    assert check_bytes("run.sh", fixed.after.encode())[0].exit_code == 1


def test_the_command_writes_in_place_and_says_what_it_refuses(tmp_path: Path) -> None:
    good, bad = tmp_path / "run.sh", tmp_path / "old.yaml"
    good.write_text("vllm serve Qwen/Qwen-Image --omni --usp 5\n")
    bad.write_text("stage_args: [{stage_id: 0, stage_type: diffusion, model: Qwen/Qwen-Image}]\n")
    shown = runner.invoke(app(), ["fix", "--unsafe", "--diff", str(good)])
    assert shown.exit_code == 0
    assert "+vllm serve Qwen/Qwen-Image --omni --usp 4" in shown.stdout
    assert good.read_text().endswith("--usp 5\n")
    assert runner.invoke(app(), ["fix", "--unsafe", str(good)]).exit_code == 0
    assert good.read_text().endswith("--usp 4\n")
    refused = runner.invoke(app(), ["fix", "--unsafe", str(bad)])
    assert refused.exit_code == 1
    assert "OMNI6102" in refused.output


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree 3 --enable-teacache\n",
            ["- --enable-teacache", "- --ulysses-degree 3", "+ --ulysses-degree 4"],
        ),
        ("vllm serve Qwen/Qwen-Image --omni --usp 5\n", ["- --usp 5", "+ --usp 4"]),
        ("xdit --model FLUX.1-dev --ulysses_degree 2 --use_cfg_parallel --prompt hi\n", ["- --use_cfg_parallel"]),
        (
            "model: Qwen/Qwen-Image\nparallel_config: {ulysses_size: 5}\n",
            ["- parallel_config.ulysses_size: 5", "+ parallel_config.ulysses_size: 6"],
        ),
        (
            'from vllm_omni import Omni\nOmni(model="Qwen/Qwen-Image", parallel_config={"ulysses_degree": 5})\n',
            ["- ulysses_degree=5", "+ ulysses_degree=4"],
        ),
    ],
)
def test_the_nearest_configuration_speaks_the_words_of_the_file(text: str, lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    shown = runner.invoke(app(), ["check", str(path)]).stdout
    first = shown.partition("  1. ")[2].partition("\n  2. ")[0].partition("\n\n")[0]
    assert [line.strip() for line in first.splitlines()] == lines
    assert "parallel." not in shown
    assert "hardware." not in shown
    result = json.loads(runner.invoke(app(), ["check", "--json", str(path)]).stdout)
    assert result["nearest"][0]["edits"][0] == lines
    assert all("." in name for name in result["nearest"][0]["changes"][0])


@pytest.mark.parametrize(
    ("text", "code", "message", "step"),
    [
        (
            "sglang serve --model-path Qwen/Qwen-Image --ulysses-degree 2\n",
            "OMNI135",
            "--num-gpus is 1",
            "--num-gpus to 2",
        ),
        (
            "xdit --model FLUX.1-dev --use_cfg_parallel\n",
            "OMNI107",
            "--use_cfg_parallel needs guidance",
            "remove --use_cfg_parallel",
        ),
        (
            "sglang generate --model-path Qwen/Qwen-Image --num-gpus 2 --cfg-parallel-size 2 --true-cfg-scale 1 "
            "--prompt cat\n",
            "OMNI107",
            "--cfg-parallel-size 2 needs guidance, and --true-cfg-scale 1.0 switches it off",
            "set --cfg-parallel-size to 1, or --true-cfg-scale above 1.0 (changes the image)",
        ),
        (
            "vllm serve Qwen/Qwen-Image --omni --vae-patch-parallel-size 2 --usp 2\n",
            "OMNI402",
            "--vae-patch-parallel-size 2 needs tiles",
            "add --vae-use-tiling",
        ),
        (
            "model: Qwen/Qwen-Image\nparallel_config: {ulysses_size: 5}\n",
            "OMNI103",
            "",
            "set parallel_config.ulysses_size to 1, 2, 3, 4, 6, 8, 12 or 24, and use parallel_config.ring_size",
        ),
        (
            'from xfuser import xFuserArgs\nxFuserArgs(model="FLUX.1-dev", use_cfg_parallel=True)\n',
            "OMNI107",
            "use_cfg_parallel needs guidance",
            "set use_cfg_parallel to False",
        ),
    ],
)
def test_findings_speak_the_words_of_the_file(text: str, code: str, message: str, step: str) -> None:
    (checked,) = check_bytes("file", text.encode())
    finding = next(finding for finding in checked.findings if finding.code == code)
    assert message in finding.message
    assert step in finding.next_step
    (ours,) = check_bytes("c.yaml", b"version: 1\nmodel: tiny\nhardware: {gpus: 4}\n")
    assert "hardware.gpus is 4" in ours.findings[0].message


def fixed_settings(text: str) -> dict[str, Any]:
    (checked,) = check_bytes("c.yaml", fix("c.yaml", text, unsafe=True).after.encode())
    assert checked.exit_code == 0
    assert checked.resolution is not None
    return checked.resolution.settings


@pytest.mark.parametrize("sampling", ["{prompt: a cat}", "{prompt: a cat, negative_prompt: blurry, cfg_scale: 1.0}"])
def test_no_repair_invents_what_the_image_shows(sampling: str) -> None:
    text = f"version: 1\nmodel: Qwen/Qwen-Image\nparallel: {{cfg_parallel_size: 2}}\nsampling: {sampling}\n"
    settings = fixed_settings(text)
    assert settings["cfg_parallel_size"] == 1
    assert (settings["negative_prompt"], settings["cfg_scale"]) in ((None, None), (None, 1.0), (None, 4.0))
    result = runner.invoke(app(), ["check", "-"], input=text).stdout
    assert "+ parallel: {cfg_parallel_size: 1}" in result
    assert "changes the image)" not in result.partition("Nearest")[2]


def test_a_repair_that_must_change_the_image_says_so() -> None:
    text = "version: 1\nmodel: tiny\nsampling: {prompt: a cat, width: 100}\n"
    result = runner.invoke(app(), ["check", "-"], input=text).stdout
    assert "width: 104} (changes the image)" in result
    command = "xdit --model Z-Image --prompt x --height 1024 --width 1000\n"
    result = runner.invoke(app(), ["check", "-"], input=command).stdout
    assert "+ --width 1008 (changes the image)" in result


def test_sarif_has_the_edit_and_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text("sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --ulysses-degree 3\n")
    log = json.loads(runner.invoke(app(), ["check", "--output-format", "sarif", str(path)]).stdout)
    (fixed,) = log["runs"][0]["results"][0]["fixes"]
    assert fixed["description"]["text"] == "- --num-gpus 4, + --num-gpus 3"
    assert fixed["properties"] == {"settings": {"hardware.gpus": 3}}
    (replacement,) = fixed["artifactChanges"][0]["replacements"]
    assert replacement["insertedContent"] == {"text": "3"}
    assert replacement["deletedRegion"] == {"startLine": 1, "startColumn": 54, "endLine": 1, "endColumn": 55}


def test_a_number_before_a_redirection_is_a_word() -> None:
    (checked,) = check_bytes("run.sh", b"vllm serve Qwen/Qwen-Image --omni --usp 5 > log 2>&1\n")
    assert checked.exit_code == 1


def test_a_key_is_righted_though_its_value_is_still_none_that_fits() -> None:
    text = (
        "stage_args:\n  - stage_id: 0\n    stage_type: diffusion\n    engine_args:\n      model: Qwen/Qwen-Image\n"
        "      paralleéonfig:\n        ulysses_degree: 4--\n"
    )
    assert "parallel_config:\n" in fix("stages.yaml", text, unsafe=True).after
