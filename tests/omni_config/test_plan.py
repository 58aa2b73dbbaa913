"""``omni plan``: the Plan is complete, goes to disk and back, and places every rank once."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.mesh import DEGREES, NAMES, Mesh
from omni_config.plan import SHARED, VERSION, WHOLE, Plan
from omni_config.schema.overrides import assignment
from omni_config.schema.settings import DEFAULTS, FIELDS, PARAMETERS

runner = CliRunner()


@given(st.tuples(*[st.integers(1, 4)] * 4))
def test_every_coordinate_is_held_by_one_rank_and_tensor_ranks_are_neighbours(sizes: tuple[int, int, int, int]) -> None:
    mesh = Mesh(*sizes)
    places = [tuple(mesh.coordinates(rank).values()) for rank in range(mesh.world_size)]
    assert places == sorted(set(places))
    assert len(places) == mesh.world_size
    assert tuple(mesh.coordinates(0)) == NAMES
    with pytest.raises(IndexError):
        mesh.coordinates(mesh.world_size)


def test_the_fields_of_a_mesh_are_its_axes_and_their_settings_exist() -> None:
    assert [item.name for item in fields(Mesh)] == [*NAMES, "nodes"]
    assert {*DEGREES} <= {*FIELDS}
    settings = DEFAULTS | dict(zip(DEGREES, (2, 3, 4, 5), strict=True))
    assert Mesh.of(settings, nodes=6) == Mesh(cfg=2, ring=3, ulysses=4, tensor=5, nodes=6)


def plan_of(*line: str) -> Plan:
    data = json.loads(runner.invoke(app(), ["plan", "--json", "--model", "tiny", "--prompt", "x", *line]).stdout)
    return Plan.from_json(json.dumps({name: value for name, value in data.items() if name != "ranks"}))


@pytest.mark.parametrize("cache", ["tea_cache", "cache_dit"])
def test_a_cache_goes_to_disk_with_the_names_of_the_config(cache: str) -> None:
    plan = plan_of("--cache-backend", cache)
    assert {item.name for item in fields(plan.cache)} == {*PARAMETERS[cache], "backend"}
    assert plan.to_dict()["cache"]["backend"] == cache
    assert Plan.from_json(json.dumps(plan.to_dict())) == plan


def test_a_plan_of_another_version_is_refused_in_one_line() -> None:
    older = {name: value for name, value in plan_of().to_dict().items() if name != "hsdp"} | {"version": 2}
    with pytest.raises(ValueError, match=rf"^this Plan is of version 2, and {VERSION} is read; next: .*$") as error:
        Plan.from_json(json.dumps(older))
    assert "\n" not in str(error.value)
    for text in ("", "[]", json.dumps(older | {"version": VERSION})):
        with pytest.raises(ValueError, match=r"validation error"):
            Plan.from_json(text)


def test_the_reference_run_has_every_feature_off() -> None:
    assert {item.name for item in fields(Plan) if "off" not in item.metadata} == {*SHARED}
    on = plan_of("--usp", "2", "--cache-backend", "cache_dit", "--enable-cpu-offload", "--vae-use-slicing", "--compile")
    plain = on.plain()
    assert plain == replace(plan_of(), output="")
    assert plain.plain() == plain
    assert plain.mesh.world_size == 1
    tiled = replace(on, vae=replace(on.vae, use_tiling=True))
    assert tiled.plain().vae == replace(WHOLE, use_tiling=True)
    assert tiled.plain().plain().vae == WHOLE  # tiles are all that this one switches on


def test_json_is_the_plan_with_its_ranks() -> None:
    result = runner.invoke(app(), ["plan", "--json", "--model", "tiny", "--usp", "2", "--prompt", "a red star"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data.pop("ranks") == [
        {"rank": 0, "node": 0, "cfg": 0, "ring": 0, "ulysses": 0, "tensor": 0},
        {"rank": 1, "node": 0, "cfg": 0, "ring": 0, "ulysses": 1, "tensor": 0},
    ]
    plan = Plan.from_json(json.dumps(data))
    assert plan.to_dict() == data
    assert plan.mesh == Mesh(ulysses=2)


@given(st.tuples(*[st.integers(1, 4)] * 4), st.integers(1, 16))
def test_a_node_holds_whole_groups_of_ulysses_and_tensor_ranks(sizes: tuple[int, ...], gpus_per_node: int) -> None:
    degrees = dict(zip(DEGREES, sizes, strict=True))
    tree = {"version": 1, "model": "tiny", "parallel": degrees, "hardware": {"gpus_per_node": gpus_per_node}}
    (document,) = check_bytes("-", json.dumps(tree).encode())
    codes = {finding.code for finding in document.findings}
    mesh = document.resolution.accepted_plan().mesh
    assert mesh.nodes * mesh.ranks_per_node == mesh.world_size
    assert ("OMNI807" in codes) == (mesh.ulysses * mesh.tensor > gpus_per_node)
    assert mesh.ranks_per_node <= gpus_per_node or "OMNI807" in codes
    assert ("OMNI808" in codes) == (mesh.nodes > 1 and mesh.ranks_per_node < gpus_per_node)
    places = {}
    for rank in range(mesh.world_size):
        at = mesh.coordinates(rank)
        places.setdefault((at["cfg"], at["ring"]), set()).add(rank // mesh.ranks_per_node)
    assert {len(nodes) for nodes in places.values()} == {1}


def test_replicas_are_told(tmp_path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("version: 1\nmodel: tiny\nparallel: {ulysses_degree: 2, data_parallel_size: 3}\nserver: true\n")
    result = runner.invoke(app(), ["plan", str(config)])
    assert "Replicas: 3 of these = 6 ranks" in result.stdout
    told = json.loads(runner.invoke(app(), ["plan", "--json", str(config)]).stdout)
    assert (told["data_parallel_size"], len(told["ranks"])) == (3, 2)


def test_what_a_run_needs_is_in_the_plan(tmp_path) -> None:
    adapter = tmp_path / "a.safetensors"
    adapter.write_bytes(b"")
    line = ["plan", "--json", "--model", "tiny", "--prompt", "x", "--tensor-parallel-size", "2"]
    plain = json.loads(runner.invoke(app(), [*line, "--enforce-eager"]).stdout)
    line += ["--text-encoder-tensor-parallel", "--compile", "--attention-backend", "flex", "--dtype", "bfloat16"]
    line += ["--num-images-per-prompt", "3", "--lora-path", str(adapter), "--lora-scale", "0.5"]
    data = json.loads(runner.invoke(app(), line).stdout)
    changed = {
        "lora": ([], [{"path": str(adapter), "scale": 0.5}]),
        "text_encoder_tensor_parallel": (False, True),
        "compile": (False, True),
        "attention_backend": ("native", "flex"),
        "model": (plain["model"], plain["model"] | {"dtype": "bfloat16"}),
        "sampling": (plain["sampling"], plain["sampling"] | {"num_images_per_prompt": 3}),
    }
    for name in plain:
        assert (plain[name], data[name]) == changed.get(name, (plain[name], plain[name]))


def test_a_plan_of_another_shape_is_refused() -> None:
    result = runner.invoke(app(), ["plan", "--json", "--model", "tiny"])
    data = json.loads(result.stdout)
    del data["ranks"]
    with pytest.raises(ValueError, match="vae"):
        Plan.from_json(json.dumps({name: value for name, value in data.items() if name != "vae"}))


def test_flags_win_over_the_file_and_findings_point_at_them(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\nmodel: tiny\nparallel: {ulysses_degree: 2}\n")
    result = runner.invoke(app(), ["plan", "--json", str(path), "--set", "parallel.ulysses_degree=3"])
    assert json.loads(result.stdout)["mesh"]["ulysses"] == 3
    result = runner.invoke(app(), ["plan", str(path), "--ulysses-degree", "4"])
    assert result.exit_code == 1
    assert "command line:1:1: OMNI103" in result.stderr
    assert "--ulysses-degree 4" in result.stderr


@pytest.mark.parametrize("text", ["", "ulysses_degree", "=2", "a=[1", "a=!!python/name:os.system"])
def test_a_set_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--set"):
        assignment(text)


def test_the_table_names_every_axis() -> None:
    result = runner.invoke(app(), ["plan", "--model", "tiny", "--cache-backend", "cache_dit"])
    assert result.exit_code == 0
    assert "cfg 1 x ring 1 x ulysses 1 x tensor 1 = 1 rank" in result.stdout
    assert "Fn_compute_blocks=1" in result.stdout


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--nnodes", "2"], "the plan has 4 ranks on 1 node; for 2, set hardware.gpus_per_node"),
        (["--node-rank", "1"], "the plan has 4 ranks on 1 node; for several, set hardware.gpus_per_node"),
        (["--gpus-per-node", "2"], "the plan is for 2 nodes: give --node-rank and --rdzv-endpoint on each of them"),
        (["--gpus-per-node", "2", "--nnodes", "4"], "the plan has 4 ranks on 2 nodes; for 4, set"),
        (["--gpus-per-node", "2", "--node-rank", "2", "--rdzv-endpoint", "a:1"], "the plan is for 2 nodes, 0 to 1"),
        (["--gpus-per-node", "2", "--node-rank", "1", "--rdzv-endpoint", "a"], "expected HOST:PORT, such as"),
    ],
)
def test_flags_that_do_not_fit_the_nodes_of_the_plan(line: list[str], says: str) -> None:
    line = ["launch", "--dry-run", "--model", "tiny", "--prompt", "x", "--usp", "2", "--ring", "2", *line]
    result = runner.invoke(app(["launch", "plan"]), line)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", "").split())
