"""Facts compiled from wheels: small ones that the tests write, and at night a real one."""

from __future__ import annotations

import json
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.engines.facts import facts_of
from omni_config.facts import shelf
from omni_config.facts.document import compile_facts, short_version, to_json
from omni_config.facts.engines import ENGINES
from omni_config.facts.wheel import WheelError

DATA = "vllm_omni/diffusion/data.py"
PARALLEL = """
from dataclasses import dataclass, field
from typing import Literal

@dataclass
class DiffusionParallelConfig:
    ulysses_degree: int = 1
    ring_degree: int = 1
    vae_parallel_mode: Literal["tile", "batch"] = "tile"
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.ring_degree > 1:
            if self.ulysses_degree > 1:
                raise ValueError("no ring with ulysses")
"""


def wheel(folder: Path, files: dict[str, str | bytes], name: str = "vllm-omni", version: str = "0.30.0") -> Path:
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, textwrap.dedent(content) if isinstance(content, str) else content)
        archive.writestr(
            f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    return path


def facts(folder: Path, files: dict[str, str | bytes], engine: str = "vllm-omni", version: str = "0.30.0", others=()):
    one = ENGINES[engine]
    return compile_facts(one, wheel(folder, files, one.distribution, version), version, others)


def ids(folder: Path, source: str, path: str = "vllm_omni/diffusion/worker/runner.py") -> list[str]:
    return sorted(facts(folder, {DATA: PARALLEL, path: source})["guards"])


def lone(folder: Path, body: str) -> list[str]:
    found = ids(folder, f"def start(config):\n{textwrap.indent(textwrap.dedent(body), '    ')}")
    return [guard for guard in found if "runner.py" in guard]


class TestDocument:
    def test_it_carries_the_version_and_the_hash_of_the_wheel(self, tmp_path):
        found = facts(tmp_path, {DATA: PARALLEL})
        assert (found["name"], found["version"], len(found["sha256"])) == ("vllm-omni", "0.30", 64)

    def test_one_line_an_entry_sorted_and_the_same_twice(self, tmp_path):
        text = to_json(facts(tmp_path, {DATA: PARALLEL}))
        assert json.loads(text)["fields"]["DiffusionParallelConfig.ring_degree"]["default"] == 1
        entries = [line for line in text.splitlines() if line.startswith('  "DiffusionParallelConfig.')]
        assert len(entries) == 4
        assert entries == sorted(entries)
        assert text == to_json(facts(tmp_path, {DATA: PARALLEL}))

    def test_no_text_of_the_source_is_kept(self, tmp_path):
        assert "no ring with ulysses" not in to_json(facts(tmp_path, {DATA: PARALLEL}))

    def test_another_package_or_version_is_refused(self, tmp_path):
        path = wheel(tmp_path, {DATA: PARALLEL}, version="0.28.0")
        with pytest.raises(WheelError, match=r"0\.28\.0, not 0\.30"):
            compile_facts(ENGINES["vllm-omni"], path, "0.30")
        with pytest.raises(WheelError, match="not sglang"):
            compile_facts(ENGINES["sglang"], path, "0.28")

    @pytest.mark.parametrize(
        ("given", "short"),
        [("0.30.0", "0.30"), ("0.32.0rc1", "0.32.0rc1"), ("0.5.23", "0.5.23"), ("2.0", "2.0"), ("0.10.0", "0.10")],
    )
    def test_versions_are_written_shortest(self, given, short):
        assert short_version(given) == short


class TestFlags:
    def test_names_aliases_type_choices_nargs_action_default(self, tmp_path):
        source = """
            import argparse
            MODES = ("strict", "advanced")
            class Serve:
                def subparser_init(self, parser):
                    group = parser.add_argument_group("x")
                    group.add_argument("--usp", "--ulysses-degree", dest="ulysses_degree", type=int, default=None)
                    group.add_argument("--ulysses-mode", choices=list(MODES), default=MODES[0])
                    group.add_argument("--lora-path", type=str, nargs="+")
                    group.add_argument("--use-hsdp", action="store_true")
                    group.add_argument("--offload", action=argparse.BooleanOptionalAction, default=True)
        """
        flags = facts(tmp_path, {"vllm_omni/entrypoints/cli/serve.py": source})["flags"]
        (ulysses,) = flags["--ulysses-degree"]
        assert ulysses["aliases"] == ["--usp"]
        assert (ulysses["type"], ulysses["default"], ulysses["parser"]) == ("int", None, "Serve.subparser_init")
        assert ulysses["at"] == "vllm_omni/entrypoints/cli/serve.py:7"
        assert flags["--ulysses-mode"][0]["choices"] == ["strict", "advanced"]
        assert flags["--lora-path"][0]["nargs"] == "+"
        assert flags["--use-hsdp"][0]["action"] == "store_true"
        assert flags["--offload"][0]["action"] == "BooleanOptionalAction"

    def test_a_default_may_be_a_field_of_a_class_and_choices_an_enum(self, tmp_path):
        source = """
            from enum import Enum
            class Backend(str, Enum):
                AUTO = "auto"
                NATIVE = "sglang"
                @classmethod
                def choices(cls):
                    return [one.value for one in cls]
            class ServerArgs:
                num_gpus: int = 1
                backend: str = "auto"
                @staticmethod
                def add_cli_args(parser):
                    parser.add_argument("--num-gpus", type=int, default=ServerArgs.num_gpus)
                    parser.add_argument("--backend", choices=Backend.choices(), default=ServerArgs.backend)
        """
        path = "sglang/multimodal_gen/runtime/server_args/server_args.py"
        flags = facts(tmp_path, {path: source}, "sglang", "0.5.23")["flags"]
        assert flags["--num-gpus"][0]["default"] == 1
        assert flags["--backend"][0]["choices"] == ["auto", "sglang"]

    def test_flags_of_another_package_are_named(self, tmp_path):
        source = """
            from vllm.entrypoints.cli_args import make_arg_parser
            def subparser_init(parser):
                return make_arg_parser(parser)
        """
        found = facts(tmp_path, {"vllm_omni/entrypoints/cli/serve.py": source})["flags_of_others"]
        assert found == {"vllm.entrypoints.cli_args.make_arg_parser": ["vllm_omni/entrypoints/cli/serve.py:4"]}

    def test_names_from_an_f_string_and_from_a_loop(self, tmp_path):
        source = """
            class PipelineConfig:
                @staticmethod
                def add_cli_args(parser, prefix=""):
                    before = f"{prefix}." if prefix.strip() != "" else ""
                    if before != "":
                        parser.add_argument(f"--{before}model-path", type=str)
                    parser.add_argument(f"--{before}vae-tiling", dest=f"{before.replace('-', '_')}vae_tiling", type=int)
                    for flag, kind in (("alpha", "a"), ("beta", "b")):
                        parser.add_argument(f"--flux-{flag}", dest=kind)
        """
        found = facts(tmp_path, {"sglang/multimodal_gen/configs/base.py": source}, "sglang", "0.5.23")
        assert sorted(found["flags"]) == ["--flux-alpha", "--flux-beta", "--vae-tiling"]
        assert found["flags"]["--vae-tiling"][0]["dest"] == "vae_tiling"
        assert found["flags"]["--flux-beta"][0]["dest"] == "b"
        assert found["flags_of_others"] == {}

    def test_a_name_that_cannot_be_told_keeps_the_list_open(self, tmp_path):
        source = """
            def add(parser, names):
                for name in names:
                    parser.add_argument(f"--{name}")
            def hand_on(parser, *args, **kwargs):
                parser.add_argument(*args, **kwargs)
        """
        found = facts(tmp_path, {"vllm_omni/entrypoints/cli/serve.py": source})
        assert found["flags_of_others"] == {
            "vllm-omni, named at run time": ["vllm_omni/entrypoints/cli/serve.py:4"],
        }

    def test_flags_that_are_picked_from_the_words_of_the_command(self, tmp_path):
        source = """
            def serve(args, extra_argv):
                for word in extra_argv:
                    if word == "--model-type" or word.startswith("--model-type="):
                        pass
            def paths(unknown_args):
                for word in unknown_args:
                    if word.startswith("--component_paths.") or word.endswith("-path"):
                        pass
                return pick(unknown_args, alias_suffix="-weights")
        """
        found = facts(tmp_path, {"sglang/cli/serve.py": source}, "sglang", "0.5.23")["flags_by_hand"]
        assert found == {
            "--model-type": "sglang/cli/serve.py:4",
            "--component-paths.*": "sglang/cli/serve.py:8",
            "--*-path": "sglang/cli/serve.py:8",
            "--*-weights": "sglang/cli/serve.py:10",
        }


ARG_UTILS = """
import argparse
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from vllm.config import ModelConfig, ParallelConfig
from vllm.platforms import current_platform
if TYPE_CHECKING:
    from vllm.methods import Methods
else:
    Methods = Any

def get_kwargs(cls):
    for field in fields(cls):
        if field.name == "max_model_len":
            pass

class EngineArgs:
    @staticmethod
    def add_cli_args(parser):
        model_kwargs = get_kwargs(ModelConfig)
        group = parser.add_argument_group("model")
        group.add_argument("--runner", **model_kwargs["runner"])
        group.add_argument("--max-model-len", **model_kwargs["max_model_len"])
        group.add_argument("--eager", "-e", **model_kwargs["eager"])
        backend = model_kwargs["backend"]
        backend["type"] = lambda word: word.lower()
        group.add_argument("--backend", **backend)
        parallel_kwargs = get_kwargs(ParallelConfig)
        group.add_argument("--tensor-parallel-size", "-tp", **{**parallel_kwargs["tensor_parallel_size"], "default": 2})
        return parser

class AsyncEngineArgs(EngineArgs):
    @staticmethod
    def add_cli_args(parser, async_args_only=False):
        if not async_args_only:
            parser = EngineArgs.add_cli_args(parser)
        parser.add_argument("--log", action=argparse.BooleanOptionalAction, default=False)
        current_platform.update(parser)
        return parser
"""
VLLM = {
    "vllm/engine/arg_utils.py": ARG_UTILS,
    "vllm/config/__init__.py": "from vllm.config.all import ModelConfig, ParallelConfig\n",
    "vllm/config/all.py": """
        from dataclasses import dataclass, field
        from typing import ClassVar, Literal
        Runner = Literal["generate", "pooling"]
        Option = Literal["auto", Runner]
        @dataclass
        class ModelConfig:
            kinds: ClassVar[int] = 1
            runner: Option | None = "auto"
            max_model_len: int = None
            eager: bool = False
            backend: Literal["a", "b"] = "a"
        @dataclass
        class ParallelConfig:
            tensor_parallel_size: int = 1
    """,
    "vllm/platforms.py": "class Platform:\n    def update(self, parser):\n        pass\n",
    "vllm/argparse.py": """
        class FlexibleArgumentParser:
            def parse_args(self, args):
                return [word for word in args if word.startswith("-O")]
    """,
    "vllm/entrypoints/cli_args.py": """
        import json
        from dataclasses import dataclass, field
        from vllm.argparse import FlexibleArgumentParser
        from vllm.engine.arg_utils import AsyncEngineArgs
        @dataclass
        class Base:
            chat_template: str | None = None
            origins: list[str] = field(default_factory=lambda: ["*"])
            @classmethod
            def customize(cls, kwargs):
                kwargs["origins"]["type"] = json.loads
                return kwargs
            @classmethod
            def add_cli_args(cls, parser: FlexibleArgumentParser):
                from vllm.engine.arg_utils import get_kwargs
                kwargs = get_kwargs(cls)
                kwargs = cls.customize(kwargs)
                group = parser.add_argument_group("frontend")
                for key, value in kwargs.items():
                    extra = value.pop("flags", [])
                    group.add_argument(*extra, f"--{key.replace('_', '-')}", **value)
                return parser
        @dataclass
        class FrontendArgs(Base):
            port: int = 8000
            @classmethod
            def customize(cls, kwargs):
                kwargs = super().customize(kwargs)
                del kwargs["origins"]["nargs"]
                return kwargs
        def make_arg_parser(parser):
            parser.add_argument("model_tag", nargs="?")
            parser.add_argument("--config")
            parser = FrontendArgs.add_cli_args(parser)
            return AsyncEngineArgs.add_cli_args(parser)
    """,
}
SERVE = {
    "vllm_omni/entrypoints/cli/serve.py": """
        from vllm.entrypoints.cli_args import make_arg_parser
        def subparser_init(parser):
            parser = make_arg_parser(parser)
            parser.add_argument("--omni", action="store_true")
            parser.add_argument("--eager", action="store_true")
    """
}


class TestFlagsOfOthers:
    def compile(self, tmp_path, **replaced: str):
        files = VLLM | replaced
        return facts(tmp_path, SERVE, others=[wheel(tmp_path, files, "vllm")])

    def test_they_are_followed_through_imports_classes_and_loops_over_fields(self, tmp_path):
        found = self.compile(tmp_path)
        assert found["flags_of_others"] == {}
        assert found["flags_by_hand"] == {"-O*": "vllm/argparse.py:4"}
        assert sorted(found["others"]) == ["vllm==0.30.0"]
        flags = {name: places[-1] for name, places in found["flags"].items() if places[-1].get("of") == "vllm==0.30.0"}
        short = {name: {k: e[k] for k in e if k not in ("of", "parser", "at")} for name, e in flags.items()}
        assert short == {
            "--config": {},
            "--chat-template": {"type": "str | None", "default": None},
            "--origins": {"type": "json", "default": ["*"]},
            "--port": {"type": "int", "default": 8000},
            "--runner": {
                "type": "str | None",
                "choices": ["auto", "generate", "pooling", "None"],
                "default": "auto",
            },
            "--max-model-len": {"type": "human_readable_int", "default": None},
            "--eager": {"aliases": ["-e"], "action": "BooleanOptionalAction", "default": False},
            "--backend": {"type": "lambda", "default": "a"},
            "--tensor-parallel-size": {"aliases": ["-tp"], "type": "int", "default": 2},
            "--log": {"action": "BooleanOptionalAction", "default": False},
        }
        assert flags["--port"]["at"] == "vllm/entrypoints/cli_args.py:26"
        assert [place.get("of") for place in found["flags"]["--eager"]] == [None, "vllm==0.30.0"]

    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("vllm/platforms.py", "class P:\n    def update(self, parser):\n        parser.add_argument(make())\n"),
            ("vllm/config/__init__.py", ""),
            ("vllm/entrypoints/cli_args.py", "def make_arg_parser(parser):\n    elsewhere(parser)\n"),
            ("vllm/entrypoints/cli_args.py", ""),
        ],
    )
    def test_what_cannot_be_followed_keeps_the_list_open(self, tmp_path, path, content):
        found = self.compile(tmp_path, **{path: content})
        assert list(found["flags_of_others"]) == ["vllm.entrypoints.cli_args.make_arg_parser"]

    def test_a_wheel_of_another_package_adds_nothing(self, tmp_path):
        found = facts(tmp_path, SERVE, others=[wheel(tmp_path, {"other/a.py": ""}, "other")])
        assert list(found["flags_of_others"]) == ["vllm.entrypoints.cli_args.make_arg_parser"]


class TestEnvironment:
    def test_every_way_to_read_one(self, tmp_path):
        source = """
            import os
            table = {"OMNI_A": lambda: os.getenv("OMNI_A", "1")}
            b = os.environ.get("OMNI_B")
            c = os.environ["OMNI_C"]
            d = get_bool_env_var("OMNI_D", default="false")
            e = "OMNI_E" in os.environ
            os.environ["OMNI_WRITTEN"] = "1"
        """
        found = facts(tmp_path, {"vllm_omni/diffusion/envs.py": source})["environment"]
        assert sorted(found) == ["OMNI_A", "OMNI_B", "OMNI_C", "OMNI_D", "OMNI_E"]
        assert found["OMNI_A"] == {"at": ["vllm_omni/diffusion/envs.py:3"], "defaults": ["1"]}
        assert found["OMNI_D"]["defaults"] == ["false"]


class TestFields:
    def test_type_default_choices_and_range(self, tmp_path):
        source = """
            from pydantic import BaseModel, ConfigDict, Field
            class MagCacheConfig(BaseModel):
                model_config = ConfigDict(extra="forbid")
                threshold: float = Field(default=0.24, gt=0, le=1)
        """
        found = facts(tmp_path, {DATA: PARALLEL, "vllm_omni/diffusion/cache/mag.py": source})
        assert found["fields"]["MagCacheConfig.threshold"] == {
            "type": "float", "default": 0.24, "gt": 0, "le": 1, "line": 5,
        }  # fmt: skip
        assert found["fields"]["DiffusionParallelConfig.vae_parallel_mode"]["choices"] == ["tile", "batch"]
        assert found["fields"]["DiffusionParallelConfig.options"]["default"] == {}
        assert found["classes"]["MagCacheConfig"]["unknown"] == "refused"
        assert found["classes"]["MagCacheConfig"]["unknown_at"] == "vllm_omni/diffusion/cache/mag.py:4"

    @pytest.mark.parametrize(
        ("body", "unknown"),
        [
            ("return cls(**data)", "refused"),
            ("return cls(**{k: v for k, v in data.items() if k in NAMES})", "dropped"),
            ("extra = {k: v for k, v in data.items() if k not in NAMES}\n        return cls(**data)", "dropped"),
            ("rest = set(data) - NAMES\n        if rest:\n            raise ValueError(rest)", "refused"),
            ("for name in NAMES:\n            if name in data:\n                x[name] = 1", "dropped"),
        ],
    )
    def test_what_becomes_of_unknown_keys(self, tmp_path, body, unknown):
        source = (
            "from dataclasses import dataclass\n@dataclass\nclass DiffusionCacheConfig:\n    rel: float = 0.2\n"
            f"    @classmethod\n    def from_dict(cls, data):\n        {body}\n"
        )
        assert facts(tmp_path, {DATA: source})["classes"]["DiffusionCacheConfig"]["unknown"] == unknown

    def test_a_struct_drops_them_unless_it_forbids(self, tmp_path):
        source = """
            import msgspec
            class AConfig(msgspec.Struct, forbid_unknown_fields=True):
                a: int = 1
            class BConfig(msgspec.Struct):
                b: int = 1
            class CConfig(Thing):
                c: int = 1
        """
        found = facts(tmp_path, {DATA: source})["classes"]
        assert [found[name]["unknown"] for name in ("AConfig", "BConfig", "CConfig")] == [
            "refused", "dropped", "unknown-to-us",
        ]  # fmt: skip

    def test_a_long_default_is_kept_by_its_hash(self, tmp_path):
        ugly = "ugly, " * 40
        source = f'class FluxSamplingParams(SamplingParams):\n    negative_prompt: str = "{ugly}"\n    steps: int = 4\n'
        found = facts(tmp_path, {"sglang/multimodal_gen/configs/sample/flux.py": source}, "sglang", "0.5.23")["fields"]
        assert found["FluxSamplingParams.negative_prompt"]["default"].startswith("<240 characters, ")
        assert found["FluxSamplingParams.steps"]["default"] == 4


class TestPipelines:
    def test_vllm_omni_table_with_markers(self, tmp_path):
        found = facts(
            tmp_path,
            {
                "vllm_omni/diffusion/registry.py": """
                    _DIFFUSION_MODELS = {
                        "FluxPipeline": ("flux", "pipeline_flux", "FluxPipeline"),
                        "GonePipeline": ("gone", "pipeline_gone", "GonePipeline"),
                    }
                    _NO_CACHE_ACCELERATION = {"GonePipeline"}
                """,
                "vllm_omni/diffusion/models/flux/pipeline_flux.py": """
                    from vllm_omni.diffusion.models.flux.flux_transformer import FluxTransformer
                    from vllm_omni.diffusion.distributed.cfg_parallel import CFGParallelMixin
                    class FluxPipeline(Module, CFGParallelMixin):
                        supports_step_execution = True
                        def load(self):
                            return DistributedAutoencoderKL.from_pretrained()
                """,
                "vllm_omni/diffusion/models/flux/flux_transformer.py": """
                    class FluxTransformer(Module):
                        _sp_plan = {"": split()}
                        _repeated_blocks = ["Block"]
                        def __init__(self):
                            self.proj = QKVParallelLinear(1, 1)
                """,
            },
        )["pipelines"]
        marks = found["FluxPipeline"]["markers"]
        at = "vllm_omni/diffusion/models/flux"
        assert marks["FluxTransformer._sp_plan"] == f"{at}/flux_transformer.py:3"
        assert marks["FluxTransformer._repeated_blocks"] == {"at": f"{at}/flux_transformer.py:4", "value": ["Block"]}
        assert marks["FluxPipeline.supports_step_execution"]["value"] is True
        assert marks["base CFGParallelMixin"] == f"{at}/pipeline_flux.py:4"
        assert marks["parallel linear QKVParallelLinear"] == f"{at}/flux_transformer.py:6"
        assert marks["distributed VAE DistributedAutoencoderKL"] == f"{at}/pipeline_flux.py:7"
        assert found["GonePipeline"] == {
            "class": "GonePipeline",
            "registered_at": "vllm_omni/diffusion/registry.py:4",
            "no_cache": "vllm_omni/diffusion/registry.py:6",
        }

    def test_sglang_entry_classes_and_registered_configs(self, tmp_path):
        root = "sglang/multimodal_gen"
        found = facts(
            tmp_path,
            {
                f"{root}/runtime/pipelines/flux.py": """
                    class FluxPipeline(Base):
                        pipeline_name = "FluxPipeline"
                        pipeline_config_cls = FluxPipelineConfig
                    EntryClass = FluxPipeline
                """,
                f"{root}/configs/pipeline_configs/flux.py": """
                    register_configs(
                        sampling_param_cls=FluxSamplingParams,
                        pipeline_config_cls=FluxPipelineConfig,
                        hf_model_paths=["black-forest-labs/FLUX.1-dev"],
                        model_detectors=[lambda name: "flux.1" in name.lower() and "kontext" not in name],
                    )
                """,
            },
            "sglang",
            "0.5.23",
        )["pipelines"]
        assert found["pipeline FluxPipeline"]["pipeline_config_cls"] == "FluxPipelineConfig"
        name = "config FluxPipelineConfig FluxSamplingParams black-forest-labs/FLUX.1-dev"
        assert found[name]["hub_ids"] == ["black-forest-labs/FLUX.1-dev"]
        assert found[name]["detectors"] == ["flux.1"]

    def test_xdit_capabilities_are_inherited_and_replaced(self, tmp_path):
        source = """
            import dataclasses
            @register_model("a/FLUX")
            @register_model("FLUX")
            class Flux(xFuserModel):
                capabilities = ModelCapabilities(ring_degree=True, use_cfg_parallel=False)
            @register_model("a/FLUX-2")
            class Flux2(Flux):
                capabilities = dataclasses.replace(Flux.capabilities, use_cfg_parallel=True)
            @register_model("a/FLUX-3")
            class Flux3(Flux2):
                pass
        """
        path = "xfuser/model_executor/models/runner_models/flux.py"
        found = facts(tmp_path, {path: source}, "xdit", "0.7.0")["pipelines"]
        assert found["Flux"]["names"] == ["FLUX", "a/FLUX"]
        assert found["Flux"]["capabilities"] == {"ring_degree": True, "use_cfg_parallel": False}
        assert found["Flux3"]["capabilities"] == {"ring_degree": True, "use_cfg_parallel": True}
        assert found["Flux3"]["capabilities_at"] == f"{path}:9"

    def test_cache_dit_registrations(self, tmp_path):
        source = """
            @BlockAdapterRegister.register("Flux")
            def flux_adapter(pipe):
                return BlockAdapter(forward_pattern=ForwardPattern.Pattern_1)
        """
        path = "cache_dit/caching/block_adapters/adapters.py"
        found = facts(tmp_path, {path: source}, "cache-dit", "1.5.3")["pipelines"]
        assert found["BlockAdapterRegister Flux"] == {
            "at": f"{path}:3",
            "name": "flux_adapter",
            "patterns": ["Pattern_1"],
        }

    def test_diffusers_models_with_a_plan(self, tmp_path):
        source = """
            class Base:
                _cp_plan = None
            class FluxTransformer(Base):
                _cp_plan = {"": 1}
            class OldTransformer(Base):
                pass
        """
        path = "diffusers/models/transformers/transformer_flux.py"
        found = facts(tmp_path, {path: source}, "diffusers", "0.42.1")["pipelines"]
        assert found == {"model FluxTransformer": {"at": f"{path}:4", "markers": {"_cp_plan": f"{path}:5"}}}


class TestRegistries:
    def test_enums_and_tables_by_topic(self, tmp_path):
        source = """
            from enum import Enum
            class DiffusionAttentionBackendEnum(Enum):
                FLASH_ATTN = "a.b.Flash"
                TORCH_SDPA = "a.b.Sdpa"
            CUSTOM_CACHE_ENABLERS = {"Flux": enable_flux, "Wan": enable_wan}
            _MODEL_COEFFICIENTS = {"Flux": [1.0, -2.5]}
            QUANTIZATION_METHODS = frozenset({"fp8", "awq"})
        """
        found = facts(tmp_path, {"vllm_omni/diffusion/attention/backends/registry.py": source})["registries"]
        assert found["attention DiffusionAttentionBackendEnum"]["names"] == ["FLASH_ATTN", "TORCH_SDPA"]
        assert found["cache CUSTOM_CACHE_ENABLERS"]["values"] == {"Flux": "enable_flux", "Wan": "enable_wan"}
        assert found["cache _MODEL_COEFFICIENTS"]["values"] == {"Flux": [1.0, -2.5]}
        assert found["quantization QUANTIZATION_METHODS"]["values"] == ["awq", "fp8"]


class TestGuards:
    def test_a_guard_has_place_kind_exception_and_reads(self, tmp_path):
        ((name, guard),) = facts(tmp_path, {DATA: PARALLEL})["guards"].items()
        assert name.startswith(f"{DATA}::DiffusionParallelConfig.__post_init__#")
        assert guard == {
            "line": 15,
            "kind": "raise",
            "exception": "ValueError",
            "reads": ["ring_degree", "ulysses_degree"],
        }

    @pytest.mark.parametrize(
        "body",
        [
            "if config.ring_degree > 1: raise ValueError('x')",
            "assert config.ring_degree == 1",
            "if config.ring_degree > 1: logger.warning('x')",
            "if config.ring_degree > 1: warnings.warn('x')",
            "if config.ring_degree > 1: parser.error('x')",
            "ring = config.ring_degree\nif ring > 1: raise ValueError('x')",
            "if getattr(config, 'ring_degree', 1) > 1: raise ValueError('x')",
            "if config.get('ring_degree'): raise ValueError('x')",
            "if 'ring_degree' in config: raise ValueError('x')",
            "for name in [config.ring_degree]:\n    if name < 1: raise ValueError('x')",
            "if os.environ.get('OMNI_X') == '1': raise ValueError('x')",
            "if get_ring_parallel_world_size() > 1: raise ValueError('x')",
            "if not pipeline.supports_step_execution: raise ValueError('x')",
            "if pipeline.__class__.__name__ not in TABLE: raise ValueError('x')",
            "try:\n    x = int(config.ring_degree)\nexcept ValueError:\n    raise RuntimeError('x')",
            "match config.ring_degree:\n    case 2:\n        raise ValueError('x')",
            "if config.ring_degree == 1:\n    return\nraise ValueError('x')",
        ],
    )
    def test_what_counts(self, tmp_path, body):
        assert len(lone(tmp_path, body)) == 1

    @pytest.mark.parametrize(
        "body",
        [
            "if x.shape[0] != 2: raise ValueError('x')",
            "if config.ring_degree > 1: logger.info('x')",
            "try:\n    x = 1\nexcept ValueError:\n    raise",
            "logger.warning('x')",
            "raise NotImplementedError",
            "y = self.transformer(config.ring_degree, a=1)\nif y is None: raise ValueError('x')",
        ],
    )
    def test_what_does_not(self, tmp_path, body):
        assert lone(tmp_path, body) == []

    def test_moved_lines_and_new_quotes_keep_the_id(self, tmp_path):
        before = lone(tmp_path, "if config.ring_degree > 1 and mode == 'a':\n    raise ValueError('x')")
        after = lone(
            tmp_path,
            '# moved\n\n\nother = 1\nif (\n    config.ring_degree > 1  # why\n    and mode == "a"\n):\n'
            '    raise ValueError("y")',
        )
        assert before == after

    @pytest.mark.parametrize(
        "body",
        [
            "if config.ring_degree > 2: raise ValueError('x')",
            "if config.ulysses_degree > 1: raise ValueError('x')",
            "if config.ring_degree > 1: logger.warning('x')",
            "if on:\n    if config.ring_degree > 1: raise ValueError('x')",
            "if config.ring_degree > 1: pass\nelse: raise ValueError('x')",
        ],
    )
    def test_another_condition_or_kind_is_another_guard(self, tmp_path, body):
        assert lone(tmp_path, body) != lone(tmp_path, "if config.ring_degree > 1: raise ValueError('x')")

    def test_the_same_condition_twice_has_two_ids(self, tmp_path):
        one, two = lone(tmp_path, "if config.ring_degree > 1: raise A('x')\nif config.ring_degree > 1: raise B('x')")
        assert two == f"{one}~2"

    def test_a_closure_sees_what_its_function_bound(self, tmp_path):
        body = "ring = config.ring_degree\ndef inner():\n    if ring > 1: raise ValueError('x')"
        (guard,) = lone(tmp_path, body)
        assert "::start.inner#" in guard

    def test_tests_and_code_of_language_models_are_left_out(self, tmp_path):
        source = "def f(config):\n    if config.ring_degree > 1: raise ValueError('x')\n"
        for path in (
            "vllm_omni/model_executor/a.py",
            "vllm_omni/diffusion/tests/a.py",
            "vllm_omni/diffusion/test_a.py",
        ):
            assert not [guard for guard in ids(tmp_path, source, path) if path in guard]


class TestHostileWheels:
    def test_nothing_is_imported(self, tmp_path):
        mark = tmp_path / "imported"
        source = f"open({str(mark)!r}, 'w').close()\nraise SystemExit(3)\n"
        found = facts(tmp_path, {"vllm_omni/__init__.py": source, DATA: source + textwrap.dedent(PARALLEL)})
        assert found["guards"]
        assert not mark.exists()

    def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_read(self, tmp_path):
        bad = {
            "broken": "def (:\n",
            "nulls": b"x = 1\x00\n",
            "bytes": b"\xff\xfe\x00x\n",
            "minus": "x = " + "-" * 5000 + "1\n",
            "brackets": "x = " + "(" * 3000 + ")" * 3000 + "\n",
            "sum": "def f(config):\n    if config.ring_degree and " + " + ".join("y" * 900) + ": raise A('x')\n",
            "chain": "def f(config):\n    if config.ring_degree and x" + ".a()" * 400 + ": raise A('x')\n",
            "huge": b"#" * 9_000_000,
        }
        found = facts(
            tmp_path, {DATA: PARALLEL, **{f"vllm_omni/diffusion/{name}.py": text for name, text in bad.items()}}
        )
        assert len(found["guards"]) == 1
        assert sorted(found["unread"]) == sorted(f"vllm_omni/diffusion/{name}.py" for name in bad)

    def test_what_is_nested_as_people_nest_is_read(self, tmp_path):
        lines = ["def g(config):", *("    " * level + "if config.ring_degree:" for level in range(1, 19))]
        found = facts(
            tmp_path, {DATA: PARALLEL, "vllm_omni/diffusion/a.py": "\n".join([*lines, "    " * 19 + "raise A('x')"])}
        )
        assert [guard for guard in found["guards"] if "::g#" in guard]
        assert found["unread"] == {}

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
    def test_what_is_no_wheel(self, tmp_path, content):
        path = tmp_path / "x.whl"
        path.write_bytes(content)
        with pytest.raises(WheelError, match="not a wheel"):
            compile_facts(ENGINES["xdit"], path, "0.7")

    def test_a_wheel_without_a_name(self, tmp_path):
        path = tmp_path / "x.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("xfuser/a.py", "")
        with pytest.raises(WheelError, match="no METADATA"):
            compile_facts(ENGINES["xdit"], path, "0.7")

    def test_many_files_take_seconds(self, tmp_path):
        body = "def f{0}(config):\n    if config.ring_degree > {0}:\n        raise ValueError('x')\n"
        files = {f"vllm_omni/diffusion/m{i}.py": "".join(body.format(n) for n in range(40)) for i in range(400)}
        start = time.process_time()
        assert len(facts(tmp_path, {DATA: PARALLEL, **files})["guards"]) == 16_001
        assert time.process_time() - start < 20


class TestCommand:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shelf, "FOLDER", tmp_path / "engines")

    def run(self, *args: str):
        return CliRunner().invoke(app(["engine"]), ["engine", *args])

    def test_compile_writes_the_file_of_the_version(self, tmp_path):
        broken = {DATA: PARALLEL, "vllm_omni/diffusion/broken.py": "def (:"}
        result = self.run("compile", "vllm-omni==0.30", str(wheel(tmp_path, broken)))
        assert result.exit_code == 0
        assert "1 guards" in result.stdout
        assert "not read: vllm_omni/diffusion/broken.py (SyntaxError)" in result.stderr
        assert json.loads((tmp_path / "engines/vllm_omni/facts/0.30.json").read_text())["version"] == "0.30"

    def test_the_package_name_will_do(self, tmp_path):
        path = wheel(tmp_path, {"xfuser/a.py": ""}, "xfuser", "0.7.0")
        assert self.run("compile", "xfuser==0.7.0", str(path)).exit_code == 0
        assert (tmp_path / "engines/xdit/facts/0.7.json").exists()

    @pytest.mark.parametrize("name", ["vllm-omni", "torch==2", "vllm-omni=="])
    def test_a_name_that_is_none(self, name):
        result = self.run("compile", name, "x.whl")
        assert result.exit_code == 2
        assert "expected NAME==VERSION" in result.stderr

    def test_what_pip_does_not_give(self, monkeypatch):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        result = self.run("compile", "vllm-omni==9.9.9")
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "vllm-omni==9.9.9: pip does not give its wheel" in result.stderr

    def test_another_wheel_may_be_a_file_or_a_requirement(self, tmp_path, monkeypatch):
        own, other = str(wheel(tmp_path, SERVE)), str(wheel(tmp_path, VLLM, "vllm"))
        assert self.run("compile", "vllm-omni==0.30", own, "--with", other).exit_code == 0
        assert "--port" in shelf.load("vllm-omni==0.30")["flags"]
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        for stated, said in (("vllm==9.9", "vllm==9.9: pip does not give"), ("vllm", "expected a wheel or NAME==")):
            result = self.run("compile", "vllm-omni==0.30", own, "--with", stated)
            assert result.exit_code == 2
            assert said in result.stderr

    def test_guards_show_condition_and_message_from_the_wheel(self, tmp_path):
        path = str(wheel(tmp_path, {DATA: PARALLEL}))
        shown = self.run("guards", "vllm-omni==0.30", path).stdout
        assert "if self.ring_degree > 1 and self.ulysses_degree > 1" in shown
        assert "says no ring with ulysses" in shown
        (guard,) = json.loads(self.run("guards", "vllm-omni==0.30", path, "--json").stdout)
        assert guard["message"] == "no ring with ulysses"

    def test_diff_names_what_is_new_gone_and_changed(self, tmp_path):
        serve = "def f(parser):\n    parser.add_argument('--mode', choices=['a'{}], default={})\n"
        old = {DATA: PARALLEL, "vllm_omni/entrypoints/cli/serve.py": serve.format("", 1)}
        moved = "\n\n" + PARALLEL.replace("ring_degree: int = 1", "ring_degree: int = 2").replace(
            "    options", "    extra"
        )
        new = {DATA: moved, "vllm_omni/entrypoints/cli/serve.py": "\n" + serve.format(", 'b'", 2)}
        self.run("compile", "vllm-omni==0.28", str(wheel(tmp_path, old, version="0.28.0")))
        self.run("compile", "vllm-omni==0.30", str(wheel(tmp_path, new)))
        shown = self.run("diff", "vllm-omni==0.28", "vllm-omni==0.30").stdout
        assert "~ --mode: choices with b, default 1 -> 2" in shown
        assert "+ DiffusionParallelConfig.extra" in shown
        assert "- DiffusionParallelConfig.options" in shown
        assert "~ DiffusionParallelConfig.ring_degree: default 1 -> 2" in shown
        assert "Guards" not in shown
        found = json.loads(self.run("diff", "vllm-omni==0.28", "vllm-omni==0.30", "--json").stdout)
        assert found["fields"]["changed"] == {"DiffusionParallelConfig.ring_degree": {"default": [1, 2]}}
        page = self.run("diff", "vllm-omni==0.28", "vllm-omni==0.30", "--markdown").stdout
        assert page.startswith("# From vllm-omni==0.28 to vllm-omni==0.30\n\n## Flags: 0 new, 0 gone, 1 changed")
        assert "- new: `DiffusionParallelConfig.extra`" in page
        assert self.run("diff", "vllm-omni==0.30", "vllm-omni==0.30").stdout == "nothing changed\n"

    def test_diff_of_a_version_without_facts(self):
        result = self.run("diff", "vllm-omni==0.1", "vllm-omni==0.2")
        assert result.exit_code == 2
        assert "no facts of this version; there are none" in result.stderr


SHIPPED = sorted(shelf.FOLDER.glob("*/facts/*.json"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
class TestShipped:
    def test_every_file_of_the_wheel_was_read(self, file):
        assert json.loads(file.read_text())["unread"] == {}

    def test_it_is_written_as_compiled(self, file):
        text = file.read_text()
        assert to_json(json.loads(text)) == text
        assert len(text) < 620_000


def test_what_the_sources_say():
    omni, sglang = shelf.load("vllm-omni==0.30"), shelf.load("sglang==0.5.23")
    assert omni["flags"]["--ulysses-degree"][0]["aliases"] == ["--usp"]
    assert omni["classes"]["OmniDiffusionConfig"]["unknown"] == "refused"
    assert omni["classes"]["DiffusionCacheConfig"]["unknown"] == "dropped"
    assert [len(shelf.load(f"vllm-omni=={v}")["pipelines"]) for v in ("0.30", "0.32.0rc1")] == [72, 80]
    assert "batch" in shelf.load("vllm-omni==0.32.0rc1")["flags"]["--vae-parallel-mode"][0]["choices"]
    for version, parsed in (("0.26", "0.26.0"), ("0.28", "0.28.0"), ("0.30", "0.30.0"), ("0.32.0rc1", "0.32.0")):
        found = shelf.load(f"vllm-omni=={version}")
        assert (list(found["others"]), found["flags_of_others"]) == ([f"vllm=={parsed}"], {})
        aliases = {"--tensor-parallel-size": "-tp", "--data-parallel-size": "-dp", "--compilation-config": "-cc"}
        for name, alias in aliases.items():
            assert alias in found["flags"][name][0]["aliases"]
        plain = "cpu-offload-gb served-model-name max-model-len gpu-memory-utilization enforce-eager trust-remote-code"
        served = "host port api-key allowed-local-media-path config headless dtype load-format middleware lora-modules"
        assert {f"--{name}" for name in f"{plain} {served}".split()} <= found["flags"].keys()
        assert "-O*" in found["flags_by_hand"]
    assert sglang["flags"]["--vae-tiling"][0]["action"] == "StoreBoolean"
    assert "--model-type" in sglang["flags_by_hand"]
    assert sglang["flags"]["--num-gpus"][0]["default"] == 1
    assert sglang["flags"]["--kv-gather-degree"][0]["type"] == "int"
    assert shelf.load("xdit==0.7")["flags"]["--use_cfg_parallel"][0]["action"] == "store_true"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xdit==0.7", "vllm-omni==0.30"])
def test_a_real_wheel_gives_the_shipped_facts(name, tmp_path):
    engine, version = shelf.named(name)
    path = shelf.download(engine.distribution, version, tmp_path)
    others = [shelf.other_wheel(name, tmp_path) for name in shelf.load(name)["others"]]
    start = time.process_time()
    assert to_json(compile_facts(engine, path, version, others)) == shelf.facts_file(engine, version).read_text()
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("engine", "typed", "name", "words"),
    [
        ("vllm-omni==0.30", "-tp", "--tensor-parallel-size", 1),
        ("vllm-omni==0.30", "--no-enforce-eager", "--enforce-eager", 0),
        ("vllm-omni==0.30", "--compilation-config.mode", "--compilation-config", 1),
        ("vllm-omni==0.30", "--served_model_name", "--served-model-name", None),
        ("vllm-omni==0.30", "-O3", "-O3", 0),
        ("vllm-omni==0.30", "-O", "-O", 1),
        ("vllm-omni==0.30", "--help", "--help", 0),
        ("sglang==0.5.23", "--component_paths.vae", "--component_paths.vae", 1),
        ("sglang==0.5.18", "--vae-path", "--vae-path", 1),
        ("sglang==0.5.23", "--vae-config.use-tiling", "--vae-config.use-tiling", 1),
    ],
)
def test_spellings_of_a_flag(engine, typed, name, words):
    facts = facts_of(engine)
    assert facts is not None
    assert facts.closed
    flag = facts.flag(typed)
    assert (flag.name, flag.most_values) == (name, words)
    assert facts.flag("--no-such-flag") is None
