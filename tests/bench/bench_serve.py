"""What serving costs, what batches and replicas bring, how long requests wait, and a load with clients that leave.

    python tests/bench/bench_serve.py overhead     # of a request, against the pipeline alone
    python tests/bench/bench_serve.py batches      # of four, against one image a call
    python tests/bench/bench_serve.py replicas     # two of them, against one
    python tests/bench/bench_serve.py waiting      # at 70% of what two replicas make, against a queue of theory
    python tests/bench/bench_serve.py memory       # after 3,000 requests, against the first hundreds
    python tests/bench/bench_serve.py load         # 1,000 requests, a tenth of them left by their clients

Each takes at most four minutes, and prints its ratio; without a name, all of them. The first three compare in turn, so
that a busy machine slows both sides. The load also fails where an answer is wrong, the queue grows past its bound, or
memory grows by 5% from request 100 on.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from live_server import Server, image

from omni_config.planner.queueing import percentile_99

GENERATE = "/v1/images/generations"
QUEUE = 32
REQUESTS, CONCURRENCY, SEEDS = 1000, 16, 8


def main() -> None:
    commands = {one.__name__: one for one in (overhead, batches, replicas, waiting, memory, load)}
    for name in sys.argv[1:] or commands:
        commands[name]()


def start(*arguments: str) -> Server:
    """A server of one rank and one thread, so that the client has a core of its own."""
    return Server(Path(tempfile.mkdtemp()), "tiny", *arguments).wait_until_ready()


def end(server: Server) -> None:
    server.ask_to_end()
    assert server.end() == 0


def overhead() -> None:
    """One request after the other, against the pipeline called in this process; medians."""
    torch.set_num_threads(1)
    server, pipe = start(), pipeline()
    session = httpx.Client(base_url=server.url, timeout=120)
    for steps, rounds in ((20, 40), (100, 10)):
        times: dict[str, list[float]] = {"served": [], "called": []}
        for seed in range(rounds):
            body = {"prompt": "a red star", "seed": seed, "num_inference_steps": steps}
            begun = time.perf_counter()
            served = session.post(GENERATE, json=body).json()["data"][0]["b64_json"]
            times["served"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            called = base64.b64encode(call(pipe, "a red star", seed, steps)).decode()
            times["called"].append(time.perf_counter() - begun)
            assert abs(image(served) - image(called)).max() <= 1
        ratios = sorted(a / b for a, b in zip(times["served"], times["called"], strict=True))
        print(f"one request at a time, {rounds} of each in turn, {steps} steps of 64 px, one rank, one thread")
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


def call(pipe: Any, prompt: str, seed: int, steps: int) -> bytes:
    """A PNG, from the pipeline alone."""
    given = {"width": 64, "height": 64, "num_inference_steps": steps, "guidance_scale": 2.0}
    image = pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **given).images[0]
    data = BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def batches() -> None:
    """A server that makes four images a call, and one that makes one."""
    compare({f"up to {size} a call": start("--max-batch-size", str(size)) for size in (4, 1)})


def replicas() -> None:
    """Two replicas of one rank, and one; and what two processes of the pipeline alone make, which is the most."""
    for steps, rounds in ((20, 6), (100, 2)):
        servers = {f"{count} replicas": start("--data-parallel-size", str(count)) for count in (2, 1)}
        compare(servers, rounds, steps=steps)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            seconds = [max(pool.map(alone, [steps] * count)) for count in (2, 2, 1, 2, 1, 2, 1)][1:]
        ratio = 2 * statistics.median(seconds[1::2]) / statistics.median(seconds[::2])
        print(f"  the pipeline alone, two processes against one: {ratio:.2f}")


@cache
def pipeline_of_process() -> Any:
    return pipeline()


def alone(steps: int) -> float:
    """Seconds of a few images, in a process of its own."""
    pipe = pipeline_of_process()
    time.sleep(0.5)  # the other process has taken its own by then
    begun = time.perf_counter()
    for seed in range(400 // steps):
        call(pipe, "a red star", seed, steps)
    return time.perf_counter() - begun


def compare(servers: dict[str, Server], rounds: int = 6, each: int = 16, steps: int = 20) -> None:
    """Sixteen requests at once, to the first server and to the other in turn."""
    taken: dict[str, list[float]] = {name: [] for name in servers}
    for server in servers.values():
        while set(server.get("/ready").json()["replicas"]) != {"ready"}:
            time.sleep(0.1)
    with ThreadPoolExecutor(each) as pool:
        for _ in range(rounds):
            for name, server in servers.items():
                begun = time.perf_counter()
                common = {"prompt": "a red star", "num_inference_steps": steps}
                asked = [common | {"seed": seed} for seed in range(each)]
                posts = [pool.submit(httpx.post, server.url + GENERATE, json=body, timeout=300) for body in asked]
                assert all(post.result().status_code == 200 for post in posts)
                taken[name].append(time.perf_counter() - begun)
    print(f"{each} requests at once, {rounds} times, {steps} steps of 64 px; medians")
    for name, seconds in taken.items():
        print(f"  {name:<14} {60 * each / statistics.median(seconds):8.0f} images a minute")
    first, other = taken.values()
    print(f"  ratio          {statistics.median(b / a for a, b in zip(first, other, strict=True)):8.2f}")
    for server in servers.values():
        end(server)


def waiting(seconds: float = 100, count: int = 2) -> None:
    """Requests that arrive at random, at 70% of what the replicas make; and the same ones where each takes as long as
    the mean, the front takes nothing, and the first that is free takes the next (a queue M/D/c). And what the planner
    says of that queue, for arrivals that are as likely as these.
    """
    server = start(
        "--data-parallel-size", str(count), "--num-inference-steps", "8", "--max-queue", "1000", "--json-logs"
    )
    while set(server.get("/ready").json()["replicas"]) != {"ready"}:
        time.sleep(0.1)

    async def ask(times: Sequence[float], at_once: int) -> None:
        limit, begun = asyncio.Semaphore(at_once), time.perf_counter()

        async def one(client: httpx.AsyncClient, seed: int, arrives: float) -> None:
            await asyncio.sleep(begun + arrives - time.perf_counter())
            async with limit:
                answer = await client.post(GENERATE, json={"prompt": "a red star", "seed": seed})
            assert answer.status_code == 200, answer.text

        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
            await asyncio.gather(*(one(client, seed, arrives) for seed, arrives in enumerate(times)))

    asyncio.run(ask([0.0] * 20 * count, count))
    busy = statistics.mean(made for _, made in requests_of(server)[5 * count :])
    draw, rate = random.Random(0), 0.7 * count / busy
    arrivals: list[float] = []
    while (after := (arrivals[-1] if arrivals else 0.0) + draw.expovariate(rate)) < seconds:
        arrivals.append(after)
    before = len(requests_of(server))
    asyncio.run(ask(arrivals, len(arrivals)))
    taken = requests_of(server)[before:]
    assert len(taken) == len(arrivals)
    mean = statistics.mean(made for _, made in taken)
    waited = waits(arrivals, mean, count)
    came = len(arrivals) / arrivals[-1]
    print(f"{len(arrivals)} requests in {seconds:g} s, {count} replicas, 8 steps of 64 px: {mean * 1000:.0f} ms each")
    print(f"  busy {came * mean / count:.0%} of the time (aim: 70%)")
    print(f"  {'ms':<12} {'measured':>9} {f'M/D/{count}':>9} {'ratio':>6}   the same arrivals, each taking the mean")
    compared("waits", [wait for wait, _ in taken], waited)
    compared("answers", [wait + made for wait, made in taken], [wait + mean for wait in waited])
    answered, simulated = place([wait + made for wait, made in taken], 0.99), place(waited, 0.99) + mean
    planned = percentile_99(came, count, [mean])
    print(f"  the planner, of no arrivals in particular: 99% answered in {planned * 1000:.0f} ms; ", end="")
    print(f"measured / planned {answered / planned:.2f}, simulated / planned {simulated / planned:.2f}")
    within = abs(answered / simulated - 1) <= 0.15
    print(f"  goal, 99% of answers within 15% of the queue's: {'holds' if within else 'does not hold'}")
    end(server)


def compared(name: str, measured: Sequence[float], simulated: Sequence[float]) -> None:
    """A row each of the median, of what 99% keep, and of the mean."""
    for what, of in (("p50", lambda v: place(v, 0.5)), ("p99", lambda v: place(v, 0.99)), ("mean", statistics.mean)):
        own, theirs = of(measured), of(simulated)
        ratio = f"{own / theirs:6.2f}" if theirs else "  none, as that is 0"
        print(f"  {name:<7} {what:<4} {own * 1000:9.0f} {theirs * 1000:9.0f} {ratio}")


def place(values: Sequence[float], share: float) -> float:
    """The value that a share of them does not exceed."""
    return sorted(values)[int(share * (len(values) - 1))]


def requests_of(server: Server) -> list[tuple[float, float]]:
    """Of each request in the log, the seconds that it waited, and those from then to its answer."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith('{"time"')]
    asked = [line for line in lines if line["event"] == "request" and line.get("path") == GENERATE]
    return [(line["waited"], line["seconds"] - line["waited"]) for line in asked]


def waits(arrivals: Sequence[float], each: float, servers: int) -> list[float]:
    """How long each would wait for the first of some servers that is free, of which each takes the same time."""
    free = [0.0] * servers
    waited = []
    for arrives in arrivals:
        begins = max(arrives, heapq.heappop(free))
        heapq.heappush(free, begins + each)
        waited.append(begins - arrives)
    return waited


def memory(requests: int = 3000, every: int = 50) -> None:
    """One after the other from 16 clients, two steps of 32 px, batches of up to 8."""
    server = start("--max-batch-size", "8", "--max-queue", str(QUEUE), "--num-inference-steps", "2")
    sizes: list[float] = []

    async def ask() -> None:
        numbers = iter(range(requests))

        async def client_of(client: httpx.AsyncClient) -> None:
            for number in numbers:
                body = {"prompt": f"a red star number {number}", "seed": number, "size": "32x32"}
                answer = await client.post(GENERATE, json=body)
                assert answer.status_code == 200, answer.text
                if number % every == 0:
                    sizes.append(resident(server))

        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            await asyncio.gather(*(client_of(client) for _ in range(CONCURRENCY)))

    begun = time.perf_counter()
    asyncio.run(ask())
    tenth = max(1, len(sizes) // 10)
    early, late = (statistics.median(part) for part in (sizes[tenth : 2 * tenth], sizes[-tenth:]))
    print(f"{requests} requests at concurrency {CONCURRENCY}: {time.perf_counter() - begun:.0f} s")
    print(f"  memory {early:.1f} MiB in the second tenth, {late:.1f} in the last; ratio {late / early:.3f} (aim: 1.02)")
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
