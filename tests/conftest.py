"""Settings of all tests, and how several processes share them (``pytest -n 3``)."""

import gc
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# The first example reads the catalog, and CI machines are slow: a time limit an example would prove nothing.
settings.register_profile("omni", deadline=None)
settings.load_profile("omni")
gc.set_threshold(100_000, 50, 50)  # the libraries' objects live to the end


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


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _Scheduler(config, log)
