"""Findings that were once given where the engine runs the command: each is gone, and the real fault still found."""

from __future__ import annotations

from textwrap import dedent

import pytest

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check_bytes
from omni_config.schema.settings import FIELDS


def read(text: str) -> CheckResult:
    (checked,) = check_bytes("file", dedent(text).encode())
    return checked


def codes(text: str) -> set[str]:
    return {finding.code for finding in read(text).findings if finding.severity != "advice"}


@pytest.mark.parametrize(
    ("code", "right", "wrong"),
    [
        pytest.param(
            "OMNI508",
            "sglang generate --model-path black-forest-labs/FLUX.2-dev --prompt x --image-path a.png",
            "sglang generate --model-path Qwen/Qwen-Image --prompt x --image-path a.png",
            id="an image that the pipeline takes and does not need",
        ),
        pytest.param(
            "OMNI507",
            "sglang generate --model-path black-forest-labs/FLUX.1-Kontext-dev --prompt x",
            "sglang generate --model-path Wan-AI/Wan2.1-I2V-14B-480P-Diffusers --prompt x",
            id="an image that may be left out",
        ),
        pytest.param(
            "OMNI135",
            "torchrun --nnodes=2 --nproc-per-node=8 -m xfuser.runner --model FLUX.1-dev --ulysses_degree 16",
            "torchrun --nnodes=2 --nproc-per-node=4 -m xfuser.runner --model FLUX.1-dev --ulysses_degree 16",
            id="processes of several nodes",
        ),
        pytest.param(
            "OMNI612",
            "sglang generate --model-path Qwen/Qwen-Image-Edit-2511 --prompt x --image-path a.png b.png",
            "sglang generate --model-path Qwen/Qwen-Image-Edit-2511 --prompt x --image-path a.png --seed 1 b.png",
            id="a flag that takes several words",
        ),
        pytest.param(
            "OMNI612",
            "vllm serve Qwen/Qwen-Image --omni --lora-path <path-to-lora> --ulysses-degree 2",
            "vllm serve Qwen/Qwen-Image --omni --ulysses-degree two",
            id="a placeholder of the documentation",
        ),
        pytest.param(
            "OMNI612",
            """
            import torch
            from vllm_omni.entrypoints.omni import Omni
            omni = Omni(model="Qwen/Qwen-Image", dtype=torch.float16)
            """,
            """
            from vllm_omni.entrypoints.omni import Omni
            omni = Omni(model="Qwen/Qwen-Image", dtype="float17")
            """,
            id="a type of torch",
        ),
        pytest.param(
            "OMNI2501",
            """
            from diffusers import CogVideoXPipeline, FasterCacheConfig
            pipe = CogVideoXPipeline.from_pretrained("THUDM/CogVideoX-5b")
            config = FasterCacheConfig(spatial_attention_block_skip_range=2, tensor_format="BFCHW")
            config.current_timestep_callback = lambda: pipe.current_timestep
            pipe.transformer.enable_cache(config)
            """,
            """
            from diffusers import CogVideoXPipeline, FasterCacheConfig
            pipe = CogVideoXPipeline.from_pretrained("THUDM/CogVideoX-5b")
            config = FasterCacheConfig(spatial_attention_block_skip_range=2, tensor_format="BFCHW")
            pipe.transformer.enable_cache(config)
            """,
            id="an attribute that is set later",
        ),
        pytest.param(
            "OMNI2501",
            "from diffusers import FasterCacheConfig\nFasterCacheConfig(spatial_attention_block_skip_range=2)\n",
            "from diffusers import FasterCacheConfig\nFasterCacheConfig(tensor_format='BSC')\n",
            id="a configuration that is only made",
        ),
        pytest.param(
            "OMNI202",
            """
            import cache_dit
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
            cache_dit.enable_cache(pipe, quantize_config=cache_dit.QuantizeConfig(quant_type="float8_per_row"))
            """,
            None,
            id="quantization without a cache",
        ),
        pytest.param(
            "OMNI503",
            "torchrun --nproc_per_node=2 flux_example.py --model /models/FLUX.1-dev --pipefusion_parallel_degree 2",
            None,
            id="a script of its own is not judged by what the runner can do",
        ),
    ],
)
def test_only_the_real_fault_is_found(code: str, right: str, wrong: str | None) -> None:
    assert read(right).foreign
    assert code not in codes(right)
    assert wrong is None or code in codes(wrong)


def test_flags_after_a_missing_backslash_and_after_a_comment_are_named() -> None:
    whole = "vllm serve Qwen/Qwen-Image --omni \\\n  --ulysses-degree 2 \\\n  --port 8000\n"
    assert "OMNI609" not in codes(whole)
    assert "OMNI609" in codes(whole.replace("2 \\", "2"))
    assert "OMNI609" in codes(whole.replace("  --port", "  # the port\n  --port"))


@pytest.mark.parametrize("model", ["/models/FLUX.1-dev/", "$HOME/FLUX.1-dev", "black-forest-labs/FLUX.1-dev"])
def test_guidance_is_judged_for_a_model_by_the_end_of_its_path(model: str) -> None:
    checked = read(f"sglang generate --model-path {model} --prompt x --guidance-scale 3.5\n")
    assert checked.node is not None
    assert checked.node.find(FIELDS["guidance_scale"]) is not None
    assert not any(finding.code == "OMNI605" for finding in checked.findings)


def test_what_another_package_does_to_a_pipeline_is_named() -> None:
    checked = read(
        """
        from diffusers import FluxPipeline
        from para_attn.first_block_cache.diffusers_adapters import apply_cache_on_pipe
        pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
        apply_cache_on_pipe(pipe)
        pipe(["a cat"], num_inference_steps=4)
        """
    )
    assert [finding.message for finding in checked.findings if finding.code == "OMNI605"] == [
        "not judged: apply_cache_on_pipe of para_attn"
    ]


def test_degrees_of_a_role_are_those_of_its_worker() -> None:
    command = "sglang serve --model-path Wan-AI/Wan2.1-T2V-14B-Diffusers --num-gpus 4 --denoiser-ulysses 2"
    worker = " --disagg-role denoiser --disagg-server-addr tcp://10.0.0.4:19655 --denoiser-ring 2\n"
    for text, degrees in ((command + worker, (2, 2, None)), (command + "\n", (None, None, 2))):
        node = read(text).node
        assert node is not None
        found = [node.find(FIELDS[name]) for name in ("ulysses_degree", "ring_degree", "cfg_parallel_size")]
        assert tuple(each and each.value for each in found) == degrees
