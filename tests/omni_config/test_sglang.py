"""How SGLang is read: public reports on which a check was once wrong, its registry, its mesh, its flags."""

from __future__ import annotations

import pytest

from omni_config.checking.files import check_bytes
from omni_config.engines.facts import Facts, facts_of
from omni_config.engines.sglang.registry import is_registered, native_pipeline

ENGINE = "sglang==0.5.23"
SHELL = """docker run lmsysorg/sglang:dev bash -lc 'pip install -e . && exec sglang serve "$@"' -- \\
  --model-path /mnt/models/MiniMax-H3 --num-gpus 2 --tp-size 2 --ulysses-degree 1 \\
  --dit-layerwise-resident-layers 20{word} --model-variant fl2va
"""
MANIFEST = """kind: DynamoGraphDeployment
spec:
  containers:
  - image: registry/sglang-runtime:tag
    command: [python3, -m, dynamo.sglang]
    args: [--model-path, black-forest-labs/FLUX.1-schnell, --image-diffusion-worker, --trust-remote-code]
"""


@pytest.fixture(scope="module")
def facts() -> Facts:
    found = facts_of(ENGINE)
    assert found is not None
    return found


def errors(text: str) -> list[str]:
    checked = check_bytes("file", text.encode(), assume={"engine": ENGINE})
    return [finding.code for one in checked for finding in one.findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("SGLANG_CACHE_DIT_ENABLED=true sglang generate --model-path Wan-AI/Wan2.2-T2V-A14B-Diffusers --num-gpus 4 "
         "--sp-degree 4 --prompt cat\n", []),
        ("sglang generate --model-path Tongyi-MAI/Z-Image-Turbo --prompt cat --tp-size 2\n", ["OMNI135"]),
        ("sglang generate --model-path Qwen/Qwen-Image-Edit-2511 --prompt cat --image-path a.png --num-gpus 8 "
         "--tp-size 4 --enable-cfg-parallel --vae-cpu-offload True\n", []),
        ("sglang serve --model-path Tongyi-MAI/Z-Image-Turbo --num-gpus 4 --tp-size 2\n", []),
        ("sglang serve --model-path nvidia/Cosmos3-Nano\n", []),
        (SHELL.format(word=""), []),
        (SHELL.format(word=" false"), ["OMNI611"]),
        (MANIFEST, []),
        ("sglang serve --model-path someone/else --num-gpus 2 --ulysses-degree 2 --backend sglang\n", []),
        ("sglang serve --model-path stabilityai/stable-diffusion-xl-base-1.0 --backend sglang\n", ["OMNI614"]),
        ("sglang serve --model-path stabilityai/stable-diffusion-xl-base-1.0 --num-gpus 1\n", []),
        ("sglang serve --model-path Qwen/Qwen-Image --kv-gather-degree 2\n", ["OMNI135"]),
        ("sglang serve --model-path Qwen/Qwen-Image --num-gpus 2 --kv-gather-degree 2\n", ["OMNI135"]),
        ("sglang serve --model-path Qwen/Qwen-Image --num-gpus 2 --kv-gather-degree 2 --cfg-parallel-size 1\n", []),
        ("sglang serve --model-path Qwen/Qwen-Image --component-precisions.text_encoder fp8\n", ["OMNI612"]),
        ("sglang serve --model-path Qwen/Qwen-Image --component-precisions.text_encoder fp16\n", []),
        ("model_path: Qwen/Qwen-Image\nnum_gpus: 1\nsp_size: 1\n", ["OMNI608"]),
        ("sglang serve --model-path Qwen/Qwen-Image --backend diffusers --num-gpus 2 --tp-size 2\n", ["OMNI643"]),
        ("sglang serve --model-path Qwen/Qwen-Image --backend diffusers\n", []),
    ],
)  # fmt: skip
def test_reports_and_rules_of_its_source(text: str, codes: list[str]) -> None:
    assert errors(text) == codes


@pytest.mark.parametrize(
    ("model", "named", "pipeline"),
    [
        ("MiniMaxAI/MiniMax-H3", "", "MiniMaxH3Pipeline"),
        ("/models/minimax-h3", "", "MiniMaxH3Pipeline"),
        ("/hub/models--tencent--Hy-Nomas/snapshots/12", "", "NomasPipeline"),
        ("sensenova/SenseNova-U1.5-8B-MoT", "", "SenseNovaU1Pipeline"),
        ("OpenMOSS-Team/MOVA-360p", "", "MOVAPipeline"),
        ("black-forest-labs/FLUX.1-schnell", "FluxPipeline", "FluxPipeline"),
        ("black-forest-labs/FLUX.1-Kontext-dev", "FluxKontextPipeline", ""),
        ("someone/fine-tune", "QwenImagePipeline", ""),
        ("someone/fine-tune", "WanPipeline", "WanPipeline"),
        ("someone/Qwen-Image-4bit", "QwenImagePipeline", ""),
        ("someone/fine-tune", "", None),
    ],
)
def test_the_registry_says_which_pipeline_runs(facts: Facts, model: str, named: str, pipeline: str | None) -> None:
    assert native_pipeline(model, named, facts) == pipeline


def test_a_language_model_is_not_registered(facts: Facts) -> None:
    assert not is_registered("meta-llama/Llama-3.1-8B-Instruct", facts)
    assert is_registered("tencent/Hy-Nomas", facts)


def test_attention_backends_of_components_are_one_text() -> None:
    text = "sglang serve --model-path Qwen/Qwen-Image --num-gpus 2 --ring-degree 2 "
    assert errors(
        text + "--component-attention-backends.vae fa --component-attention-backends.transformer=torch_sdpa\n"
    )
    assert not errors(text + "--component-attention-backends.transformer fa\n")


@pytest.mark.parametrize(
    ("flags", "code"),
    [("--num-gpus 4 --cfg-parallel-size 4", "OMNI148"), ("--backend diffusers --num-gpus 2", "OMNI643")],
)
def test_gpus_that_repeat_the_work_are_a_warning(flags: str, code: str) -> None:
    (checked,) = check_bytes("run.sh", f"sglang serve --model-path Qwen/Qwen-Image {flags}\n".encode())
    assert [finding.code for finding in checked.findings if finding.severity == "warning"] == [code]
    assert checked.exit_code == 0
