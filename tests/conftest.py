"""Settings of all tests, and how several processes share them (``pytest -n 3``)."""

import gc
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# The first example reads the catalog, and CI machines are slow: a time limit an example would prove nothing.
settings.register_profile("omni", deadline=None)
settings.load_profile("omni")
gc.set_threshold(100_000, 50, 50)  # the libraries' objects live to the end


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium that Playwright drives. Where there is none the test is skipped, or fails where CI has said so."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        missing = "no Chromium on PATH; next: tests/browser.sh as root, or install one as your system does"
        if os.environ.get("OMNI_BROWSER_REQUIRED"):
            pytest.fail(missing)
        pytest.skip(missing)
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class _Scheduler(LoadScopeScheduling):
    """What shares something runs in one process: a module's tests, those of all modules with ``cases`` (which share
    a torchrun), and those that share a server."""

    def _split_scope(self, nodeid: str) -> str:
        return _shared(self.config.rootpath / nodeid.partition("::")[0])


@cache
def _shared(file: Path) -> str:
    if "\ndef cases(" in file.read_text(encoding="utf-8"):
        return "cases"
    return "serving" if file.parent.name == "serving" else str(file)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which engines were not run, as they are not installed."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = {str(one.longrepr[2]) for one in reports if isinstance(one.longrepr, tuple)}
    for reason in sorted(one for one in reasons if "omni engine install" in one):
        terminalreporter.write_line(reason.removeprefix("Skipped: "))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _Scheduler(config, log)
