"""Attention backends, compilation and precision: other kernels, the same latents, and it shows that they ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cases import Case, Result, tiny, tiny_qwen

from omni_config.plan import Mesh, TeaCache
from runtime.errors import CannotRunError
from runtime.pipeline import apply, load
from runtime.ranks import generate

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-5
COMPILED_BOUND = 1e-4  # fused kernels round in another order
BFLOAT16_BOUND = 0.15  # of latents between -4 and 4; bfloat16 has 8 bits, so each number near 4 is 0.016 off

COMPILED = "ulysses-2"  # the other pairs, and pipelines, take long: test_pipelines.py has them
ATTENTION = {
    "_native_math": ("_native_math", Mesh()),
    "flex": ("flex", Mesh()),
    "_native_math tensor-2": ("_native_math", Mesh(tensor=2)),
    "_native_flash cfg-2": ("_native_flash", Mesh(cfg=2)),  # it takes no mask, so one prompt a rank
}
SEQUENCE = {"ulysses-2 of uneven parts": Mesh(ulysses=2), "ring-2 of uneven parts": Mesh(ring=2)}
MESHES = {"ulysses-2": Mesh(ulysses=2), "tensor-2": Mesh(tensor=2)}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    plan = tiny()
    table = {"tiny": Case(plan)}
    for name, (backend, mesh) in ATTENTION.items():
        table[name] = Case(replace(plan, attention_backend=backend, mesh=mesh))
    half = replace(plan, model=replace(plan.model, dtype="bfloat16"))
    table["bfloat16"] = Case(half)
    table |= {f"bfloat16 {name}": Case(replace(half, mesh=mesh), whole=True) for name, mesh in MESHES.items()}
    table["float16"] = Case(replace(plan, model=replace(plan.model, dtype="float16")))
    table["ulysses-2"] = Case(replace(plan, mesh=Mesh(ulysses=2)))
    table["compiled"] = Case(replace(table[COMPILED].plan, compile=True))
    always = TeaCache(100.0, (0.0, 0.0, 0.0, 1.0, 0.0))
    table["compiled and cached"] = Case(replace(plan, compile=True, cache=always))
    table["tiny-qwen"] = Case(tiny_qwen())
    table["compiled tensor-2"] = Case(tiny_qwen(compile=True, mesh=Mesh(tensor=2)))
    table |= {f"compiled {name}": Case(tiny_qwen(compile=True, mesh=mesh)) for name, mesh in SEQUENCE.items()}
    return table


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_backends_compute_the_same(results: Results, name: str) -> None:
    own = results(name)
    assert own.distance(results("tiny")) <= BOUND
    measured = own.measured("attention_backend")
    assert measured["backend"] == ATTENTION[name][0]
    assert measured["calls"] == 4 * (6 + 1 + 1)  # steps, layers, refiners
    if ATTENTION[name][1].world_size > 1:
        assert own.distance(results("tiny"), "broken") > 10 * BOUND


@pytest.mark.parametrize(
    ("name", "cause"), [("sage", "install `sageattention"), ("_native_cudnn", "No viable backend")]
)
def test_a_backend_that_this_machine_lacks_is_refused_in_one_line(name: str, cause: str) -> None:
    plan = tiny(attention_backend=name)
    with pytest.raises(CannotRunError, match=f"{name} cannot run on cpu in float32: .*{cause}.*native") as caught:
        apply.apply(load.pipeline(plan), plan, None)
    assert "\n" not in str(caught.value)


def test_compiled_blocks_compute_the_same(results: Results) -> None:
    assert results("compiled").distance(results(COMPILED)) <= COMPILED_BOUND
    assert results("compiled").distance(results("tiny"), "broken") > 10 * COMPILED_BOUND


def test_compiled_code_ran(results: Results) -> None:
    own = results("compiled")
    measured = own.measured("compile")
    assert measured["graphs"] >= 1
    assert measured["graph_runs"] >= own.ranks[0].steps_computed * 6  # layers


def test_a_step_cache_does_not_make_blocks_compile_again(results: Results) -> None:
    own = results("compiled and cached")
    assert own.ranks[0].steps_computed == 2  # the first and the last of four
    refiners, layers = 2, 6
    assert own.measured("compile") == {"graphs": 3, "graph_runs": 4 * refiners + 2 * layers}


@pytest.mark.parametrize("name", SEQUENCE)
def test_blocks_are_compiled_around_attention_over_ranks(results: Results, name: str) -> None:
    own, plain = results(f"compiled {name}"), results("tiny-qwen")
    assert own.distance(plain) <= COMPILED_BOUND
    assert own.distance(plain, "broken") > 10 * COMPILED_BOUND
    branches, steps, layers = 2, 4, 7  # the first layer is compiled apart, within the hooks that split its tokens
    compiled = {"graphs": 2 * branches, "graph_runs": branches * steps * layers}
    assert [rank.features["compile"] for rank in own.ranks] == [compiled, compiled]


def test_blocks_split_over_tensor_ranks_are_compiled_for_each_length_of_a_prompt(results: Results) -> None:
    own, plain = results("compiled tensor-2"), results("tiny-qwen")
    assert own.distance(plain) <= COMPILED_BOUND
    assert own.distance(plain, "broken") > 10 * COMPILED_BOUND
    assert own.measured("compile") == {"graphs": 2, "graph_runs": 2 * 4 * 7}  # branches, steps, layers


def test_blocks_that_were_compiled_twice_take_any_size() -> None:
    plan = tiny_qwen(compile=True)
    pipe = load.pipeline(plan)
    compiled = apply.apply(pipe, plan, None)["compile"]
    graphs = []
    for prompt, pixels in (("a", 64), ("a cat", 64), ("a cat", 128), ("a dog on a red mat", 96), ("blue", 160)):
        sampling = replace(plan.sampling, prompt=prompt, width=pixels, height=pixels, num_inference_steps=1)
        own = replace(plan, sampling=sampling)
        generate.call(pipe, own, **generate.arguments(own))
        graphs.append(compiled.measure()["graphs"])
    assert graphs[-3:] == [graphs[2]] * 3  # both the prompt's length and the picture's size have changed once


def test_without_a_compiler_it_is_refused_in_one_line() -> None:
    from torch._inductor import config

    plan = tiny(compile=True)
    refused = pytest.raises(CannotRunError, match=r"compile needs a C\+\+ compiler; next: install")
    with config.patch("cpp.cxx", ("no-such-compiler",)), refused as caught:
        apply.apply(load.pipeline(plan), plan, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MESHES)
def test_in_bfloat16_several_ranks_compute_what_one_computes(results: Results, name: str) -> None:
    alone, own = results("bfloat16"), results(f"bfloat16 {name}")
    assert own.distance(alone) <= BFLOAT16_BOUND
    assert own.distance(alone, "broken") > 2 * BFLOAT16_BOUND


def test_precisions_differ_and_stay_close(results: Results) -> None:
    for name in ("bfloat16", "float16"):
        assert BOUND < results(name).distance(results("tiny")) < 0.5
