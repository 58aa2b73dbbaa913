"""From a feature of the catalog to its module and back, and which model families there are."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from omni_config.catalog.load import catalog
from runtime import models
from runtime.errors import CannotRunError
from runtime.pipeline.apply import ORDER

FOLDER = Path(__file__).parents[2] / "runtime"


def test_each_feature_of_the_built_in_runtime_is_one_module() -> None:
    engine = catalog().engine("native")
    claimed = {name for claim in engine.pipelines.values() for name in (*claim.supported, *claim.only)}
    named = [name for feature in ORDER for name in feature.catalog]
    assert len(named) == len({*named})
    of_the_server = {
        name for claim in engine.pipelines.values() for name, where in claim.only.items() if where == "server"
    }
    assert {*named} == claimed - of_the_server
    assert of_the_server == {"step_execution"}
    assert {*named} <= {*catalog().features}


def test_every_module_is_applied_once_and_has_its_feature_s_name() -> None:
    files = {path.stem for path in (FOLDER / "features").glob("*.py")} - {"__init__", "feature"}
    assert sorted(feature.name for feature in ORDER) == sorted(files)
    for feature in ORDER:
        assert import_module(f"runtime.features.{feature.name}").FEATURE is feature


def test_every_pipeline_of_the_built_in_runtime_is_of_a_family_that_is_known() -> None:
    import diffusers

    for name in catalog().engine("native").pipelines:
        init = getattr(diffusers, name).__init__
        transformer = init.__annotations__["transformer"]
        transformer = transformer if isinstance(transformer, type) else next(iter(transformer.__args__))
        assert transformer.__name__ in {family.transformer for family in models.FAMILIES}, name


def test_another_transformer_is_refused_with_those_that_are_known() -> None:
    class OtherTransformer:
        pass

    with pytest.raises(CannotRunError, match="does not know OtherTransformer; it knows ChromaTransformer2DModel, CogV"):
        models.of(SimpleNamespace(transformer=OtherTransformer()))


def test_features_and_families_are_imported_without_a_library() -> None:
    script = (
        "import sys, runtime.pipeline.apply, runtime.models, runtime.compat; "
        "assert not {'torch', 'diffusers', 'cache_dit', 'transformers'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_nothing_of_ours_is_left_on_an_object_of_a_library() -> None:
    for path in FOLDER.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "._omni_" not in text, path
