"""machine.yaml and the links of ``nvidia-smi topo -m``: what was measured takes the place of a datasheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.estimate.data import Gpu, gpus
from omni_config.estimate.estimate import Estimate, estimate
from omni_config.estimate.machine import machine_of
from omni_config.estimate.measured import Rate, along, rate_at
from omni_config.estimate.topology import Topology
from omni_config.reading.nodes import Unreadable
from omni_config.resolving.target import target_of
from omni_config.schema.settings import validate

# Eight GPUs whose neighbours by number are on different CPUs; pairs 0-2, 1-3, ... have NVLink, fours one CPU.
CROSSED = "\tGPU0\tGPU1\tGPU2\tGPU3\tGPU4\tGPU5\tGPU6\tGPU7\tNIC0\n"
for gpu in range(8):
    CROSSED += f"GPU{gpu}"
    for other in range(8):
        near = "NV4" if gpu // 4 == other // 4 else "PHB"
        CROSSED += "\t" + (" X " if gpu == other else near if gpu % 2 == other % 2 else "SYS")
    CROSSED += "\tNODE\n"
WHOLE = """\
version: 1
name: two cores
made: {date: "2026-11-30", by: hand}
device: cpu
processors: 2
memory: 8
matmul: [{dtype: float32, rows: 1024, inputs: 128, outputs: 128, tflops: 0.05}]
attention: [{dtype: float32, tokens: 1024, heads: 4, head_size: 32, tflops: 0.04}]
norm: [{bytes: 1000000, bandwidth: 5}]
collectives: [{kind: all-to-all, ranks: 2, bytes: [1000, 1000000], seconds: [0.001, 0.002]}]
"""


def machine(tmp_path: Path, text: str) -> Gpu:
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    return machine_of(path)


def estimated(gpu: Gpu, model: str = "Qwen/Qwen-Image", **settings: Any) -> Estimate:
    card, engine = catalog().model(model), catalog().engine("native")
    assert card
    assert engine
    target = target_of(card, engine).by(())
    return estimate(target.quantities(target.applied(validate({"version": 1, "model": model}) | settings)[0]), gpu)


def test_links_are_classed_and_close_gpus_become_neighbours() -> None:
    found = Topology.of(CROSSED)
    assert found.by_pair[0, 2] == "nvlink"
    assert found.by_pair[0, 4] == "pcie"
    assert found.by_pair[0, 1] == "socket"
    assert found.order == (0, 2, 4, 6, 1, 3, 5, 7)
    assert [found.slowest(2, 1), found.slowest(4, 1), found.slowest(8, 1)] == ["nvlink", "pcie", "socket"]
    assert [found.slowest(2, 2), found.slowest(2, 4), found.slowest(2, 8)] == ["pcie", "socket", "network"]
    assert found.slowest(1, 4) == "pcie"  # all four ranks inside of it


@pytest.mark.parametrize("text", ["", "GPU0\tGPU1\nGPU0\t X \tNV4\n", CROSSED.replace("PHB", "NEW")])
def test_what_is_no_table_of_links_is_refused(text: str) -> None:
    if text.startswith("GPU0"):
        assert Topology.of(text).by_pair == {(0, 1): "nvlink"}
        return
    with pytest.raises(ValueError, match=r"topo -m|NEW"):
        Topology.of(text)


def test_an_axis_is_priced_by_the_slowest_link_of_its_groups(tmp_path: Path) -> None:
    table = "".join(f"  {line}\n" for line in CROSSED.splitlines())
    links = "links: {nvlink: 100, pcie: 20, socket: 8, network: 3}\n"
    gpu = machine(tmp_path, f"version: 1\nname: m\ngpu: l40s\n{links}topology: |2\n{table}")
    two, four, eight = (estimated(gpu, ulysses_degree=n).terms["all-to-all"] for n in (2, 4, 8))
    sent = {n: (n - 1) / n / n for n in (2, 4, 8)}  # of each rank's part
    assert four / two == pytest.approx(5 * sent[4] / sent[2])
    assert eight / four == pytest.approx(2.5 * sent[8] / sent[4])
    outer = estimated(gpu, ulysses_degree=2, tensor_parallel_size=8).terms["all-to-all"]
    assert outer == pytest.approx(two / 8 * 100 / 3)  # 16 ranks are on two machines
    assert gpu.gpus_per_node == 8


def test_rates_are_those_of_near_shapes_and_seconds_lie_on_lines() -> None:
    rates = [Rate((64, 128), 1e9), Rate((4096, 128), 4e9)]
    assert rate_at(rates, (64, 128)) == pytest.approx(1e9, rel=1e-3)
    assert rate_at(rates, (512, 128)) == pytest.approx(2e9)
    points = [(10.0, 1.0), (20.0, 3.0)]
    assert [along(points, size) for size in (5, 15, 40)] == [1.0, 2.0, 6.0]


def test_what_was_measured_replaces_the_datasheet_and_the_rest_stays(tmp_path: Path) -> None:
    fast = "matmul: [{dtype: bfloat16, rows: 4096, inputs: 3072, outputs: 12288, tflops: 400}]\n"
    gpu = machine(tmp_path, f"version: 1\nname: mine\ngpu: h100\nmemory: 70\n{fast}")
    ours, sheet = estimated(gpu), estimated(gpus()["h100"])
    assert ours.terms["FFN"] / sheet.terms["FFN"] == pytest.approx(989 * 0.65 / 400)
    assert ours.terms["attention"] == sheet.terms["attention"]
    assert gpu.memory == 70
    assert ours.seconds
    assert sheet.seconds
    assert ours.seconds.high / ours.seconds.low < 0.95 * sheet.seconds.high / sheet.seconds.low


def test_processors_that_ranks_share_take_as_many_times_as_long(tmp_path: Path) -> None:
    gpu = machine(tmp_path, WHOLE)
    settings = {"width": 256, "height": 256, "cfg_scale": 1.0}
    two = estimated(gpu, "tiny-qwen", ulysses_degree=2, **settings)
    four = estimated(gpu, "tiny-qwen", ulysses_degree=4, **settings)
    assert four.terms["FFN"] == pytest.approx(two.terms["FFN"])  # half as much, twice as long
    assert two.terms["all-to-all"] > 50 * 7 * 4 * 0.001  # steps, blocks, calls, and their least


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        (WHOLE.replace("dtype: float32, rows", "dtype: float8, rows"), "matmul.0.dtype: must be", (7, 18)),
        (WHOLE.replace("processors", "processor"), "unknown key 'processor'", (5, 1)),
        (WHOLE.replace("name: two cores\n", ""), "name is missing", (1, 1)),
        (WHOLE.replace("bytes: [1000, 1000000]", "bytes: [1000, 10]"), "bytes must ascend", (10, 51)),
        (WHOLE.replace("bytes: [1000, 1000000]", "bytes: [1000]"), "must be as many", (10, 51)),
        (WHOLE.replace("memory: 8\n", ""), "memory missing, which no datasheet gives", (1, 1)),
        (WHOLE + "gpu: h1000\n", "no data on GPU 'h1000'", (11, 6)),
        (WHOLE + "topology: none\n", "not what nvidia-smi topo -m prints", (11, 11)),
        (WHOLE + "topology: [\n", "", (12, 1)),
        ("- 1\n", "a mapping", (1, 1)),
        (WHOLE.replace("memory: 8", "memory: .nan"), "memory: must be a finite number", (6, 9)),
    ],
)
def test_faults_of_the_file_are_placed_and_end_a_check_with_2(
    tmp_path: Path, text: str, words: str, place: tuple[int, int]
) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    (checked,) = check_bytes("c.yaml", f"version: 1\nmodel: tiny\nhardware: {{machine: {path}}}\n".encode())
    (finding,) = checked.findings
    assert checked.exit_code == 2
    assert words in finding.message
    assert finding.span
    assert finding.span.source.name == str(path)
    assert (finding.span.line, finding.span.column) == place
    assert finding.related[0].source.name == "c.yaml"


def test_a_file_that_is_not_there_is_a_fault_of_the_config() -> None:
    with pytest.raises(Unreadable):
        machine_of("no/such/machine.yaml")
    (checked,) = check_bytes("c.yaml", b"version: 1\nmodel: tiny\nhardware: {machine: no/such.yaml}\n")
    assert checked.exit_code == 2
    assert checked.findings[0].span
    assert (checked.findings[0].span.line, checked.findings[0].span.column) == (3, 21)


def test_suggest_takes_a_machine_and_says_which_gpu_a_rank_gets(tmp_path: Path) -> None:
    table = "".join(f"  {line}\n" for line in CROSSED.splitlines())
    path = tmp_path / "machine.yaml"
    path.write_text(f"version: 1\nname: m\ngpu: l40s\ntopology: |2\n{table}")
    words = ["suggest", "--model", "Qwen/Qwen-Image", "--gpus", "8", "--machine", str(path), "--json"]
    result = CliRunner().invoke(app(["suggest"]), words)
    assert result.exit_code == 0
    plan = json.loads(result.stdout)["plans"][0]
    assert "CUDA_VISIBLE_DEVICES=0,2,4,6,1,3,5,7:" in plan["config"]
    (checked,) = check_bytes("suggested.yaml", plan["config"].encode())
    assert checked.exit_code == 0
    path.write_text("version: 2\n")
    result = CliRunner().invoke(app(["suggest"]), words)
    assert result.exit_code == 2
    assert "version" in result.stderr
