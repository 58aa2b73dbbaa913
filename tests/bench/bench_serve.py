"""What serving costs, what batches and replicas bring, and a load with clients that leave: the embedded model.

    python tests/bench/bench_serve.py [overhead] [batches] [replicas] [load]

The first three compare in turn, so that a busy machine slows both sides. Prints numbers; of the load, it also fails
where an answer is wrong, the queue grows past its bound, or memory grows by 5% from request 100 on.
"""

from __future__ import annotations

import asyncio
import base64
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from live_server import Server, image

GENERATE = "/v1/images/generations"
QUEUE = 32
REQUESTS, CONCURRENCY, SEEDS = 1000, 16, 8


def main() -> None:
    wanted = sys.argv[1:] or ["overhead", "batches", "replicas", "load"]
    for name in wanted:
        {"overhead": overhead, "batches": batches, "replicas": replicas, "load": load}[name]()


def start(*arguments: str) -> Server:
    """A server of one rank and one thread, so that the client has a core of its own."""
    return Server(Path(tempfile.mkdtemp()), "tiny", *arguments).wait_until_ready()


def end(server: Server) -> None:
    server.ask_to_end()
    assert server.end() == 0


def overhead(rounds: int = 40) -> None:
    """One request after the other, against the pipeline called in this process; 20 steps of 64 px, medians."""
    torch.set_num_threads(1)
    server, pipe = start(), pipeline()
    session = httpx.Client(base_url=server.url, timeout=120)
    times: dict[str, list[float]] = {"served": [], "called": []}
    for seed in range(rounds):
        begun = time.perf_counter()
        answer = session.post(GENERATE, json={"prompt": "a red star", "seed": seed}).json()
        served = answer["data"][0]["b64_json"]
        times["served"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        called = base64.b64encode(call(pipe, "a red star", seed)).decode()
        times["called"].append(time.perf_counter() - begun)
        assert abs(image(served) - image(called)).max() <= 1
    ratios = sorted(a / b for a, b in zip(times["served"], times["called"], strict=True))
    print(f"one request at a time, {rounds} of each in turn, 20 steps of 64 px, one rank, one thread")
    for name, taken in times.items():
        print(f"  {name:<10} {statistics.median(taken) * 1000:8.1f} ms")
    print(
        f"  ratio      {statistics.median(ratios):8.3f}   (middle half: {ratios[rounds // 4]:.3f} to "
        f"{ratios[3 * rounds // 4]:.3f})"
    )
    end(server)


def pipeline() -> Any:
    from diffusers import ZImagePipeline

    from runtime.pipeline.load import FOLDERS

    pipe = ZImagePipeline.from_pretrained(FOLDERS["tiny"], dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, prompt: str, seed: int) -> bytes:
    """A PNG, from the pipeline alone."""
    given = {"width": 64, "height": 64, "num_inference_steps": 20, "guidance_scale": 2.0}
    image = pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **given).images[0]
    data = BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def batches() -> None:
    """A server that makes four images a call, and one that makes one."""
    compare({f"up to {size} a call": start("--max-batch-size", str(size)) for size in (4, 1)})


def replicas() -> None:
    """Two replicas of one rank, and one."""
    compare({f"{count} replicas": start("--data-parallel-size", str(count)) for count in (2, 1)})


def compare(servers: dict[str, Server], rounds: int = 6, each: int = 16) -> None:
    """Sixteen requests at once, to the first server and to the other in turn."""
    taken: dict[str, list[float]] = {name: [] for name in servers}
    for server in servers.values():
        while set(server.get("/ready").json()["replicas"]) != {"ready"}:
            time.sleep(0.1)
    with ThreadPoolExecutor(each) as pool:
        for _ in range(rounds):
            for name, server in servers.items():
                begun = time.perf_counter()
                asked = [{"prompt": "a red star", "seed": seed} for seed in range(each)]
                posts = [pool.submit(httpx.post, server.url + GENERATE, json=body, timeout=300) for body in asked]
                assert all(post.result().status_code == 200 for post in posts)
                taken[name].append(time.perf_counter() - begun)
    print(f"{each} requests at once, {rounds} times, 20 steps of 64 px; medians")
    for name, seconds in taken.items():
        print(f"  {name:<14} {60 * each / statistics.median(seconds):8.0f} images a minute")
    first, other = taken.values()
    print(f"  ratio          {statistics.median(b / a for a, b in zip(first, other, strict=True)):8.2f}")
    for server in servers.values():
        end(server)


def load() -> None:
    """A thousand requests of two steps; a tenth of the clients closes the connection before the answer."""
    server = start("--max-batch-size", "4", "--max-queue", str(QUEUE), "--num-inference-steps", "2")
    body = [{"prompt": f"a red star number {seed}", "seed": seed, "size": "32x32"} for seed in range(SEEDS)]
    right = [
        image(httpx.post(server.url + GENERATE, json=one, timeout=60).json()["data"][0]["b64_json"]) for one in body
    ]
    outcomes: Counter[str] = Counter()
    memory: list[tuple[int, float]] = []
    deepest = 0.0
    draw = random.Random(0)

    async def one(client: httpx.AsyncClient, limit: asyncio.Semaphore, number: int) -> None:
        nonlocal deepest
        async with limit:
            seed, leaves = number % SEEDS, draw.random() < 0.1
            post = client.post(GENERATE, json=body[seed])
            if leaves:
                try:
                    await asyncio.wait_for(post, draw.uniform(0.001, 0.3))
                    outcomes["answered before it left"] += 1
                except TimeoutError:
                    outcomes["left"] += 1
                return
            while (answer := await post).status_code == 429:
                outcomes["told to come again"] += 1
                await asyncio.sleep(int(answer.headers["retry-after"]) * draw.uniform(0.2, 1))
                post = client.post(GENERATE, json=body[seed])
            assert answer.status_code == 200, answer.text
            made = image(answer.json()["data"][0]["b64_json"])
            outcomes["right" if abs(made - right[seed]).max() <= 2 else "wrong"] += 1
            if number % 50 == 0:
                memory.append((number, resident(server)))
                depth = await client.get("/metrics")
                lines = dict(line.rsplit(" ", 1) for line in depth.text.splitlines() if line[0] != "#")
                deepest = max(deepest, float(lines["omni_queue_depth"]))

    async def all_of_them() -> None:
        limit = asyncio.Semaphore(CONCURRENCY)
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            await asyncio.gather(*(one(client, limit, number) for number in range(REQUESTS)))

    begun = time.perf_counter()
    asyncio.run(all_of_them())
    seconds = time.perf_counter() - begun
    early = statistics.median(size for number, size in memory if 100 <= number <= 250)
    late = statistics.median(size for number, size in memory if number >= REQUESTS - 150)
    print(f"{REQUESTS} requests at concurrency {CONCURRENCY}, 2 steps of 32 px, batches of up to 4: {seconds:.0f} s")
    print("  " + ", ".join(f"{name}: {count}" for name, count in outcomes.most_common()))
    print(f"  deepest queue {deepest:.0f} of {QUEUE}")
    print(f"  memory {early:.1f} MiB at requests 100 to 250, {late:.1f} at the end: {100 * (late / early - 1):+.1f}%")
    end(server)
    assert outcomes["wrong"] == 0
    assert deepest <= QUEUE
    assert late < 1.05 * early
    assert server.left() == []


def resident(server: Server) -> float:
    """MiB of the server and its rank."""
    processes = [psutil.Process(server.process.pid), *server.ranks()]
    return sum(process.memory_info().rss for process in processes) / 2**20


if __name__ == "__main__":
    main()
