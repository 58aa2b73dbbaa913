"""How fast ``omni check`` is, each number beside what it is compared with, in one run.

    python tests/bench/bench_check.py

Prints medians and ratios, of the clock and of the processor time, which other work on the cores changes less. Nothing
is asserted: a clock in CI proves nothing.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart.yaml"
FILES = 10_000


def main() -> None:
    """Run all comparisons."""
    scripts = Path(sys.executable).parent
    print("one file, cold; median of 10, taken in turn")
    imports = [sys.executable, "-c", "import pydantic, yaml, typer, rich.console"]
    in_turn(
        {"omni check quickstart.yaml": [str(scripts / "omni"), "check", str(QUICKSTART)], "imports alone": imports}, 10
    )

    with tempfile.TemporaryDirectory() as folder:
        text = QUICKSTART.read_text()
        for number in range(FILES):
            Path(folder, f"{number}.yaml").write_text(text.replace("seed: 0", f"seed: {number}"))
        schema = Path(folder, "schema.json")
        schema.write_text(subprocess.run([str(scripts / "omni"), "schema"], capture_output=True, text=True).stdout)
        files = [str(path) for path in sorted(Path(folder).glob("*.yaml"))]
        print(f"\n{FILES:,} files in a folder; median of 3, taken in turn")
        commands = {"omni check FOLDER": [str(scripts / "omni"), "check", folder]}
        if shutil.which("check-jsonschema", path=str(scripts)):
            commands["check-jsonschema"] = [str(scripts / "check-jsonschema"), "--schemafile", str(schema), *files]
        medians = in_turn(commands, 3)
        for name, seconds in medians.items():
            print(f"  {name:<28} {FILES / seconds:8.0f} files a second")

    print("\nsearch; median of 10")
    from omni_config.catalog.load import catalog
    from omni_config.resolving.search import nearest, valid
    from omni_config.resolving.target import target_of
    from omni_config.schema.document import Document
    from omni_config.schema.settings import settings_of

    qwen, z_image = catalog().model("Qwen/Qwen-Image"), catalog().model("Tongyi-MAI/Z-Image")
    engine = catalog().engine("vllm-omni")
    assert qwen
    assert z_image
    assert engine
    plain = settings_of(Document.model_validate({"version": 1, "model": qwen.id, "engine": engine.id}))
    switches = dict.fromkeys(("cache_dit", "enable_cpu_offload", "vae_use_tiling"), (False, True))
    count = len(list(valid(plain, target_of(qwen, engine), 1024, switches)))
    timed(f"{count} valid plans on 1,024 GPUs", lambda: list(valid(plain, target_of(qwen, engine), 1024, switches)))
    broken = plain | {"gpus": 8, "tensor_parallel_size": 4, "ulysses_degree": 3, "tea_cache": True, "cache_dit": True}
    timed("nearest valid configurations", lambda: nearest(broken, target_of(z_image, engine)))


def in_turn(commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    """Run commands A B A B ..., print the medians and the ratio of the first to the last; the medians in seconds."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            begun, before = time.perf_counter(), processor_time()
            done = subprocess.run(command, capture_output=True)
            if run:  # the first of each warms the disk
                taken[name].append((time.perf_counter() - begun, processor_time() - before))
            assert done.returncode == 0, done.stderr.decode()[-2000:]
    medians = {name: [statistics.median(times) for times in zip(*taken[name], strict=True)] for name in commands}
    for name, (clock, processor) in medians.items():
        print(f"  {name:<28} {clock * 1000:8.0f} ms, {processor * 1000:8.0f} ms of a processor")
    first, last = next(iter(medians.values())), list(medians.values())[-1]
    print(f"  ratio                        {first[0] / last[0]:8.2f}     {first[1] / last[1]:8.2f}")
    return {name: clock for name, (clock, _) in medians.items()}


def processor_time() -> float:
    """Seconds of a processor that the commands have taken so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(name: str, call: Callable[[], object]) -> None:
    """Print the median of 10 calls."""
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    print(f"  {name:<28} {statistics.median(times) * 1000:8.0f} ms")


if __name__ == "__main__":
    print(json.dumps({"python": sys.version.split()[0]}))
    main()
