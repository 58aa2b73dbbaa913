"""Plans of the embedded model, and real torchrun launches whose workers take hooks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from omni_config.plan import Cache, Mesh, Model, Plan, Sampling, Vae
from runtime import Report, launch

HOOKED_WORKER = Path(__file__).with_name("hooked_worker.py")

DBCACHE = {
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "max_warmup_steps": 4,
    "max_cached_steps": -1,
    "max_continuous_cached_steps": 3,
    "residual_diff_threshold": 0.24,
    "enable_taylorseer": False,
    "taylorseer_order": 1,
    "scm_steps_mask_policy": None,
    "scm_steps_policy": "dynamic",
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two ranks with Ulysses, 8 steps of 64 px, guidance on."""
    return Plan(
        version=1,
        engine="native",
        model=Model("tiny", "tiny", "ZImagePipeline", "text_to_image", "float32"),
        mesh=Mesh(ulysses=2),
        cache=Cache("none", {}),
        offload="none",
        vae=Vae(use_tiling=False, use_slicing=False, patch_parallel_size=1),
        sampling=Sampling("a red star on a white background", "blue", None, 64, 64, 8, {"guidance_scale": 2.0}, 7),
        output=str(tmp_path / "outputs"),
    )


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def run_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where launches make their run folders, so that a test finds their processes by it."""
    folder = tmp_path_factory.mktemp("runs")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def processes(run_folders: Path) -> Callable[[], list[str]]:
    """The command lines of living processes of this test's launches."""

    def find() -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(run_folders) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(line)
        return found

    return find


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Report, dict[int, np.ndarray]]]:
    """Launch with hooks (see hooked_worker.py); the report, and the last latents of each rank."""

    def run(plan: Plan, *, timeout: float = 120.0, **hooks: Any) -> tuple[Report, dict[int, np.ndarray]]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        monkeypatch.setenv("OMNI_TEST_HOOKS", json.dumps({"latents": str(folder), **hooks}))
        report = launch(plan, timeout=timeout, worker=HOOKED_WORKER)
        return report, {rank: np.load(folder / f"{rank}.npy") for rank in range(plan.mesh.world_size)}

    return run


def single(plan: Plan) -> Plan:
    """The one-process twin of a plan."""
    return replace(plan, mesh=Mesh())
