"""What a model's card makes of a config: coefficients and their origin, two transformers, frames, tiles, guidance."""

from __future__ import annotations

import pytest

from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes

OWN = "coefficients: [1.0, 2.0, 3.0, 4.0, 5.0]"


def found(model: str, rest: str, engine: str = "vllm-omni") -> dict[str, str]:
    """The findings of a config by code."""
    (checked,) = check_bytes("a.yaml", f"version: 1\nmodel: {model}\nengine: {engine}\n{rest}\n".encode())
    return {finding.code: finding.message for finding in checked.findings}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("black-forest-labs/FLUX.2-klein-base-4B", "those of Qwen/Qwen-Image (vLLM-Omni)"),
        ("Tongyi-MAI/Z-Image", "those of Tongyi-MAI/Z-Image-Turbo (vLLM-Omni)"),
        ("stabilityai/stable-audio-open-1.0", "published, without a word of how they were found (vLLM-Omni)"),
    ],
)
def test_coefficients_of_another_model_are_said_to_be_so(model: str, said: str) -> None:
    assert said in found(model, "cache: {tea_cache: {rel_l1_thresh: 0.3}}")["OMNI217"]
    assert "OMNI217" not in found(model, f"cache: {{tea_cache: {{rel_l1_thresh: 0.3, {OWN}}}}}")


@pytest.mark.parametrize("model", ["Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit", "tencent/HunyuanImage-3.0"])
def test_coefficients_of_the_model_or_its_family_are_not(model: str) -> None:
    assert not {"OMNI217", "OMNI218"} & found(model, "cache: {tea_cache: {rel_l1_thresh: 0.2}}").keys()


@pytest.mark.parametrize(("threshold", "outside"), [(0.1, True), (0.17, False), (0.9, False), (1.2, True)])
def test_a_threshold_is_held_against_what_the_fit_can_give(threshold: float, outside: bool) -> None:
    config = f"cache: {{tea_cache: {{rel_l1_thresh: {threshold}}}}}"
    said = found("Tongyi-MAI/Z-Image-Turbo", config)
    assert ("OMNI218" in said) == outside
    assert not outside or "0.162 to 1.191" in said["OMNI218"]
    assert "OMNI218" not in found("Tongyi-MAI/Z-Image-Turbo", config.replace("}}", f", {OWN}}}}}"))


def test_old_coefficients_are_those_of_the_versions_that_have_them() -> None:
    config = "cache: {tea_cache: {rel_l1_thresh: 0.3}}"
    said = {version: found("Tongyi-MAI/Z-Image", config, f"vllm-omni=={version}") for version in ("0.30", "0.32.0rc1")}
    assert ("OMNI222" in said["0.30"], "OMNI222" in said["0.32.0rc1"]) == (True, False)


@pytest.mark.parametrize(("steps", "few"), [(8, True), (10, True), (25, False)])
def test_a_cache_of_few_steps_is_pointless(steps: int, few: bool) -> None:
    config = f"cache: {{tea_cache: {{rel_l1_thresh: 0.3}}}}\nsampling: {{num_inference_steps: {steps}}}"
    assert ("OMNI219" in found("Qwen/Qwen-Image", config)) == few


def test_a_distilled_model_has_fewer_steps_than_the_warm_up() -> None:
    assert "OMNI202" in found("black-forest-labs/FLUX.2-klein-4B", "cache: {cache_dit: true}")


@pytest.mark.parametrize(("steps", "pointless"), [(12, True), (16, True), (17, False)])
def test_each_of_two_transformers_warms_up(steps: int, pointless: bool) -> None:
    config = f"cache: {{cache_dit: {{max_warmup_steps: 8}}}}\nsampling: {{num_inference_steps: {steps}}}"
    assert ("OMNI220" in found("Wan-AI/Wan2.2-T2V-A14B-Diffusers", config)) == pointless
    assert "OMNI220" not in found("Wan-AI/Wan2.1-T2V-14B-Diffusers", config)


def test_the_second_cache_has_numbers_of_its_own() -> None:
    config = "cache: {cache_dit: {max_cached_steps: 8}}"
    assert "OMNI221" in found("Wan-AI/Wan2.2-T2V-A14B-Diffusers", config)
    assert "OMNI221" not in found("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "cache: {cache_dit: true}")
    assert "OMNI221" not in found("Wan-AI/Wan2.1-T2V-14B-Diffusers", config)


@pytest.mark.parametrize(
    ("model", "frames", "made"),
    [
        ("Wan-AI/Wan2.2-I2V-A14B-Diffusers", 80, 77),
        ("Lightricks/LTX-2", 120, 113),
        ("genmo/mochi-1-preview", 84, 79),
        ("hunyuanvideo-community/HunyuanVideo", 129, None),
        ("MiniMaxAI/MiniMax-H3", 124, None),  # its clips overlap
    ],
)
def test_frames_that_a_pipeline_rounds(model: str, frames: int, made: int | None) -> None:
    said = found(model, f"sampling: {{num_frames: {frames}}}").get("OMNI522")
    assert said is None if made is None else f"such as {made}" in said


def test_no_default_of_a_card_is_found_fault_with() -> None:
    for model in catalog().model_ids:
        assert not {"OMNI517", "OMNI522"} & found(model, "").keys(), model


def test_tiles_that_are_there_in_any_case() -> None:
    assert "OMNI407" in found("MiniMaxAI/MiniMax-H3", "vae: {vae_use_tiling: true}")
    assert "OMNI407" not in found("Qwen/Qwen-Image", "vae: {vae_use_tiling: true}")
    large = "memory: {enable_cpu_offload: true}\nsampling: {width: 1536, height: 1536}"
    assert "OMNI304" in found("Qwen/Qwen-Image", large)
    assert "OMNI304" not in found("MiniMaxAI/MiniMax-H3", large)


def test_guidance_of_a_model_without() -> None:
    assert "OMNI517" in found("black-forest-labs/FLUX.2-klein-4B", "sampling: {cfg_scale: 4.0}")
    assert "OMNI517" not in found("black-forest-labs/FLUX.2-klein-4B", "sampling: {cfg_scale: 1.0}")
    assert "OMNI517" not in found("Wan-AI/Wan2.1-T2V-14B-Diffusers", "sampling: {cfg_scale: 4.0}")
