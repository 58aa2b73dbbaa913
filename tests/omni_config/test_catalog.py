"""The knowledge in the catalog: complete, consistent with itself and with the published tables, and usable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from packaging.version import Version

from omni_config import engines
from omni_config.cards import Claim, ModelCard
from omni_config.catalog.load import FOLDER, catalog, read
from omni_config.checking.files import check_bytes
from omni_config.resolving.resolver import resolve_settings
from omni_config.resolving.target import target_of
from omni_config.rules.expressions import parse
from omni_config.rules.kinds import Supported
from omni_config.rules.quantities import DERIVED, DIMS, Quantities
from omni_config.schema.settings import FIELDS, tree_of, validate

PUBLISHED = yaml.safe_load((Path(__file__).parents[2] / "matrix" / "published.yaml").read_text())
VERDICTS = ("supported", "unsupported", "unverified")
COLUMNS = {
    "tea_cache",
    "cache_dit",
    "ulysses",
    "ring",
    "cfg_parallel",
    "tensor_parallel",
    "hsdp",
    "layerwise_offload",
    "vae_patch_parallel",
    "quantization",
    "step_execution",
}
ENGINES = ("guide", "vllm-omni==0.30")
#: The versions of each engine of which facts were compiled.
VERSIONS = {
    name: [path.stem for path in sorted((FOLDER.parent / "engines" / engine.folder / "facts").glob("*.json"))]
    for name, engine in engines.ENGINES.items()
}
DOCUMENTED, SOURCE = (catalog().engine(name) for name in ENGINES)
CARDS = [catalog().model(name) for name in catalog().model_ids]
QUANTITIES = {*FIELDS, *DERIVED, *DIMS, *catalog().features}
#: Pipelines of the documented table that no version of which facts are known has.
OF_THE_TABLE_ONLY = {"MagiHumanPipeline", "DreamIDOmniPipeline"}

cards = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)


def claims() -> dict[str, Claim]:
    """Every claim of the catalog, by where it is."""
    found = {f"{card.id}, {name}": claim for card in CARDS for name, claim in card.claims.items()}
    for name in catalog().engine_ids:
        found |= {f"{name}, {key}": claim for key, claim in catalog().engine(name).pipelines.items()}
    return found


def cells(claim: Claim) -> list[str]:
    """Features that a claim speaks of, as often as it does."""
    return [*claim.supported, *claim.unsupported, *claim.unverified, *claim.only]


def quantities(card: ModelCard, engine: str = "vllm-omni", **settings: Any) -> Quantities:
    plain = validate({"version": 1, "model": card.id, "engine": engine})
    return Quantities(plain | settings, card, catalog().engine(engine), catalog().features)


def tensor_parallel_sizes(name: str) -> set[int]:
    words = quantities(catalog().model(name))["tensor_parallel_choices"]
    return {int(size) for size in words.replace(" or ", ", ").split(", ")}


def test_counts() -> None:
    assert len(PUBLISHED["models"]) == 28
    makes = [row["makes"] for row in PUBLISHED["models"]]
    assert (makes.count("image"), makes.count("video"), makes.count("audio")) == (21, 6, 1)
    assert len(SOURCE.pipelines) == 73  # 72 keys and one more name of one of them
    assert len(catalog().disagreements) == 61


def test_every_row_of_the_table_has_cards_that_say_the_same() -> None:
    for row in PUBLISHED["models"]:
        assert row["ids"], row["name"]
        for name in row["ids"]:
            claim = catalog().model(name).claims["vllm-omni"]
            for verdict in VERDICTS:
                extra = {"expert_parallel"} if verdict == "supported" else set()  # not a column of the table
                assert set(getattr(claim, verdict)) - extra == set(row.get(verdict, [])), (name, verdict)
            assert claim.only == row.get("only", {})


def test_the_published_pairs_are_all_there_once() -> None:
    features = PUBLISHED["features"]
    assert set(features) <= set(catalog().features)
    assert list(PUBLISHED["pairs"]) == features[1:]
    for name, row in PUBLISHED["pairs"].items():
        said = [other for verdict in VERDICTS for other in row.get(verdict, [])]
        assert sorted(said) == sorted(features[: features.index(name)]), name


@cards
def test_no_card_misses_a_column(card: ModelCard) -> None:
    for claim in card.claims.values():
        assert set(cells(claim)) >= COLUMNS


@pytest.mark.parametrize("name", SOURCE.pipelines)
def test_no_pipeline_misses_a_column(name: str) -> None:
    assert {*COLUMNS, "lora", "expert_parallel"} <= set(cells(SOURCE.pipelines[name]))


@pytest.mark.parametrize("where", claims())
def test_a_claim_speaks_once_of_each_feature_and_of_known_ones_only(where: str) -> None:
    claim = claims()[where]
    assert len(cells(claim)) == len(set(cells(claim)))
    assert {*cells(claim), *claim.effects} <= set(catalog().features)
    # An effect is what becomes of a feature that is lacking.
    assert set(claim.effects) <= set(claim.unsupported)
    for condition in claim.only.values():
        assert set(parse(condition).names) <= QUANTITIES, condition


@pytest.mark.parametrize("engine", catalog().engine_ids)
def test_an_engine_knows_its_features(engine: str) -> None:
    card = catalog().engine(engine)
    assert {*card.features, *card.effects} <= set(catalog().features)


def test_every_effect_of_0_30_is_in_words() -> None:
    assert set(SOURCE.effects) == set(catalog().features)


def registered() -> set[str]:
    """Every pipeline class that an engine or diffusers registers, by the facts of their releases."""
    names: set[str] = set()
    for path in (FOLDER.parent / "engines").glob("*/facts/*.json"):
        names |= {key.rpartition(" ")[2] for key in json.loads(path.read_text())["pipelines"]}
    return names


def test_every_card_has_a_pipeline_that_something_registers() -> None:
    assert {card.pipeline for card in CARDS} - registered() == set()


@cards
def test_a_card_states_known_things(card: ModelCard) -> None:
    assert set(card.dims) <= set(DIMS)
    assert set(card.tensor_parallel_splits) <= set(card.dims)
    assert set(card.defaults) <= set(FIELDS)
    assert card.sources
    assert card.teacache_coefficients is None or len(card.teacache_coefficients) == 5
    assert all(value > 0 for value in card.dims.values())


@cards
def test_coefficients_say_how_they_were_found(card: ModelCard) -> None:
    fit = card.teacache_fit
    assert (fit is None) == (card.teacache_coefficients is None)
    if fit:
        assert (fit.to is None) == (fit.found == "published")
        assert (fit.to == card.id) <= (fit.found != "borrowed")
        assert (fit.lowest is None) == (fit.highest is None)


def test_the_coefficients_of_z_image_hold_in_the_range_they_were_fitted_to() -> None:
    card = catalog().model("Tongyi-MAI/Z-Image-Turbo")
    assert (card.teacache_fit.found, card.teacache_fit.lowest, card.teacache_fit.highest) == ("fitted", 0.024, 0.336)
    distances = (0.024, 0.05, 0.1, 0.2, 0.336)
    changes = [sum(c * x**power for power, c in enumerate(reversed(card.teacache_coefficients))) for x in distances]
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert catalog().model("Tongyi-MAI/Z-Image").teacache_fit.found == "borrowed"


@cards
def test_the_heads_of_a_card_fit_its_width(card: ModelCard) -> None:
    heads, width = card.dims.get("num_attention_heads"), card.dims.get("hidden_size")
    if heads and width:
        assert width % heads == 0
    if heads and card.dims.get("num_kv_heads"):
        assert heads % card.dims["num_kv_heads"] == 0


@cards
def test_the_default_size_suits_the_model(card: ModelCard) -> None:
    q = quantities(card, **card.defaults)
    if None not in (q["pixel_multiple"], q["width"]):
        assert q["width"] % q["pixel_multiple"] == q["height"] % q["pixel_multiple"] == 0
    if q["vae_temporal_factor"] is not None and q["num_frames"] is not None and card.family != "MiniMax-H3":
        assert (q["num_frames"] - 1) % q["vae_temporal_factor"] == 0  # but of H3, whose clips overlap
    if card.task.endswith("image"):
        assert q["num_frames"] is None


@cards
def test_guidance_of_a_distilled_model_has_a_default(card: ModelCard) -> None:
    distilled = card.guidance is not None and card.guidance.distilled_argument is not None
    assert distilled == (card.defaults.get("guidance_scale") is not None)


def test_tensor_parallel_sizes_follow_from_the_dimensions() -> None:
    assert tensor_parallel_sizes("Tongyi-MAI/Z-Image-Turbo") == {1, 2}
    assert tensor_parallel_sizes("Qwen/Qwen-Image") == {1, 2, 3, 4, 6, 8, 12, 24}
    assert tensor_parallel_sizes("Wan-AI/Wan2.2-T2V-A14B-Diffusers") == {1, 2, 4, 8}
    assert tensor_parallel_sizes("OmniGen2/OmniGen2") == {1, 7}
    assert tensor_parallel_sizes("stabilityai/stable-audio-open-1.0") == {1}


def test_the_dimensions_of_diffusers_models_agree_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        built = {
            "Qwen/Qwen-Image": diffusers.QwenImageTransformer2DModel(),
            "Tongyi-MAI/Z-Image": diffusers.ZImageTransformer2DModel(),
            "Wan-AI/Wan2.1-T2V-14B-Diffusers": diffusers.WanTransformer3DModel(),
            "stabilityai/stable-audio-open-1.0": diffusers.StableAudioDiTModel(),
        }
    for name, model in built.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        assert catalog().model(name).dims["transformer_parameters"] == round(count / 1e6), name


@cards
@pytest.mark.parametrize("engine", ENGINES)
def test_a_plain_config_of_every_model_is_accepted(card: ModelCard, engine: str) -> None:
    settings = validate({"version": 1, "model": card.id, "engine": engine})
    resolution = resolve_settings(settings, target_of(card, catalog().engine(engine)))
    found = [finding.code for finding in resolution.findings if finding.severity != "advice"]
    if card.pipeline == "Magi2Pipeline" and engine != "guide":
        assert found == ["OMNI1140"]  # which does not run on one GPU
        return
    known = resolution.target.quantities(resolution.settings)["engine_knows_model"]
    assert found == ([] if known else ["OMNI513"])
    assert (resolution.plan is not None) == known


@cards
@pytest.mark.parametrize("engine", ENGINES)
def test_a_feature_that_is_switched_on_meets_its_verdict(card: ModelCard, engine: str) -> None:
    # Only the rules of this kind: on one GPU, others switch off what needs several.
    rules = [rule for rule in catalog().rules if isinstance(rule, Supported)]
    plain = validate({"version": 1, "model": card.id, "engine": engine})
    known = catalog().engine(engine).claim(card) is not None
    for feature in catalog().features.values():
        settings = validate(tree_of(plain | feature.switch_on))
        findings = target_of(card, catalog().engine(engine)).by(rules).applied(settings)[1]
        codes = {finding.code for finding in findings}
        verdict = catalog().engine(engine).verdict(feature.name, card)
        # Of a model that the card does not name, nothing is denied.
        assert ("OMNI503" in codes) == (known and verdict == "unsupported"), feature.name
        assert ("OMNI505" in codes) == (known and verdict == "unverified"), feature.name


def test_what_is_often_asked() -> None:
    def verdicts(name: str, feature: str) -> tuple[str, str]:
        card = catalog().model(name)
        return DOCUMENTED.verdict(feature, card), SOURCE.verdict(feature, card)

    assert verdicts("Qwen/Qwen-Image-Edit", "vae_patch_parallel") == ("supported", "unsupported")
    assert verdicts("Lightricks/LTX-2", "ring") == ("supported", "unsupported")
    assert verdicts("black-forest-labs/FLUX.1-dev", "tea_cache") == ("unsupported", "supported")
    assert verdicts("Tongyi-MAI/Z-Image", "cfg_parallel") == ("unverified", "unsupported")
    assert verdicts("tencent/HunyuanImage-3.0", "expert_parallel") == ("supported", "supported")
    assert verdicts("Qwen/Qwen-Image", "expert_parallel") == ("unsupported", "unsupported")
    anima = SOURCE.pipelines["AnimaPipeline"].effects
    assert all(anima[name] == "is refused" for name in ("tensor_parallel", "model_offload", "quantization"))
    assert SOURCE.pipelines["NextStep11Pipeline"].effects["tea_cache"] == "is switched off with a warning"


def test_every_disagreement_has_two_sides() -> None:
    topics = [entry.topic for entry in catalog().disagreements]
    assert len(set(topics)) == len(topics)
    codes = {rule.code for rule in catalog().rules}
    for entry in catalog().disagreements:
        sides = [side for side in (entry.prose, entry.table, entry.source_code) if side]
        assert len(sides) >= 2 or entry.topic == "All-gather sequence parallelism"
        cited = {word.strip("().,;") for word in entry.we_follow.split() if "OMNI" in word}
        assert cited <= codes, entry.topic


@pytest.mark.parametrize(
    ("file", "good", "bad"),
    [
        ("catalog/models/bagel.yaml", "  num_layers: 28", "  num_layers: many"),
        ("catalog/models/bagel.yaml", "guidance:", "guidence:"),
        ("engines/vllm_omni/card.yaml", "claimant:", "claims:"),
        ("catalog/disagreements.yaml", "we_follow:", "we_folow:"),
    ],
)
def test_the_catalog_rejects_typos(tmp_path: Path, file: str, good: str, bad: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text((FOLDER.parent / file).read_text().replace(good, bad, 1))
    with pytest.raises(ValueError, match=r"unknown key|valid integer"):
        read([path])


@pytest.mark.parametrize(("family", "versions"), VERSIONS.items())
def test_an_engine_is_named_as_pip_names_it(family: str, versions: list[str]) -> None:
    known = catalog().versions(family)
    assert {*known} == {f"{family}=={version}" for version in versions}
    releases = [Version(name.partition("==")[2]) for name in known if "rc" not in name]
    assert releases == sorted(releases, reverse=True)
    for name in known:
        card = catalog().engine(name)
        assert card.id == name
        assert all(catalog().engine(f"{name}{more}") is card for more in ([".0"] if "rc" not in name else []))
    if family != "vllm-omni":  # without a version, that is its guide
        assert catalog().engine(family).id == known[0]


def test_the_guide_has_a_name_and_a_release_candidate_is_its_release() -> None:
    assert catalog().engine("guide") is catalog().engine("vllm-omni")
    assert catalog().engine("vllm-omni==0.32").id == "vllm-omni==0.32.0rc1"
    assert catalog().engine("vllm-omni==0.32.0") is catalog().engine("vllm-omni==0.32")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vllm-omni==0.29", ["vllm-omni==0.28", "vllm-omni==0.30"]),
        ("vllm-omni==0.20", ["vllm-omni==0.26"]),
        ("vllm-omni==0.31.0rc1", ["vllm-omni==0.30", "vllm-omni==0.32.0rc1"]),
        ("sglang==0.6", ["sglang==0.5.23"]),
        ("sglang==newest", []),
        ("vllm==0.20", []),
    ],
)
def test_a_version_without_a_card_is_judged_by_no_other(name: str, nearest: list[str]) -> None:
    assert catalog().engine(name) is None
    text = f"version: 1\nmodel: Qwen/Qwen-Image\nengine: {name}\nparallel: {{ulysses_degree: 5}}\n"
    (checked,) = check_bytes("config.yaml", text.encode())
    (finding,) = checked.findings
    assert (finding.code, checked.exit_code) == ("OMNI502", 2)
    assert finding.next_step.startswith(f"the nearest versions that have one: {', '.join(nearest)}") == bool(nearest)


CARD = """\
id: one==1
title: One
source: its source
features: [compile]
effects: {ring: "is refused", hsdp: "is refused"}
pipelines:
  FluxPipeline: {supported: [ulysses, ring], unsupported: [hsdp], only: {cache_dit: "world_size == 1"}}
  WanPipeline: {supported: [ulysses]}
---
id: one==1.1
extends: one==1
effects: {hsdp: null}
pipelines:
  WanPipeline: null
  FluxPipeline: {unverified: [ring], supported: [hsdp, cache_dit]}
---
id: one==2
extends: one==1.1
aliases: [one==2.0.1]
title: Two
pipelines:
  ZImagePipeline: {supported: [ring]}
"""


def test_a_version_says_only_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "engines" / "one" / "card.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CARD)
    data = read([path])
    cards = {name: json.loads(data["texts"][f"engines {name}"]) for name in data["engines"]}
    assert cards["one==2"]["title"] == "Two"
    assert cards["one==1.1"]["title"] == "One"
    assert cards["one==2"]["effects"] == {"ring": "is refused"}
    flux = cards["one==2"]["pipelines"]["FluxPipeline"]
    assert flux["supported"] == ["ulysses", "hsdp", "cache_dit"]
    assert flux["unverified"] == ["ring"]
    assert (flux["unsupported"], flux["only"]) == ([], {})
    assert set(cards["one==2"]["pipelines"]) == {"FluxPipeline", "ZImagePipeline"}
    assert set(cards["one==1"]["pipelines"]) == {"FluxPipeline", "WanPipeline"}
    assert data["aliases"] == {"one==2.0.1": "one==2", "one": "one==2"}
    for wrong in ("one==3", "one==2"):
        path.write_text(CARD.replace("extends: one==1.1", f"extends: {wrong}"))
        with pytest.raises(ValueError, match=f"one==2: extends {wrong}"):
            read([path])


def test_versions_differ_where_their_sources_do() -> None:
    card = catalog().model("black-forest-labs/FLUX.2-klein-4B")
    old, new = (catalog().engine(f"vllm-omni=={version}") for version in ("0.30", "0.32"))
    assert (old.verdict("vae_patch_parallel", card), new.verdict("vae_patch_parallel", card)) == (
        "unsupported",
        "unverified",
    )
    turbo, edit = (catalog().model(name) for name in ("Tongyi-MAI/Z-Image-Turbo", "Qwen/Qwen-Image-Edit"))
    assert catalog().engine("xdit").verdict("cfg_parallel", turbo) == "unsupported"
    assert [catalog().engine(f"xdit==0.{n}").verdict("cfg_parallel", edit) for n in (6, 7)] == [
        "unsupported",
        "supported",
    ]


def test_sglang_has_tea_cache_where_it_has_coefficients() -> None:
    for version in VERSIONS["sglang"]:
        verdicts = {
            number: catalog().engine(f"sglang=={version}").verdict("tea_cache", catalog().model(name))
            for number, name in (
                (1, "Wan-AI/Wan2.1-T2V-14B-Diffusers"),
                (2, "Wan-AI/Wan2.2-T2V-A14B-Diffusers"),
            )
        }
        assert verdicts == {1: "supported", 2: "unsupported"}


def test_an_engine_is_a_folder_and_a_line_in_the_list() -> None:
    folder = FOLDER.parent / "engines"
    listed = {engine.folder for engine in engines.ENGINES.values()}
    assert {path.parent.name for path in folder.glob("*/card.yaml")} == {*listed, "native"}
    for engine in engines.ENGINES.values():
        for name in ("read.py", "examples.yaml", *(["write.py"] if engine.exported else [])):
            assert (folder / engine.folder / name).is_file(), (engine.folder, name)


def test_verdicts_are_the_ones_of_the_type() -> None:
    from omni_config.cards import Verdict

    assert get_args(Verdict) == VERDICTS
