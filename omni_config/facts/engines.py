"""The engines whose wheels are read: where their code for diffusion lies, and where their settings are declared."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """What of a wheel counts. ``files`` says where guards, flags and variables are read; ``settings`` and
    ``requests`` which classes (as ``path:class``) hold the settings of a deployment and of one request.
    """

    name: str
    folder: str
    distribution: str
    roots: tuple[str, ...]
    without: str
    guards: str
    settings: str
    requests: str
    fields: str

    def holds_settings(self, path: str, name: str) -> bool:
        """Whether this class of this file holds settings."""
        return re.search(self.settings, f"{path}:{name}") is not None

    def holds_requests(self, path: str, name: str) -> bool:
        """Whether this class of this file holds the parameters of one request."""
        return re.search(self.requests, f"{path}:{name}") is not None

    def has_fields(self, path: str, name: str) -> bool:
        """Whether the fields of this class of this file are facts."""
        return (
            self.holds_settings(path, name)
            or self.holds_requests(path, name)
            or (re.search(self.fields, f"{path}:{name}") is not None)
        )

    def is_guarded(self, path: str) -> bool:
        """Whether guards of this file count."""
        return re.search(self.guards, path) is not None


#: Files where settings are declared and validated: there the parameters of functions are settings too.
DECLARES = re.compile(
    r"/(data|config|args|server_args|omni_config|stage_config|config_factory|arg_utils|parallel_state|cache_interface|"
    r"cache_dit_integration|sampling_params|disagg)\.py$"
)
_TESTS = r"(^|/)(tests?|testing|benchmarks?|examples?|csrc|docs|kernels)/|/test_[^/]*\.py$"

ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            name="vllm-omni",
            folder="vllm_omni",
            distribution="vllm-omni",
            roots=("vllm_omni/",),
            without=rf"{_TESTS}|^vllm_omni/(model_executor|experimental|clients|tokenizers|reasoning)/|"
            r"^vllm_omni/engine/duplex|/(tts_adapters|realtime|speech|duplex)[^/]*/|"
            r"/[^/]*(speech|tts|duplex|realtime|audio_api)[^/]*\.py$",
            guards=r"^vllm_omni/(diffusion|config|engine|entrypoints(?!/cli/benchmark)|quantization(?!/tools)|"
            r"host_weight_runtime|platforms|inputs|lora|utils|attention)/|^vllm_omni/[^/]*\.py$",
            settings=r"^vllm_omni/diffusion/data\.py:(?!Transformer|Video)\w*(Config|Spec)$|"
            r"^vllm_omni/config/(omni_config|stage_config)\.py:(?!Duplex)\w*Config(Projection)?$|"
            r"^vllm_omni/engine/arg_utils\.py:\w+Args$|^vllm_omni/diffusion/(cache|offloader)/.*Config$|"
            r"^vllm_omni/diffusion/distributed/hsdp\.py:\w+Config$|^vllm_omni/quantization/.*:\w+Config$|"
            r"^vllm_omni/host_weight_runtime/.*:\w+Config$",
            requests=r"^vllm_omni/inputs/data\.py:OmniDiffusionSamplingParams$",
            fields=r"^vllm_omni/diffusion/(distributed/sp_plan|model_metadata)\.py:\w+(Config|Metadata)$",
        ),
        Engine(
            name="sglang",
            folder="sglang",
            distribution="sglang",
            roots=("sglang/multimodal_gen/", "sglang/cli/"),
            without=rf"{_TESTS}|^sglang/multimodal_gen/(third_party|apps|tools)/|/killall\.py$",
            guards=r"^sglang/multimodal_gen/(runtime|configs)/|^sglang/multimodal_gen/[^/]*\.py$",
            settings=r"runtime/server_args.*:\w*ServerArgs\w*$|configs/pipeline_configs/base\.py:PipelineConfig$|"
            r"configs/quantization/.*:\w+QuantArgs$|runtime/cache/.*:CacheDitConfig$",
            requests=r"configs/sample/(sampling_params|teacache)\.py:\w+Params$",
            fields=r"configs/sample/.*:\w*(Params?|PConfig)$|configs/pipeline_configs/.*Config$|configs/models/dits/.*ArchConfig$|"
            r"configs/models/(encoders|vaes)/base\.py:\w+Config$",
        ),
        Engine(
            name="xdit",
            folder="xdit",
            distribution="xfuser",
            roots=("xfuser/",),
            without=_TESTS,
            guards=r"^xfuser/",
            settings=r"^xfuser/config/.*:\w+(Args|Config|Spec)$|"
            r"runner_models/base_model\.py:(ModelCapabilities|ModelSettings)$|cache/.*:\w*(Config|Preset|Settings)$",
            requests=r"^xfuser/config/.*:InputConfig$",
            fields=r"runner_models/base_model\.py:DefaultInputValues$",
        ),
        Engine(
            name="cache-dit",
            folder="cache_dit",
            distribution="cache-dit",
            roots=("cache_dit/",),
            without=_TESTS,
            guards=r"^cache_dit/(?!metrics/)",
            settings=r"^cache_dit/.*:(?!_)\w*Config$",
            requests=r"ExampleInputData$",
            fields=r"block_adapters\.py:BlockAdapter$",
        ),
        Engine(
            name="diffusers",
            folder="diffusers",
            distribution="diffusers",
            roots=("diffusers/",),
            without=rf"{_TESTS}|/dummy_[^/]*\.py$|^diffusers/commands/",
            guards=r"^diffusers/(hooks|quantizers)/|^diffusers/loaders/(lora|peft)\w*\.py$|"
            r"^diffusers/models/(_modeling_parallel|attention_dispatch|cache_utils|modeling_utils|attention|"
            r"model_loading_utils|autoencoders/vae)\.py$|"
            r"^diffusers/pipelines/(pipeline_utils|pipeline_loading_utils)\.py$",
            settings=r"^diffusers/(hooks|quantizers)/.*:(?!_)\w*Config(Mixin)?$|_modeling_parallel\.py:\w+Config$",
            requests=r"^$",
            fields=r"^$",
        ),
    )
}
