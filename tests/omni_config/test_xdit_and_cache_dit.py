"""Commands of xDiT's runner and of cache-dit: what is understood of them, and that no combination of flags raises."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.export import export
from omni_config.checking.files import check_bytes
from omni_config.engines.cache_dit.read import CACHE_FLAGS, EXAMPLES, MODULES
from omni_config.engines.facts import Facts, Flag, facts_of
from omni_config.engines.xdit.read import models

XDIT = ["xdit==0.6", "xdit==0.7"]
CACHE_DIT = "cache-dit==1.5.3"
GENERATE = "torchrun --nproc_per_node=4 -m cache_dit.generate"


def read(text: str, engine: str) -> CheckResult:
    (checked,) = check_bytes("file", text.encode(), assume={"engine": engine})
    assert checked.foreign
    return checked


def codes(checked: CheckResult) -> set[str]:
    return {finding.code for finding in checked.findings if finding.severity == "error"}


def said(text: str) -> dict[str, Any]:
    checked = read(text, CACHE_DIT)
    assert codes(checked) == set()
    assert checked.resolution is not None
    return checked.resolution.settings


@pytest.mark.parametrize(
    "start", ["xdit", "torchrun --nproc_per_node=4 xfuser/runner.py", "torchrun --nproc-per-node 4 -m xfuser.runner"]
)
def test_the_runner_is_read_however_it_is_started(start: str) -> None:
    checked = read(f"{start} --model Wan2.2-TI2V --task t2v --ulysses_degree 2 --use_cfg_parallel\n", "xdit==0.7")
    assert checked.resolution is not None
    assert checked.resolution.settings["model"] == "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    assert codes(checked) == {"OMNI1301"}
    assert codes(read(f"{start} --model Wan2.2-TI2V --task i2v --ulysses_degree 4\n", "xdit==0.7")) == set()


def test_short_names_stand_for_what_the_runner_registers() -> None:
    assert models()["SD3.5"] == "stabilityai/stable-diffusion-3.5-large"
    assert models()["Wan2.1-VACE-14B"] == "Wan-AI/Wan2.1-VACE-14B-diffusers"
    assert models()["Lumina2"] == "Alpha-VLLM/Lumina-Image-2.0"
    assert "MiniMax-H3-Ref2VA" not in models()  # a class of its own without an id
    assert "Ideogram-4" not in models()  # of several checkpoints none has that name


@pytest.mark.parametrize(
    ("processes", "flags", "found"),
    [
        (8, "--pipefusion_parallel_degree 2 --ulysses_degree 4", set()),
        (8, "--pipefusion_parallel_degree 2 --ulysses_degree 2 --data_parallel_degree 2", set()),
        (8, "--pipefusion_parallel_degree 2 --ulysses_degree 2", {"OMNI135"}),
        (5, "--ulysses_degree 4 --dit_parallel_size 4 --vae_parallel_size 1", set()),
        (2, "--pipefusion_parallel_degree 2 --attn_layer_num_for_pp 10 9", set()),
        (2, "--pipefusion_parallel_degree 2 --attn_layer_num_for_pp 10 9 38", {"OMNI1301"}),
    ],
)
def test_stages_and_ranks_of_the_vae_count_in_the_product(processes: int, flags: str, found: set[str]) -> None:
    text = f"torchrun --nproc_per_node={processes} -m xfuser.runner --model FLUX.1-dev {flags}\n"
    assert codes(read(text, "xdit==0.7")) == found


@pytest.mark.parametrize("engine", XDIT)
@pytest.mark.parametrize(("more", "task"), [("", "t2v"), ("sampling: {image: a.png}\n", "i2v")])
def test_a_model_with_several_tasks_is_exported_with_one(engine: str, more: str, task: str) -> None:
    ours = f"version: 1\nmodel: Wan-AI/Wan2.2-TI2V-5B-Diffusers\nengine: {engine}\n{more}"
    (checked,) = check_bytes("file", ours.encode(), assume={})
    text, findings = export(checked)
    assert text is not None, findings
    assert f"--task {task}" in text
    assert codes(read(text, engine)) == set()
    assert codes(read(text.replace(f"--task {task}", ""), engine)) == {"OMNI5301"}


def test_the_generate_command_is_understood() -> None:
    settings = said(
        f"{GENERATE} wan2.2_t2v --model-path Wan-AI/Wan2.2-T2V-A14B-Diffusers --cpu-offload --parallel ulysses "
        "--cache --rdt 0.2 --steps 30 --float8\n"
    )
    expected = {
        "model": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "gpus": 4,
        "ulysses_degree": 4,
        "enable_cpu_offload": True,
        "cache_dit": True,
        "Fn_compute_blocks": 1,
        "residual_diff_threshold": 0.2,
        "num_inference_steps": 30,
        "quantization": "fp8",
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "degrees"),
    [
        ("tp", (1, 1, 4)),
        ("ring", (1, 4, 1)),
        ("usp", (2, 2, 1)),
        ("ulysses_tp", (2, 1, 2)),
        ("tp_ring", (1, 2, 2)),
    ],
)
def test_a_kind_of_parallelism_takes_all_processes(kind: str, degrees: tuple[int, int, int]) -> None:
    settings = said(f"{GENERATE} flux --parallel {kind}\n")
    assert tuple(settings[n] for n in ("ulysses_degree", "ring_degree", "tensor_parallel_size")) == degrees


def test_a_text_encoder_that_is_shared_is_not_kept_whole() -> None:
    text = "parallelism_config:\n  tp_size: 2\n"
    assert "OMNI116" in {finding.code for finding in read(text, CACHE_DIT).findings}
    shared = text + '  extra_parallel_modules: ["text_encoder"]\n'
    assert "OMNI116" not in {finding.code for finding in read(shared, CACHE_DIT).findings}


def test_a_list_of_examples_is_no_deployment() -> None:
    assert not any(
        checked.foreign for checked in check_bytes("file", b"python -m cache_dit.generate list\n", assume={})
    )


def test_an_example_that_is_not_there_is_an_error() -> None:
    (finding,) = (f for f in read(f"{GENERATE} flux_1\n", CACHE_DIT).findings if f.severity == "error")
    assert (finding.code, finding.message) == ("OMNI612", "cache-dit has no example flux_1")
    assert finding.next_step == "did you mean flux?"


def test_two_calibrators_exclude_each_other() -> None:
    text = "cache_config:\n  enable_taylorseer: true\n  enable_dmd: {}\n"
    assert codes(read(text.format("true"), CACHE_DIT)) == {"OMNI2401"}
    assert codes(read(text.format("false"), CACHE_DIT)) == set()


def test_every_example_and_flag_is_one_that_the_version_has() -> None:
    facts = facts_of(CACHE_DIT)
    assert facts is not None
    registered = {name.partition(" ")[2] for name in facts.pipelines if name.startswith("ExampleRegister ")}
    assert EXAMPLES.keys() == registered
    assert all(facts.flag(name) for name in (*CACHE_FLAGS, *MODULES))


def value(flag: Flag, rng: random.Random) -> str:
    if flag.choices:
        return str(rng.choice(flag.choices))
    numbers = {"int": (0, 1, 2, 3, 4, 8, 49), "float": (0, 0.1, 1.0, 4.0)}
    return str(rng.choice(numbers.get(flag.type or "", ("a", "2", "true", "x.json", "flash_3"))))


def command(facts: Facts, start: str, rng: random.Random) -> str:
    words = []
    for name in rng.sample(sorted(name for name, *_ in facts.flags), rng.randint(1, 8)):
        flag = facts.flag(name)
        assert flag is not None
        most = flag.most_values
        words += [name, *(value(flag, rng) for _ in range(rng.randint(1, 3) if most is None else most))]
    return f"torchrun --nproc_per_node={rng.choice((1, 2, 3, 4, 8))} -m {start} {' '.join(words)}\n"


@pytest.mark.parametrize("engine", [*XDIT, CACHE_DIT])
def test_no_combination_of_flags_raises(engine: str) -> None:
    facts = facts_of(engine)
    assert facts is not None
    names = sorted({name for pipeline in facts.pipelines.values() for name in pipeline.get("names", ())})
    rng = random.Random(20)
    for _ in range(300):
        start = (
            f"xfuser.runner --model {rng.choice(names)}" if names else f"cache_dit.generate {rng.choice([*EXAMPLES])}"
        )
        read(command(facts, start, rng), engine)


def test_no_combination_of_keys_raises() -> None:
    asked = {name for rule in catalog().rules if "cache-dit" in rule.engines for name, _ in rule.names()}
    keys = sorted(name.removeprefix("their_") for name in asked if name.startswith("their_"))
    values = (None, True, False, 0, 1, 2, 0.5, "auto", "fast", "svdq_int4_r32_dq", [1], ["vae"], {"a": 1})
    rng = random.Random(20)
    for _ in range(300):
        tree = {
            section: {key: rng.choice(values) for key in rng.sample(keys, rng.randint(1, 6))}
            for section in rng.sample(("cache_config", "parallelism_config", "quantize_config"), rng.randint(1, 3))
        }
        read(yaml.safe_dump(tree), CACHE_DIT)
