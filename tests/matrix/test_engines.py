"""Engines that are run: what a run shows, the processes that run it, and, where one is installed, the engine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from matrix.engines import evidence
from matrix.engines.drawn import LONG, configs
from matrix.engines.environments import Environment, NoEnvironment, environment, environments, install
from matrix.engines.judge import OUTCOMES, Judged, Measured, judged, psnr
from matrix.engines.prove import card_of, cells_of, run_trials, trial_of_cell
from matrix.engines.server import Case, Ran, started
from matrix.engines.small import COMMIT, Small, lay_out, small
from matrix.engines.trial import LONGEST, trial
from matrix.evidence import key
from omni_config.catalog.load import catalog

Z_IMAGE, FLUX = "Tongyi-MAI/Z-Image", "black-forest-labs/FLUX.1-dev"
WORK = {"sequences": 10, "tokens": 100, "parameters": 100, "decoder_work": 100, "decoder_calls": 1}


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small(Z_IMAGE, tmp_path_factory.mktemp("small"))


def image(value: int = 0, size: int = 8) -> dict[str, np.ndarray]:
    return {"image": np.full((1, size, size, 3), value, np.uint8)}


def ran(value: int = 0, control: int = 200, **changes: object) -> Ran:
    return replace(Ran(work=(WORK,), images=image(value) | {"transformer": image(control)["image"]}), **changes)


def told(run: Ran, *features: str, reference: Ran | None = None, bare: Ran | None = None, **settings: int) -> Judged:
    one = ran() if reference is None else reference
    return judged(Measured.of(run, one, one if bare is None else bare), settings, features, rounding=40.0)


class TestWhatARunShows:
    def test_an_image_that_is_the_same_is_equal(self):
        assert told(ran(work=({**WORK, "tokens": 50},)), "ulysses", ulysses_degree=2).outcome == "equal"

    def test_rounding_is_equal_and_a_larger_difference_is_wrong(self):
        assert told(ran(1), "vae_slicing").outcome == "equal"
        assert told(ran(20), "vae_slicing").outcome == "wrong"

    def test_a_cache_may_change_more(self):
        saving = {**WORK, "tokens": 60}
        assert told(ran(20, work=(saving,)), "cache_dit").outcome == "near"
        assert told(ran(20), "cache_dit").outcome == "not shown"  # it skipped nothing
        assert told(ran(150, work=(saving,)), "cache_dit").outcome == "wrong"

    def test_ranks_that_compute_all_of_it_ignore_the_degree(self):
        found = told(ran(), "ulysses", "vae_slicing", ulysses_degree=2)
        assert (found.outcome, found.ignored) == ("ignored", ("ulysses",))

    def test_a_degree_that_shares_less_than_all_is_not_ignored(self):
        assert told(ran(work=({**WORK, "tokens": 78},)), "ulysses", ulysses_degree=2).outcome == "equal"

    def test_the_degree_that_is_ignored_is_told_from_the_others(self):
        both = {"ulysses_degree": 4, "cfg_parallel_size": 2}
        one_branch, quarter = {"sequences": 5, "tokens": 52}, {"sequences": 10, "tokens": 25}
        assert told(ran(work=({**WORK, **one_branch},)), "ulysses", "cfg_parallel", **both).ignored == ("ulysses",)
        assert told(ran(work=({**WORK, **quarter},)), "ulysses", "cfg_parallel", **both).ignored == ("cfg_parallel",)
        assert (
            told(ran(work=({**WORK, "sequences": 5, "tokens": 13},)), "ulysses", "cfg_parallel", **both).ignored == ()
        )

    def test_a_degree_that_is_ignored_beside_a_cache_is_told_where_the_images_are_equal(self):
        asks = {**WORK, "cache_decisions": 8}
        found = told(ran(work=(asks,)), "tea_cache", "ulysses", reference=ran(work=(asks,)), ulysses_degree=2)
        assert found.ignored == ("ulysses",)

    def test_weights_that_every_rank_holds_are_not_sharded(self):
        assert told(ran(), "hsdp").outcome == "ignored"
        assert told(ran(work=({**WORK, "parameters": 50},) * 2), "hsdp").outcome == "equal"

    def test_a_decode_that_every_rank_does_is_not_shared(self):
        assert told(ran(), "vae_patch_parallel").outcome == "ignored"

    def test_tiles_are_more_calls_of_the_decoder(self):
        assert told(ran(20), "vae_tiling").ignored == ("vae_tiling",)
        assert told(ran(20, work=({**WORK, "decoder_calls": 4},)), "vae_tiling").outcome == "near"

    def test_stages_work_with_what_is_a_step_old(self):
        halves = ({**WORK, "tokens": 50},) * 2
        assert told(ran(20, work=halves), "pipeline_parallel", pipeline_parallel_size=2).outcome == "near"
        assert told(ran(20), "pipeline_parallel", pipeline_parallel_size=2).outcome == "ignored"

    def test_an_adapter_must_change_the_image(self):
        assert told(ran(), "lora").outcome == "ignored"
        assert told(ran(20), "lora").outcome == "not shown"

    def test_an_adapter_is_the_same_for_one_process_and_for_several(self):
        shared = {**WORK, "tokens": 50}
        assert told(ran(20, work=(shared,) * 2), "lora", "ulysses", ulysses_degree=2).outcome == "wrong"

    def test_teacache_that_no_step_asks_is_ignored(self):
        asks = {**WORK, "cache_decisions": 8}
        assert told(ran(work=(asks,)), "tea_cache", reference=ran(work=(asks,))).outcome == "not shown"
        idle = ran(work=({**WORK, "cache_decisions": 0},))
        assert told(idle, "tea_cache", reference=idle).outcome == "ignored"

    def test_weights_that_are_not_shared_are_told_where_damage_on_the_last_rank_is_not_noticed(self):
        assert told(ran(control=0), "tensor_parallel").outcome == "ignored"

    def test_damage_that_nobody_notices_proves_nothing(self):
        assert told(ran(control=0), "vae_slicing").outcome == "not shown"

    def test_an_error_is_a_refusal_with_its_moment(self):
        found = told(ran(error="ValueError: no", moment="arguments"), "ring")
        assert (found.outcome, found.moment, found.why) == ("refused", "arguments", "ValueError: no")

    def test_an_error_that_one_process_has_too_shows_nothing(self):
        broken = ran(error="OSError: no file", moment="load")
        assert told(broken, "ring", reference=broken).outcome == "not shown"
        assert told(ran(error="ValueError: no", moment="arguments"), "ring", reference=broken).outcome == "refused"

    def test_what_does_not_end_hangs(self):
        assert told(ran(hung=True, error="no end", moment="later"), "ring").outcome == "hangs"

    def test_an_image_of_another_size_is_wrong(self):
        assert told(ran(images=image(size=4)), "ring").outcome == "wrong"

    def test_distances(self):
        assert psnr(image()["image"], image()["image"]) == float("inf")
        assert psnr(image(1)["image"], image()["image"]) == pytest.approx(48.13, abs=0.01)


class TestTrials:
    engine = card_of(environment("xdit"))

    def test_the_command_is_the_exported_one(self, z_image):
        made = trial(z_image, self.engine, {"ulysses_degree": 2})
        assert made.command.startswith(f"xdit --model {Z_IMAGE} ")
        assert made.command.endswith("--ulysses_degree 2")
        assert (made.verdict, made.ranks, made.features) == ("runs", 2, ("ulysses",))

    def test_the_rules_judge_the_sizes_of_the_small_model(self, z_image):
        assert z_image.card.dims["num_attention_heads"] == 6
        assert catalog().model(Z_IMAGE).dims["num_attention_heads"] == 30

    def test_the_reference_keeps_what_changes_the_image(self, z_image):
        made = trial(z_image, self.engine, {"ulysses_degree": 2, "cache_dit": True})
        reference, bare = made.reference(1), made.bare(1)
        assert "--cache_method" in reference.argv
        assert "--ulysses_degree" not in reference.argv
        assert "--cache_method" not in bare.argv
        assert trial(z_image, self.engine, {"cache_dit": True}).reference(1).argv == bare.argv

    def test_what_the_engine_has_no_words_for_is_refused(self, z_image):
        made = trial(z_image, self.engine, {"enable_layerwise_offload": True})
        assert (made.verdict, made.unsaid) == ("refused", ("enable_layerwise_offload",))
        both = trial(z_image, self.engine, {"cache_dit": True, "tea_cache": True})
        assert both.unsaid == ("tea_cache",)

    def test_variables_of_a_command_are_told_apart(self, z_image):
        made = trial(z_image, card_of(environment("sglang")), {"cache_dit": True})
        assert made.variables == {"SGLANG_CACHE_DIT_ENABLED": "true"}
        assert made.argv[0] == "--model-path"

    def test_a_server_is_asked_after_it_is_started(self, z_image):
        engine = card_of(environment("vllm-omni"))
        made = trial(z_image, engine, {"ulysses_degree": 2, "cfg_scale": 4.0})
        assert made.command.startswith(f"vllm serve {Z_IMAGE} --omni --usp 2 --request --prompt 'a red circle'")
        assert made.ranks == 2

    @pytest.mark.parametrize(
        ("asked", "ranks"),
        [
            ({"allgather_degree": 2}, 2),
            ({"use_hsdp": True, "hsdp_shard_size": 2}, 2),
            ({"use_hsdp": True, "hsdp_shard_size": 2, "ulysses_degree": 2}, 2),
            ({"use_hsdp": True, "hsdp_shard_size": 2, "hsdp_replicate_size": 2}, 4),
        ],
    )
    def test_ranks_are_those_that_vllm_omni_starts(self, z_image, asked, ranks):
        assert trial(z_image, card_of(environment("vllm-omni")), asked).ranks == ranks

    def test_vllm_omni_gets_an_adapter_as_a_folder(self, z_image):
        made = trial(z_image, card_of(environment("vllm-omni")), {"lora": ({},)})
        folder = Path(made.settings["lora"][0]["path"])
        assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}

    def test_tiles_that_vllm_omni_switches_on_are_in_the_reference_too(self, z_image):
        made = trial(z_image, card_of(environment("vllm-omni")), {"ulysses_degree": 2, "vae_patch_parallel_size": 2})
        assert "--vae-use-tiling" in made.reference(1).argv
        assert "--vae-patch-parallel-size" not in made.reference(1).argv

    def test_cells_are_single_features_pairs_and_parallel_triples(self):
        cells = list(cells_of(["quantization"]))
        assert ("ulysses",) in cells
        assert ("ulysses", "ring", "hsdp") in cells
        assert not any("quantization" in names for names in cells)

    def test_a_decode_that_all_ranks_share_is_asked_for_with_all(self, z_image):
        made = trial_of_cell(z_image, self.engine, ("ring", "vae_patch_parallel"))
        assert made is not None
        assert made.unsaid == ()
        assert made.settings["vae_patch_parallel_size"] == made.ranks

    def test_drawn_configs_are_the_same_each_time_and_of_few_ranks(self, z_image):
        def drawn(seed: int) -> list[str]:
            made = configs([z_image], self.engine, environment("xdit").described["beyond"], seed)
            return [next(made).command for _ in range(5)]

        assert drawn(1) == drawn(1) != drawn(2)
        made = configs([z_image], self.engine, {}, 0)
        assert all(next(made).ranks <= LONGEST for _ in range(20))


FAKE = """
    import os, time
    import numpy as np

    def prepare(without):
        return {"versions": {"fake": "1"}, "standins": [name for name in ("one", "two") if name not in without]}

    def processes(case):
        return case["ranks"]

    def run(case, rank):
        word, last = case["argv"][0], rank.rank == case["ranks"] - 1
        rank.moment("load")
        if word == "refuse" and last:
            raise ValueError("no such thing")
        if word == "die":
            os.kill(os.getpid(), 9)
        if word in ("hang", "refuse"):
            time.sleep(60)
        print("hub at", os.environ["HF_HUB_CACHE"])
        np.save(rank.folder / f"image.{rank.rank}.npy", np.full((1, 2, 2, 3), rank.rank, np.uint8))
        return {"works": [{"tokens": rank.rank}], "backend": os.environ.get("VARIABLE", "")}
"""


@dataclass(frozen=True)
class Fake(Environment):
    """An environment that is this one, with an adapter of a few lines."""

    home: Path = Path()

    code = property(lambda self: self.home)
    python = property(lambda _: Path(sys.executable))
    is_installed = property(lambda _: True)
    described = property(lambda _: {"names": {}, "places": 2})


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    (tmp_path / "adapter.py").write_text(textwrap.dedent(FAKE))
    return Fake("fake==1", "fake==1", {}, {}, home=tmp_path)


class TestTheProcessesOfAnEngine:
    def test_cases_run_side_by_side_and_come_back_by_name(self, fake):
        with started(fake, []) as server:
            found = dict(server.run({str(ranks): Case(("run",), ranks) for ranks in (1, 2, 3)}))
        assert {name: [work["tokens"] for work in one.work] for name, one in found.items()} == {
            "1": [0],
            "2": [0, 1],
            "3": [0, 1, 2],
        }
        assert found["3"].images["image"].max() == 2  # of the last rank
        assert server.versions == {"fake": "1"}

    def test_the_error_is_that_of_the_rank_that_failed_by_itself(self, fake):
        with started(fake, []) as server:
            (one,) = dict(server.run({"": Case(("refuse",), 2)})).values()
        assert (one.error, one.moment, one.hung) == ("ValueError: no such thing", "load", False)
        assert one.seconds < 30  # the other rank would have slept for longer

    def test_a_process_that_is_killed_and_one_that_hangs_are_told(self, fake):
        with started(fake, []) as server:
            found = dict(server.run({"die": Case(("die",), 1), "hang": Case(("hang",), 1, timeout=1)}))
        assert found["die"].error == "killed by SIGKILL"
        assert (found["hang"].hung, found["hang"].moment) == (True, "load")

    def test_variables_and_stand_ins_are_passed_on(self, fake):
        with started(fake, [], without=("one",)) as server:
            assert server.standins == ["two"]
            (one,) = dict(server.run({"": Case(("run",), 1, variables={"VARIABLE": "yes"})})).values()
        assert one.backend == "yes"

    def test_an_engine_that_does_not_start_says_why(self, fake):
        (fake.home / "adapter.py").write_text("import no_such_module")
        with pytest.raises(NoEnvironment, match="no_such_module"), started(fake, []):
            pass

    def test_an_engine_that_is_not_installed_says_what_to_do(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(NoEnvironment, match=r"omni engine install xdit==0\.7"), started(environment("xdit"), []):
            pass


class TestEnvironments:
    def test_each_is_of_an_engine_that_has_a_card_and_is_pinned(self):
        for name, one in environments().items():
            assert catalog().engine(name) is not None
            assert all("==" in package for package in (one.package, *one.own, *one.shared))
            assert one.package in one.own
            said = {"models", "names", "beyond", "places", "plain", "rounding"}
            said |= {"command", "serves", "lora", "shards_are_ranks", "beside"}
            assert {*one.described} - {"not_run"} == said

    def test_a_name_may_have_no_version_or_a_fuller_one(self):
        assert environment("xdit").engine == environment("xdit==0.7.0").engine == "xdit==0.7"
        with pytest.raises(NoEnvironment, match=r"no environment for xdit==0\.5"):
            environment("xdit==0.5")

    def test_an_install_fails_with_the_last_line_of_pip(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        missing = Environment("none==1", "none==1", {"no-such-package-at-all==1": 1}, {})
        with pytest.raises(NoEnvironment, match="could not install no-such-package-at-all==1"):
            install(missing, lambda *_: None)
        assert not missing.is_installed

    def test_small_models_lie_under_published_names(self, z_image, tmp_path):
        lay_out([z_image], tmp_path, {"ZImagePipeline": {"n_heads": "num_attention_heads"}})
        snapshot = tmp_path / "models--Tongyi-MAI--Z-Image" / "snapshots" / COMMIT
        assert (snapshot / "model_index.json").is_file()
        assert json.loads((snapshot / "transformer" / "config.json").read_text())["num_attention_heads"] == 6
        assert "num_attention_heads" not in (z_image.folder / "transformer" / "config.json").read_text()


ENTRIES = [(engine, model, cell, one) for engine, model, all_ in evidence.everything() for cell, one in all_.items()]


class TestEvidence:
    def test_there_is_some_of_every_engine_and_it_is_of_this_code(self):
        assert {engine for engine, _, _, _ in ENTRIES} == {*environments()}
        assert {one.stale() for _, _, _, one in ENTRIES} == {""}

    def test_an_entry_is_stale_where_a_version_or_a_stand_in_changes(self):
        _, _, _, one = ENTRIES[0]
        assert "torch changed" in replace(one, versions={"torch": "1.0"}).stale()
        changed = dict.fromkeys(one.code, "0")
        assert all(name in replace(one, code=changed).stale() for name in changed)

    def test_nothing_that_the_rules_let_through_is_refused_by_the_engine(self):
        assert [(engine, model, cell) for engine, model, cell, one in ENTRIES if not one.agrees] == []

    @pytest.mark.parametrize("engine", environments())
    def test_the_rules_say_of_each_cell_what_they_said_when_it_was_run_by_the_same_command(self, engine, tmp_path):
        one, changed = environment(engine), []
        for model in one.described["models"]:
            subject, entries = small(model, tmp_path), evidence.read(engine, model)
            for names in cells_of(one.described["beyond"]):
                made, entry = trial_of_cell(subject, card_of(one), names), entries.get(key(names))
                if made is not None and entry is not None:
                    command = "" if made.unsaid else made.command
                    if (made.verdict, command) != (entry.verdict, entry.command):
                        changed.append((model, names, made.verdict, command))
        assert changed == []

    def test_it_is_written_as_it_is_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(evidence, "FOLDER", tmp_path)
        evidence.read.cache_clear()
        _, _, _, one = ENTRIES[0]
        evidence.write("xdit==0.7", Z_IMAGE, [one])
        assert evidence.read("xdit==0.7", Z_IMAGE) == {one.cell: replace(one, engine="xdit==0.7")}
        evidence.read.cache_clear()


def installed(name: str) -> pytest.MarkDecorator:
    one = environment(name)
    return pytest.mark.skipif(
        not one.is_installed, reason=f"{one.engine} is not installed; next: omni engine install {one.engine}"
    )


@pytest.fixture(scope="module")
def smalls(tmp_path_factory: pytest.TempPathFactory) -> list[Small]:
    folder = tmp_path_factory.mktemp("models")
    return [small(Z_IMAGE, folder), small(FLUX, folder)]


@pytest.fixture(scope="module")
def outcomes(smalls: list[Small]) -> dict[str, str]:
    engine = card_of(environment("xdit"))
    z_image, flux = smalls
    asked = {
        "ulysses": trial(z_image, engine, {"ulysses_degree": 2}),
        "ulysses 4 of 6 heads": trial(z_image, engine, {"ulysses_degree": 4}),
        "tensor": trial(z_image, engine, {"tensor_parallel_size": 2}),
        "shards, TeaCache": trial(flux, engine, {"ulysses_degree": 2, "use_hsdp": True, "tea_cache": True}),
        "odd tokens": trial(flux, engine, {"ulysses_degree": 2}, flux.request | {"width": 80, "height": 80}),
    }
    with started(environment("xdit"), smalls) as server:
        shown = dict(run_trials(server, asked))
    assert all(one.agrees for one in shown.values())
    return {name: f"{one.trial.verdict}, {one.judged.outcome}" for name, one in shown.items()}


@installed("xdit")
class TestXDiT:
    """A minute of the engine itself."""

    def test_the_rules_say_what_it_does(self, outcomes):
        assert outcomes == {
            "ulysses": "runs, equal",
            "ulysses 4 of 6 heads": "runs, equal",  # it pads the heads
            "tensor": "refused, refused",
            "shards, TeaCache": "refused, refused",
            "odd tokens": "refused, refused",
        }

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["devices", "platform", "kernels", "sharding", "sizes", "stages", "processor"])
    def test_a_stand_in_is_still_needed(self, smalls, name, tmp_path):
        asked = {"stages": {"pipeline_parallel_size": 2}, "processor": {"ulysses_degree": 2}}
        one = {"stages": smalls[1], "processor": small("Qwen/Qwen-Image-Edit", tmp_path)}.get(name, smalls[0])
        made = trial(one, card_of(environment("xdit")), asked.get(name, {"ring_degree": 2, "use_hsdp": True}))
        try:
            with started(environment("xdit"), [one], without=(name,)) as server:
                (shown,) = dict(run_trials(server, {"": made}, timeout=30)).values()
        except NoEnvironment:
            return  # it does not even start
        assert shown.judged.outcome in ("refused", "not shown", "hangs")

    @pytest.mark.slow
    def test_a_long_prompt_of_z_image_is_attended_to_with_its_padding(self, smalls):
        """Where both branches of guidance run together; xDiT computes what diffusers does where each runs alone."""
        long = smalls[0].request | {"prompt": LONG}
        made = trial(smalls[0], card_of(environment("xdit")), {"cfg_parallel_size": 2}, long)
        together = made.bare(60)
        cases = {"alone": made.case(60), "together": together, "diffusers": replace(together, plain=True, controls=())}
        with started(environment("xdit"), smalls[:1]) as server:
            images = {name: one.images["image"] for name, one in server.run(cases)}
        assert psnr(images["alone"], images["diffusers"]) > 40
        assert psnr(images["together"], images["diffusers"]) < 30


@installed("sglang")
@pytest.mark.slow
class TestSGLang:
    def test_the_rules_say_what_it_does(self, smalls):
        engine = card_of(environment("sglang"))
        asked = {
            "ulysses": trial(smalls[0], engine, {"ulysses_degree": 2}),
            "ulysses 4 of 6 heads": trial(smalls[0], engine, {"ulysses_degree": 4}),
            "tensor": trial(smalls[0], engine, {"tensor_parallel_size": 2}),
        }
        with started(environment("sglang"), smalls[:1]) as server:
            shown = dict(run_trials(server, asked))
        assert {name: one.judged.outcome for name, one in shown.items()} == {
            "ulysses": "equal",
            "ulysses 4 of 6 heads": "refused",
            "tensor": "equal",
        }

    @pytest.mark.parametrize(
        ("name", "model", "asked"),
        [
            ("torchvision_ops", Z_IMAGE, {}),
            ("kernels", "Qwen/Qwen-Image", {}),
            ("parallelism", Z_IMAGE, {"ulysses_degree": 2, "tensor_parallel_size": 2}),
            ("processor", "Qwen/Qwen-Image-Edit", {}),
        ],
    )
    def test_a_stand_in_is_still_needed(self, tmp_path, name, model, asked):
        one = small(model, tmp_path)
        made = trial(one, card_of(environment("sglang")), asked)
        try:
            with started(environment("sglang"), [one], without=(name,)) as server:
                (found,) = dict(server.run({"": made.case(60)})).values()
        except NoEnvironment:
            return  # it does not even start
        assert found.error


@installed("vllm-omni")
@pytest.mark.slow
class TestVLLMOmni:
    def test_the_rules_say_what_it_does(self, smalls):
        engine, z_image = card_of(environment("vllm-omni")), smalls[0]
        asked = {
            "ulysses": trial(z_image, engine, {"ulysses_degree": 2}),
            "ulysses 4 of 6 heads": trial(z_image, engine, {"ulysses_degree": 4}),
            "tensor": trial(z_image, engine, {"tensor_parallel_size": 2}),
            "shards": trial(z_image, engine, {"use_hsdp": True, "hsdp_shard_size": 2}),
            "layers": trial(z_image, engine, {"enable_layerwise_offload": True}),
            "stepwise": trial(z_image, engine, {"step_execution": True}),
        }
        with started(environment("vllm-omni"), smalls[:1]) as server:
            shown = dict(run_trials(server, asked))
        assert all(one.agrees for one in shown.values())
        assert {name: one.judged.outcome for name, one in shown.items()} == {
            "ulysses": "equal",
            "ulysses 4 of 6 heads": "refused",
            "tensor": "equal",
            "shards": "equal",
            "layers": "equal",
            "stepwise": "refused",
        }

    @pytest.mark.parametrize("name", ["media", "platform", "kernels", "executor", "weights", "sizes"])
    def test_a_stand_in_is_still_needed(self, smalls, name):
        made = trial(smalls[0], card_of(environment("vllm-omni")), {"ring_degree": 2})
        try:
            with started(environment("vllm-omni"), smalls[:1], without=(name,)) as server:
                (shown,) = dict(run_trials(server, {"": made})).values()
        except NoEnvironment:
            return  # it does not even start
        assert shown.judged.outcome in ("refused", "hangs", "not shown")


SHOWN = [one for one in catalog().disagreements if one.run]


@pytest.mark.parametrize("one", SHOWN, ids=[one.topic for one in SHOWN])
class TestDisagreements:
    def test_one_has_a_command_and_what_it_shows(self, one):
        words = shlex.split(one.run)
        assert words[:3] == ["omni", "prove", "--engine"]
        assert environment(words[3]).engine == words[3]
        assert one.shows in OUTCOMES

    @pytest.mark.slow
    def test_one_is_shown_by_its_command(self, one):
        words = shlex.split(one.run)
        if not environment(words[3]).is_installed:
            pytest.skip(f"{words[3]} is not installed; next: omni engine install {words[3]}")
        command = [sys.executable, "-m", "omni_config", *words[1:], "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert json.loads(done.stdout)["outcome"] == one.shows
