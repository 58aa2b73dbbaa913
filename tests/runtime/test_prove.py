"""Proofs: a config is compared with the plain pipeline, and a comparison that could not fail is no proof."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import DBCACHE, tiny
from safetensors.torch import save_file
from test_vae import plan as tiled

from omni_config.plan import CacheDiT, Lora, Mesh, Plan, TeaCache
from runtime import Proof, prove_all
from runtime.proof.random_pipelines import adapter, transformer_of

pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).parents[2]


ALWAYS = TeaCache(100.0, (0.0, 0.0, 0.0, 1.0, 0.0))


def cached(cache: TeaCache | CacheDiT, steps: int = 20) -> Plan:
    plan = tiny(mesh=Mesh(ulysses=2), cache=cache)
    return replace(plan, sampling=replace(plan.sampling, num_inference_steps=steps))


PLANS = {
    "parallel": tiny(mesh=Mesh(tensor=2), offload="layerwise"),
    "cached": cached(DBCACHE),
    "cached too much": cached(ALWAYS),
    "never cached": cached(DBCACHE, steps=4),
    "tiled": tiled(Mesh(ulysses=2), ranks=2),
    "plain": tiny(),
    "tiles alone": tiled(Mesh()),
    "adapter alone": replace(tiny(), lora=[Lora("lora-0.safetensors", 0.7)]),
    "adapter of another kind": replace(tiny(), lora=[Lora("lokr.safetensors", 0.7)]),
    "of another class": replace(tiny(), model=replace(tiny().model, pipeline="FluxPipeline")),
}


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Proof]:
    folder = tmp_path_factory.mktemp("adapters")
    adapter(transformer_of("tiny"), folder)
    lokr = {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(72, 72)}
    layer = "transformer.layers.0.attention.to_q"
    save_file({f"{layer}.{name}": weight for name, weight in lokr.items()}, folder / "lokr.safetensors")
    seen: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(folder)
        result = prove_all(PLANS, on_progress=lambda done, all_: seen.append((done, all_)))
    runs = len(PLANS) + len({json.dumps(plan.plain().to_dict()) for plan in PLANS.values()})
    assert sorted(seen) == [(done, runs) for done in range(1, runs + 1)]
    return result


@pytest.mark.parametrize("name", ["parallel", "cached", "tiled", "tiles alone", "adapter alone"])
def test_what_is_right_is_proven(proofs: dict[str, Proof], name: str) -> None:
    proof = proofs[name]
    assert proof.problem is None
    assert proof.passed
    assert proof.distance is not None
    assert proof.bound.holds(proof.distance)
    assert set(proof.controls) == ({"transformer", "vae"} if name.startswith("tile") else {"transformer"})
    assert not any(proof.bound.holds(control) for control in proof.controls.values())
    assert proof.plan == PLANS[name].to_dict()
    assert 0 < proof.seconds < 600
    assert proof.versions["diffusers"] == "0.42.1"


def test_bounds_are_those_of_the_kind(proofs: dict[str, Proof]) -> None:
    assert (proofs["parallel"].kind, proofs["parallel"].bound.difference) == ("lossless", 1e-4)
    assert (proofs["tiled"].kind, proofs["tiled"].bound.psnr) == ("lossless", 48.0)
    assert (proofs["tiles alone"].kind, proofs["tiles alone"].bound.psnr) == ("tiles", 20.0)
    assert proofs["adapter alone"].bound == proofs["parallel"].bound
    assert (proofs["cached"].kind, proofs["cached"].bound.psnr) == ("cache", 35.0)
    assert proofs["cached"].features["cache_dit"]["cached_steps"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("cached too much", "dB from that of the plain pipeline, and 35 are needed"),
        ("never cached", "no step was cached, so nothing was compared"),
        ("plain", "there is nothing to compare"),
        ("adapter of another kind", "other weights than lora_A and lora_B, so it cannot be proven alone"),
        ("of another class", "holds a ZImagePipeline, and the model card of tiny says FluxPipeline"),
    ],
)
def test_what_is_not_is_not(proofs: dict[str, Proof], name: str, problem: str) -> None:
    assert not proofs[name].passed
    assert problem in str(proofs[name].problem)
    assert "\n" not in str(proofs[name].problem)


def test_json_has_no_numbers_that_json_has_not(proofs: dict[str, Proof]) -> None:
    for proof in proofs.values():
        json.dumps(proof.to_dict(), allow_nan=False)
    assert proofs["never cached"].to_dict()["bound"] == {"difference": None, "psnr": 35.0}
    assert math.isinf(proofs["never cached"].bound.difference)


COMMAND = [sys.executable, "-m", "omni_config", "prove", "examples/quickstart.yaml"]


def test_the_command_proves_the_quickstart() -> None:
    done = subprocess.run([*COMMAND, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True


@pytest.mark.slow
def test_the_command_fails_where_nothing_is_proven() -> None:
    few = [*COMMAND, "--num-inference-steps", "4"]
    done = subprocess.run(few, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "not proven: no step was cached" in done.stdout
