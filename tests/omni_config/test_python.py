"""Python scripts are read without being run: what they deploy, where it stands, and what only a run knows."""

from __future__ import annotations

import json
import time
from textwrap import dedent
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check, check_bytes
from omni_config.cli import app
from omni_config.engines.formats import python_reader
from omni_config.engines.formats.python import Script, plain
from omni_config.engines.formats.text import File
from omni_config.findings import Source
from omni_config.reading.nodes import YamlNode
from omni_config.rules.quantities import UNKNOWN
from omni_config.schema.settings import FIELDS

LOADED = (
    "import torch\nfrom diffusers import ContextParallelConfig, FluxPipeline, TensorParallelConfig\n"
    'pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")\n'
)


def script(text: str, name: str = "deploy.py") -> Script:
    found = python_reader.read(File(Source(name, dedent(text))))
    assert found is not None
    return found


def one(text: str, **assume: str) -> CheckResult:
    (checked,) = check_bytes("deploy.py", dedent(text).encode(), assume=assume)
    return checked


def said(checked: CheckResult) -> dict[str, Any]:
    assert checked.node is not None
    found = {name: checked.node.find(path) for name, path in FIELDS.items()}
    return {name: node.value for name, node in found.items() if node is not None}


def options(checked: CheckResult) -> dict[str, Any]:
    assert checked.document is not None
    return {name: node.value for name, node in checked.document.options.items()}


def codes(checked: CheckResult) -> list[str]:
    return [finding.code for finding in checked.findings]


def value(expression: str, before: str = "") -> Any:
    found = script(f"{dedent(before)}\nimport target\ntarget.f(x={expression})")
    node = next(call for call in found.calls if call.name == "target.f").keywords["x"]
    return plain(node).value


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2", 2),
        ("-1", -1),
        ("'a' + 'b'", "ab"),
        ("2 * 3 + 7 // 2 - 5 % 3", 7),
        ("f'{name}-{4}'", "flux-4"),
        ("[1, (2, 3)]", [1, [2, 3]]),
        ("{'a': size, **{'b': 1}}", {"a": 4, "b": 1}),
        ("dict(a=1)", {"a": 1}),
        ("dict({'a': 1}, b=2)['b']", 2),
        ("target.dtype", "target.dtype"),
        ("size if size > 3 else 0", 4),
        ("None or 'x'", "x"),
        ("size and None", None),
        ("not size", False),
        ("size is None", False),
        ("size in (4, 5)", True),
        ("int('8')", 8),
        ("(again := 3)", 3),
        ("os.environ.get('N', '2')", "2"),
    ],
)
def test_what_a_script_itself_says_is_known(expression: str, expected: Any) -> None:
    assert value(expression, "import os\nname = 'flux'\nsize = 4\n") == expected


@pytest.mark.parametrize(
    "expression",
    [
        "lambda: None",
        "undefined",
        "target.g()",
        "int('x')",
        "os.environ['N']",
        "os.environ.get('N')",
        "f'{target.g()}'",
        "[n for n in range(3)]",
        "1 // 0",
        "9 ** 9",
        "'a' * 10",
        "{target.g(): 1}",
        "size[0]",
        "sys.argv[1]",
        "maybe",
        "1 if target.g() else 2",
        "1 < 2 < 3",
        "b'x'",
    ],
)
def test_what_only_a_run_knows_is_unknown_and_not_none(expression: str) -> None:
    before = "import os, sys\nsize = 4\nif os.path.exists('x'):\n    maybe = 1\n"
    assert value(expression, before) is UNKNOWN


def test_calls_come_in_the_order_of_execution_through_functions_and_objects() -> None:
    found = script(
        """
        import target

        class Server:
            steps = 4

            def __init__(self, model):
                self.pipe = target.load(model)

            def run(self, prompt):
                return self.pipe(prompt, steps=self.steps)

        def build(name="a", *, size=1):
            return Server(name), size

        def main():
            server, size = build(size=2)
            server.pipe.part.change(size)
            server.run("x")

        if __name__ == "__main__":
            main()
        """
    )
    made = found.calls[0]
    assert [call.name for call in found.calls] == ["target.load", "part.change", ""]
    assert found.of(made) == found.calls[1:]
    assert [node.value for node in made.arguments] == ["a"]
    assert found.calls[1].arguments[0].value == 2
    assert found.calls[2].keywords["steps"].value == 4


def test_functions_that_nothing_calls_are_read_with_unknown_arguments() -> None:
    found = script(
        """
        import target

        class Predictor:
            def setup(self):
                self.pipe = target.load("m")

            def predict(self, steps: int):
                self.pipe(steps=steps)
        """
    )
    assert [call.name for call in found.calls] == ["target.load", ""]
    assert found.calls[1].receiver is found.calls[0]
    assert found.calls[1].keywords["steps"].value is UNKNOWN


def test_options_of_argparse_have_their_defaults() -> None:
    found = script(
        """
        import argparse, target
        parser = argparse.ArgumentParser()
        group = parser.add_argument_group("model")
        group.add_argument("--model-path", "-m", default="m")
        parser.add_argument("--tiles", action="store_true")
        parser.add_argument("--size", type=int)
        parser.add_argument("--name", required=True)
        parser.add_argument("file")
        parser.set_defaults(extra=3)
        args = parser.parse_args()
        if args.tiles:
            target.tile()
        target.f(args.model_path, args.tiles, args.size, args.name, args.file, args.extra)
        """
    )
    call = found.calls[-1]
    assert [node.value for node in call.arguments] == ["m", False, None, UNKNOWN, UNKNOWN, 3]
    assert "target.tile" not in [call.name for call in found.calls]


def test_keyword_arguments_of_a_mapping_are_known_and_those_of_another_are_not() -> None:
    found = script(
        """
        import target
        more = dict(a=1)
        more["b"] = 2
        more.update(c=3, a=4)
        target.f(**more)
        target.f(**target.g(), d=5)
        target.f(*[6, 7])
        """
    )
    first, _, second, third = found.calls
    assert {name: node.value for name, node in first.keywords.items()} == {"a": 4, "b": 2, "c": 3}
    assert not first.open
    assert second.open
    assert {name: node.value for name, node in second.keywords.items()} == {"d": 5}
    assert [node.value for node in third.arguments] == [6, 7]


def test_places_are_of_arguments_in_characters() -> None:
    text = 'import target\ntarget.f("é", size=  4,\n  name="ü" + "ö")\n'
    call = script(text).calls[0]
    size, name = call.keywords["size"], call.keywords["name"]
    assert (size.span.line, size.span.column, size.span.end) == (2, 15, 23)
    assert (name.span.line, name.span.column, name.span.end) == (3, 3, 17)
    assert name.key_span is not None
    assert name.key_span.end == 7


def notebook(*cells: list[str]) -> str:
    stated = [{"cell_type": "code", "metadata": {}, "source": cell} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["# x"]}, *stated], "nbformat": 4}, indent=1)


def test_a_notebook_is_read_by_its_cells_and_findings_point_into_it() -> None:
    text = notebook(
        ["!pip install diffusers\n", "%pwd\n", "from diffusers import FluxPipeline, ContextParallelConfig"],
        ['pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")\n',
         "pipe.transformer.enable_parallelism(\n",
         "    config=ContextParallelConfig(ulysses_degree=2, ring_degree=2, ulysses_anything=True)\n", ")\n"],
    )  # fmt: skip
    (checked,) = check_bytes("deploy.ipynb", text.encode())
    found = next(finding for finding in checked.findings if finding.code == "OMNI1501")
    assert found.span is not None
    line = found.span.source.line(found.span.line)
    assert line[found.span.column - 1 : found.span.end - 1] == "ring_degree=2"


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "(" * 5000 + ")" * 5000,
        "x = " + "-" * 50_000 + "1",
        "x = " + "+".join(["1"] * 50_000),
        "x = y" + ".a" * 50_000,
        "x = " + "[" * 150 + "]" * 150,
        "def f():\n  f()\n  f()\nf()\n" * 1000,
        "def f(n):\n  return f(n), f(n)\nfor x in y:\n  f(f(f(f(1))))\n" * 200,
        "".join(f"def f{n}():\n  f{n + 1}()\n  f{n + 1}()\n" for n in range(60)) + "f0()\n",
        "x = 9\n" + "x = x * x\n" * 5000,
        "x = 'a'\n" + "x = x + x\n" * 5000,
        "x = {}\n" + "x = [x, x, x, x]\n" * 3000,
        "x\0y",
        "pipe line = 1",
        "import diffusers\n" + "a = 1\n" * 150_000,
        "from diffusers import X\nx = 0xffff" + "f" * 10_000 + "\ny = x + x\n",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_hostile_script_ends_at_once(text: str) -> None:
    start = time.process_time()
    results = check_bytes("deploy.py", f"import diffusers\n{text}".encode())
    assert results
    assert not any(checked.foreign for checked in results)
    assert time.process_time() - start < 1


def test_ten_megabytes_are_refused_at_once() -> None:
    start = time.perf_counter()
    (checked,) = check_bytes("deploy.py", b"import diffusers\n" + b"a = 1\n" * 1_700_000)
    assert codes(checked) == ["OMNI902"]
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        "import torch\nprint(1)\n",
        "import diffusers\n",
        "from diffusers import AutoencoderKL\nvae = AutoencoderKL.from_pretrained('x')\n",
        "from diffusers import ModularPipeline\npipe = ModularPipeline.from_pretrained('x')\n",
        "import sglang\nllm = sglang.Engine(model_path='m')\n",
        "version: 1\nmodel: x\n",
    ],
)
def test_a_script_that_deploys_nothing_known_is_no_deployment(text: str) -> None:
    (checked,) = check_bytes("tool.py", text.encode())
    assert not checked.foreign
    assert codes(checked) == ["OMNI908"]
    assert checked.exit_code == 2


def test_a_script_is_known_by_its_imports_where_its_name_says_nothing() -> None:
    (checked,) = check_bytes("-", LOADED.encode())
    assert said(checked)["engine"] == "diffusers==0.42.1"
    shell = f"python - <<'EOF'\n{LOADED}EOF\nsglang serve --model-path Qwen/Qwen-Image\n"
    (checked,) = check_bytes("run.sh", shell.encode())
    assert said(checked)["engine"].startswith("sglang==")


def test_many_scripts_of_other_purposes_are_passed_over(tmp_path: Any) -> None:
    body = "import os\n\n\ndef work(n: int) -> int:\n    return n * 2  # {}\n\n\n" + "print(work(3), {})\n" * 40
    names = [tmp_path / f"tool_{n}.py" for n in range(300)]
    for n, name in enumerate(names):
        name.write_text(body.replace("{}", str(n)))
    check(names[0])
    start = time.process_time()
    for name in names:
        check(name)
    assert time.process_time() - start < 1


class TestDiffusers:
    def test_settings_options_and_places(self) -> None:
        checked = one(
            LOADED
            + """
pipe.to("cuda")
pipe.transformer.set_attention_backend("_native_cudnn")
pipe.vae.enable_tiling()
pipe.vae.enable_slicing()
pipe.load_lora_weights("someone/adapter", weight_name="a.safetensors")
pipe.transformer = torch.compile(pipe.transformer)
pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2, convert_to_fp32=False))
pipe("a cat", height=1024, width=512, num_inference_steps=8, guidance_scale=3.5, generator=torch.manual_seed(7))
"""
        )
        found = said(checked)
        assert found["model"] == "black-forest-labs/FLUX.1-dev"
        assert found["engine"] == "diffusers==0.42.1"
        assert found["attention_backend"] == "_native_cudnn"
        assert found["vae_use_tiling"] is found["vae_use_slicing"] is found["compile"] is True
        assert found["lora"] == [{"path": "someone/adapter"}]
        assert found["ulysses_degree"] == 2
        assert (found["height"], found["width"], found["num_inference_steps"]) == (1024, 512, 8)
        assert (found["guidance_scale"], found["seed"]) == (3.5, 7)
        assert options(checked) == {"convert_to_fp32": False}
        node = checked.node.find(FIELDS["ulysses_degree"]) if checked.node else None
        assert isinstance(node, YamlNode)
        line = node.span.source.line(node.span.line)
        assert line[node.span.column - 1 : node.span.end - 1] == "ulysses_degree=2"

    def test_what_only_a_run_knows_is_named_once_and_no_rule_is_asked(self) -> None:
        text = LOADED + "import os\nn = int(os.environ['WORLD_SIZE'])\n"
        call = (
            "pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree={}, rotate_method={}))\n"
        )
        checked = one(text + call.format("n", "'allgather'"))
        assert codes(checked) == ["OMNI605"]  # with a degree of 1 it would be refused
        assert checked.findings[0].message == "not judged: ulysses_degree (known only to a run)"
        assert codes(one(text + call.format("1", "'allgather'"))) == ["OMNI1501"]
        assert codes(one(text + call.format("n", "'alltoall'"))) == ["OMNI605", "OMNI1501"]
        assert codes(one(text + call.format("2", "n"))) == ["OMNI605"]

    @pytest.mark.parametrize(
        ("call", "setting"),
        [
            ("pipe.enable_model_cpu_offload()", "enable_cpu_offload"),
            ("pipe.vae.enable_tiling()", "vae_use_tiling"),
            ("pipe.transformer.enable_parallelism(config=ContextParallelConfig(ring_degree=2))", "ring_degree"),
        ],
    )
    def test_a_call_under_a_condition_that_a_run_knows_is_named(self, call: str, setting: str) -> None:
        checked = one(f"{LOADED}import sys\nif len(sys.argv) > 1:\n    {call}\n")
        assert checked.document is not None
        assert setting in checked.document.unknown
        assert setting not in said(checked)
        assert "OMNI605" in codes(checked)
        taken = one(f"{LOADED}if True:\n    {call}\n")
        assert setting in said(taken)

    def test_no_rule_is_asked_about_an_object_that_the_script_makes(self) -> None:
        text = """
        from diffusers import {0}
        from diffusers.utils import load_image
        pipe = {0}.from_pretrained("black-forest-labs/FLUX.1-Kontext-dev")
        pipe("a cat", image=load_image("cat.png"))
        """
        for name in ("FluxKontextPipeline", "FluxKontextInpaintPipeline"):
            assert "OMNI507" not in codes(one(text.format(name)))  # which asks for the path of an image

    def test_a_callback_is_there_though_nobody_knows_what_it_says(self) -> None:
        call = (
            "pipe.transformer.enable_cache(PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2{}))\n"
        )
        text = "from diffusers import PyramidAttentionBroadcastConfig\n" + LOADED
        assert "OMNI2501" in codes(one(text + call.format("")))
        for given in ("lambda: pipe.t", "callback", "pipe.t"):
            assert "OMNI2501" not in codes(one(text + call.format(f", current_timestep_callback={given}")))

    def test_an_argument_that_a_class_does_not_have_is_refused_with_the_one_that_was_meant(self) -> None:
        checked = one(LOADED + "pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulyses_degree=2))\n")
        (found,) = [finding for finding in checked.findings if finding.code == "OMNI615"]
        assert found.next_step == "did you mean ulysses_degree?"
        assert found.span is not None
        assert found.span.line == 4

    def test_parts_that_are_loaded_before_their_pipeline_belong_to_it(self) -> None:
        checked = one(
            """
            import torch
            from diffusers import AutoModel, BitsAndBytesConfig, WanPipeline
            name = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
            part = AutoModel.from_pretrained(
                name, subfolder="transformer", quantization_config=BitsAndBytesConfig(load_in_4bit=True)
            )
            part.enable_group_offload(torch.device("cuda"), offload_type="leaf_level", use_stream=True)
            pipe = WanPipeline.from_pretrained(name, transformer=part, torch_dtype=torch.bfloat16)
            """
        )
        assert said(checked)["enable_layerwise_offload"] is True
        assert said(checked)["dtype"] == "bfloat16"
        assert options(checked)["load_in_4bit"] is True
        assert options(checked)["onload_device"] == "cuda"
        assert "OMNI3501" not in codes(checked)

    def test_group_offload_of_one_part_is_not_mixed_with_that_of_another(self) -> None:
        offload = 'pipe.{}.enable_group_offload(onload_device="cuda", offload_type={!r}, {})\n'
        text = LOADED + offload.format("transformer", "leaf_level", "use_stream=True")
        assert "OMNI3502" not in codes(one(text + offload.format("vae", "block_level", "num_blocks_per_group=4")))

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (
                "pipe.enable_model_cpu_offload()",
                'pipe.transformer.enable_group_offload("cuda", offload_type="leaf_level")',
            ),
            ('pipe.enable_group_offload("cuda", offload_type="leaf_level")', "pipe.enable_sequential_cpu_offload()"),
            (
                "pipe.transformer.enable_parallelism(config=TensorParallelConfig(tp_degree=2))",
                'pipe.transformer.enable_group_offload("cuda", offload_type="leaf_level")',
            ),
            (
                "pipe.transformer.enable_parallelism(config=TensorParallelConfig(tp_degree=2))",
                "pipe.enable_model_cpu_offload()",
            ),
            (
                "pipe.transformer.enable_parallelism(config=ContextParallelConfig(ring_degree=2))",
                "pipe.transformer.enable_parallelism(config=ContextParallelConfig(ring_degree=2))",
            ),
        ],
    )
    def test_an_order_that_is_refused(self, first: str, second: str) -> None:
        checked = one(f"{LOADED}{first}\n{second}\n")
        found = [finding for finding in checked.findings if finding.code == "OMNI3503"]
        assert [finding.span.line for finding in found if finding.span] == [5]
        assert "OMNI301" not in codes(checked)  # nothing is dropped silently
        assert "OMNI3503" not in codes(one(f"{LOADED}{first}\n"))
        assert "OMNI3503" not in codes(one(f"{LOADED}{second}\n"))

    def test_a_pipeline_of_another_kind_is_not_judged_by_the_task_of_its_model(self) -> None:
        text = """
        from diffusers import {0}
        pipe = {0}.from_pretrained("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
        pipe("a cat", num_frames=17)
        """
        own, other = (one(text.format(name)) for name in ("WanPipeline", "WanVideoToVideoPipeline"))
        assert own.document is not None
        assert other.document is not None
        assert "task" not in own.document.unknown
        assert "task" in other.document.unknown

    def test_frames_of_a_pipeline_that_takes_them_are_no_fault(self) -> None:
        text = """
        from diffusers import AnimateDiffSDXLPipeline as A
        pipe = A.from_pretrained("stabilityai/stable-diffusion-3.5-large")
        pipe("a cat", num_frames=16)
        """
        assert codes(one(text)) == ["OMNI605"]

    def test_each_pipeline_is_a_deployment(self) -> None:
        text = 'b = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")\nb.vae.enable_tiling()\n'
        first, second = check_bytes("deploy.py", (LOADED + text).encode())
        assert "vae_use_tiling" not in said(first)
        assert said(second)["vae_use_tiling"] is True
        assert said(second)["model"] == "black-forest-labs/FLUX.1-schnell"

    def test_the_version_that_a_script_names_judges(self) -> None:
        checked = one("# pip install diffusers==0.30.0\n" + LOADED)
        assert "OMNI613" in codes(checked)

    def test_it_is_started_by_a_script_and_exported_to_by_none(self, tmp_path: Any) -> None:
        config = tmp_path / "a.yaml"
        config.write_text("version: 1\nmodel: Qwen/Qwen-Image\nengine: diffusers\nsampling: {prompt: a cat}\n")
        launched = CliRunner().invoke(app(["launch"]), ["launch", str(config)])
        assert launched.exit_code == 1
        assert "is started by a script of one's own" in launched.output
        assert CliRunner().invoke(app(["export"]), ["export", "--to", "diffusers", str(config)]).exit_code == 2


class TestOthers:
    def test_cache_dit_takes_the_pipeline_that_it_is_given(self) -> None:
        checked = one(
            """
            import cache_dit
            from cache_dit import DBCacheConfig, ParallelismConfig, TaylorSeerCalibratorConfig
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
            pipe.enable_model_cpu_offload()
            cache_dit.enable_cache(
                pipe,
                DBCacheConfig(Fn_compute_blocks=4, warmup_interval=2, max_warmup_stepz=3),
                calibrator_config=TaylorSeerCalibratorConfig(taylorseer_order=2),
                parallelism_config=ParallelismConfig(ulysses_size=2),
            )
            """
        )
        found = said(checked)
        assert found["engine"] == "cache-dit==1.5.3"
        assert found["enable_cpu_offload"] is True
        assert (found["Fn_compute_blocks"], found["ulysses_degree"], found["taylorseer_order"]) == (4, 2, 2)
        assert found["max_warmup_steps"] == 8  # its own default
        assert any("max_warmup_stepz" in finding.message for finding in checked.findings)

    def test_a_file_of_configs_that_a_script_loads_is_known_only_to_a_run(self) -> None:
        checked = one(
            """
            import cache_dit
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
            cache_dit.enable_cache(pipe, **cache_dit.load_configs("cache.yaml"))
            """
        )
        assert said(checked)["engine"] == "cache-dit==1.5.3"
        assert checked.document is not None
        assert {"cache_dit", "ulysses_degree", "tensor_parallel_size"} <= checked.document.unknown

    def test_vllm_omni(self) -> None:
        checked = one(
            """
            from vllm_omni.entrypoints.omni import Omni
            from vllm_omni.diffusion.data import DiffusionParallelConfig
            from vllm_omni.inputs.data import OmniDiffusionSamplingParams
            omni = Omni(
                model="Qwen/Qwen-Image",
                parallel_config=DiffusionParallelConfig(ulysses_degree=2, cfg_parallel_size=2),
                cache_backend="cache_dit",
                cache_config={"Fn_compute_blocks": 2},
                vae_use_tiling=True,
                enforce_eager=True,
            )
            omni.generate("a cat", OmniDiffusionSamplingParams(height=512, width=512, num_inference_steps=20))
            """
        )
        found = said(checked)
        assert found["engine"].startswith("vllm-omni==")
        assert (found["ulysses_degree"], found["cfg_parallel_size"], found["Fn_compute_blocks"]) == (2, 2, 2)
        assert found["vae_use_tiling"] is True
        assert (found["height"], found["num_inference_steps"]) == (512, 20)
        node = checked.node.find(FIELDS["cfg_parallel_size"]) if checked.node else None
        assert isinstance(node, YamlNode)
        assert node.span.line == 7

    def test_sglang(self) -> None:
        checked = one(
            """
            from sglang.multimodal_gen import DiffGenerator
            options = dict(num_gpus=2, ulysses_degree=2, enable_torch_compile=True, dit_cpu_offload=False)
            generator = DiffGenerator.from_pretrained(model_path="Qwen/Qwen-Image", **options)
            generator.generate(sampling_params_kwargs={"prompt": "a cat", "height": 512, "width": 768})
            """
        )
        found = said(checked)
        assert found["engine"].startswith("sglang==")
        assert (found["gpus"], found["ulysses_degree"], found["compile"]) == (2, 2, True)
        assert (found["height"], found["width"]) == (512, 768)
        assert found["enable_cpu_offload"] is False

    def test_fastvideo_is_named(self) -> None:
        checked = one("from fastvideo import VideoGenerator\nmaker = VideoGenerator.from_pretrained('m', num_gpus=2)\n")
        assert checked.foreign
        assert [finding.message for finding in checked.findings] == [
            "not judged: FastVideo, of which nothing is known here"
        ]

    @pytest.mark.parametrize("call", ["xFuserArgs({0})", "xFuserModelRunner(dict({0}))"])
    def test_xdit(self, call: str) -> None:
        said_here = 'model="FLUX.1-dev", ulysses_degree=2, ring_degree=2, use_torch_compile=True, height=1024'
        text = f"from xfuser import xFuserArgs\nfrom xfuser.runner import xFuserModelRunner\n{call.format(said_here)}\n"
        found = said(one(text))
        assert found["engine"].startswith("xdit==")
        assert found["model"] == "black-forest-labs/FLUX.1-dev"
        assert (found["ulysses_degree"], found["ring_degree"], found["compile"], found["height"]) == (2, 2, True, 1024)
