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
from cases import FEW_RANKS, Result, run, tiny

from omni_config.plan import Mesh, Plan
from runtime import Report, launch

HOOKED_WORKER = Path(__file__).with_name("hooked_worker.py")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two ranks with Ulysses, 8 steps of 64 px, guidance on."""
    result = tiny(mesh=Mesh(ulysses=2), output=str(tmp_path / "outputs"))
    return replace(result, sampling=replace(result.sampling, num_inference_steps=8))


@pytest.fixture(scope="session")
def _all_results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """The cases of all modules that run now, under one torchrun, as starting it costs as much as ten of them.

    Cases of many ranks are for slow tests only.
    """
    folder = tmp_path_factory.mktemp("cases")
    modules = {item.module for item in request.session.items if hasattr(item.module, "cases")}
    most = FEW_RANKS if request.config.option.markexpr == "not slow" else 8
    table = {
        f"{module.__name__}.{name}": case
        for module in modules
        for name, case in module.cases(folder).items()
        if case.plan.mesh.world_size <= most
    }
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results = run(table)
    monkeypatch.undo()
    return results


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, _all_results: Callable[[str], Result]) -> Callable[[str], Result]:
    """The result of one of this module's cases."""
    return lambda name: _all_results(f"{request.module.__name__}.{name}")


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
