"""Acceptance of the built-in runtime on a machine with GPUs: ``python tests/gpu``; 8 minutes at most.

It needs torch, diffusers, cache-dit and omni-config, and downloads nothing: weights are random, made on the device, in
the dimensions of published models. It prints a Markdown table, and the same as one line of JSON. A case that fails,
hangs or runs out of memory is a row, and the others go on. Without a GPU, or with --tiny, it runs tiny pipelines on the
CPU, which shows that every case runs, and says nothing about time or memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
try:
    import omni_config  # noqa: F401  (the wheel, where it is installed)
except ModuleNotFoundError:
    sys.path.insert(1, str(HERE.parents[1]))

from cases import OF_ONE_GPU, Case, of_several_gpus  # noqa: E402

START = 120.0  # seconds in which a worker imports and makes its pipeline
#: The goals: at most this share of plain diffusers' seconds a step; of the estimate, at most this far.
OVERHEAD, MEMORY, SECONDS = 1.01, 0.10, 0.25
LIKE = 30.0  # dB in which latents of what should change nothing must agree, in bfloat16

Row = dict[str, Any]


def main() -> int:
    """Run the cases; the exit code is 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python tests/gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="Tiny pipelines; without a GPU always.")
    parser.add_argument("--model", choices=[*OF_ONE_GPU], action="append", help="Only these.")
    parser.add_argument("--case", action="append", help="Only cases whose name has one of these words.")
    parser.add_argument("--ranks", type=int, help="Ranks of the axes; by default the GPUs, at most 4, and 0 without.")
    parser.add_argument("--limit", type=float, default=480.0, help="Seconds for all.")
    parser.add_argument("--json", type=Path, help="File for the JSON, too.")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.limit
    machine = look()
    tiny = arguments.tiny or not machine["gpus"]
    ranks = arguments.ranks
    if ranks is None:
        ranks = max((count for count in (2, 4) if count <= len(machine["gpus"])), default=0)
    rows: list[Row] = []

    def wanted(case: Case) -> bool:
        return not arguments.case or any(word.lower() in case.name.lower() for word in arguments.case)

    for model in arguments.model or OF_ONE_GPU:
        for table in (OF_ONE_GPU[model], of_several_gpus(model, ranks) if ranks > 1 else ()):
            for row in run(model, [case for case in table if wanted(case)], end, tiny=tiny):
                rows.append(row)
                print(f"{row['model']}, {row['case']}: {row['result']}", file=sys.stderr, flush=True)
    result = {"machine": machine, "tiny": tiny, "rows": rows}
    print(markdown(result))
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(row["result"].startswith("failed") for row in rows))


def look() -> dict[str, Any]:
    """The GPUs and the versions, asked in a process of its own, so that this one holds no GPU memory."""
    code = (
        "import json, torch; from importlib.metadata import version as v;"
        "n = torch.cuda.device_count() if torch.cuda.is_available() else 0;"
        "print(json.dumps({'gpus': [torch.cuda.get_device_name(i) for i in range(n)],"
        "'gib': torch.cuda.get_device_properties(0).total_memory / 2**30 if n else None, 'cuda': torch.version.cuda,"
        "**{p: v(p) for p in ('torch', 'diffusers', 'cache-dit', 'transformers')}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(model: str, cases: list[Case], end: float, *, tiny: bool) -> Iterator[Row]:
    """The rows of a pipeline's cases, in as many processes as it takes."""
    waiting = {case.name: case for case in cases}
    while waiting:
        if time.monotonic() > end:
            yield from (_row(model, name, "not run: no time left") for name in waiting)
            return
        before = len(waiting)
        for told in _worker(model, [*waiting.values()], end, tiny=tiny):
            case = waiting.pop(told["end"])
            yield _row(model, case.name, judged(case, told, tiny=tiny), **told)
        if len(waiting) == before:  # it did not even begin
            yield from (_row(model, name, "failed: the pipeline could not be made") for name in waiting)
            return


def _row(model: str, case: str, result: str, **measured: Any) -> Row:
    return {"model": model, "case": case, "result": result} | {k: v for k, v in measured.items() if k != "end"}


def _worker(model: str, cases: list[Case], end: float, *, tiny: bool) -> Iterator[Row]:
    """Start a process a rank, and follow what it tells, until it ends or takes too long."""
    ranks = cases[0].ranks
    with tempfile.TemporaryDirectory(prefix="omni-gpu-") as folder:
        rows, log = Path(folder, "rows"), Path(folder, "log")
        rows.touch()
        line = [sys.executable, str(HERE / "worker.py")]
        if ranks > 1:
            start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
            line = [sys.executable, *start, str(HERE / "worker.py")]
        line += [model, str(rows), "tiny" if tiny else "large", *(case.name for case in cases)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"OMP_NUM_THREADS": "1"} if tiny else {}
        environment |= {"CUDA_VISIBLE_DEVICES": ""} if tiny else {}
        with log.open("w") as file, rows.open() as told:
            process = subprocess.Popen(line, stdout=file, stderr=file, env=environment, start_new_session=True)
            limits = {case.name: case.limit for case in cases}
            running, until = None, time.monotonic() + START
            try:
                while True:
                    ended = process.poll() is not None
                    for text in told:
                        event = json.loads(text)
                        if "begin" in event:
                            running, until = event["begin"], time.monotonic() + limits[event["begin"]]
                        else:
                            running, until = None, time.monotonic() + START
                            yield event
                    late = time.monotonic() > min(until, end)
                    if ended or late:
                        if running is not None:
                            why = "no time left" if time.monotonic() > end else f"more than {limits[running]:g} s"
                            yield {"end": running, "error": why if late else f"exit code {process.returncode}"}
                        if process.returncode or late:
                            print(log.read_text()[-3000:], file=sys.stderr)
                        return
                    time.sleep(0.05)
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a worker with all its ranks: they are a process group of their own."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def judged(case: Case, told: Row, *, tiny: bool) -> str:
    """The result of a case in a few words: whether it ran, and which goals it misses."""
    if "error" in told:
        return f"failed: {told['error']}"
    if "cannot" in told:
        return f"left out: {told['cannot']}"
    missed = []
    if case.exact and told.get("psnr", LIKE) < LIKE:
        missed.append(f"latents are {told['psnr']:.0f} dB from those of the plain pipeline")
    if not tiny:
        if case.name == "plain" and told["against"] > OVERHEAD:
            missed.append(f"a step takes {told['against']:.3f} of plain diffusers'")
        checks: tuple[tuple[str, str, float, Callable[[Row], float | None]], ...] = (
            ("memory", "estimated_gib", MEMORY, lambda row: row["gib"]),
            ("seconds", "estimated_seconds", SECONDS, lambda row: row["seconds"]),
        )
        for what, key, most, real in checks:
            value = real(told)
            if told[key] and value and abs(told[key] / value - 1) > most:
                missed.append(f"{what} estimated {told[key] / value - 1:+.0%}")
    cached = [steps for one in told["features"].values() if (steps := one.get("cached_steps")) is not None]
    said = "runs" + "".join(f", {len(steps)} steps reused" for steps in cached)
    return said + (f"; misses: {', '.join(missed)}" if missed else "")


def markdown(result: dict[str, Any]) -> str:
    """The table, under a line about the machine."""
    machine = result["machine"]
    where = f"{len(machine['gpus'])} x {machine['gpus'][0]}" if machine["gpus"] else "CPU"
    sizes = "tiny pipelines, of which time and memory say nothing" if result["tiny"] else "real dimensions, bfloat16"
    names = ("torch", "diffusers", "cache-dit", "transformers")
    lines = [
        f"{where}, {sizes}; {', '.join(f'{name} {machine[name]}' for name in names)}",
        "",
        "| model | case | s a step | of plain | s in all | estimated | GiB | estimated | like plain | result |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in result["rows"]:
        cells = [
            _number(row, "step", ".4f"),
            _number(row, "against", ".3f"),
            _number(row, "seconds", ".2f"),
            _number(row, "estimated_seconds", ".2f"),
            _number(row, "gib", ".2f"),
            _number(row, "estimated_gib", ".2f") if not result["tiny"] else "",
            _number(row, "psnr", ".0f", " dB"),
        ]
        lines.append(f"| {row['model']} | {row['case']} | {' | '.join(cells)} | {row['result'].replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def _number(row: Row, key: str, form: str, unit: str = "") -> str:
    value = row.get(key)
    return f"{value:{form}}{unit}" if value else ""


if __name__ == "__main__":
    sys.exit(main())
