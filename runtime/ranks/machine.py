"""The job of measuring a machine: ``machine FOLDER``, with ``FOLDER/machine.json``.

All ranks measure the same at the same time, as they would compute: what they share, they share here, too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn

from runtime.ranks import job

if TYPE_CHECKING:
    import torch

    from runtime.events import Writer

_LEAST, _MOST = 3, 200  # calls that are timed
NORMS = (2**16, 2**20, 2**24)  # bytes
SENT = (2**12, 2**16, 2**18, 2**20, 2**22)  # bytes that a rank brings
PAIR = 2**22
_HEAD = 32  # numbers of a head
#: Of diffusers' attention backends those that torch itself has, by its names for them.
BACKENDS = {
    "native": None,
    "_native_flash": "FLASH_ATTENTION",
    "_native_cudnn": "CUDNN_ATTENTION",
    "_native_efficient": "EFFICIENT_ATTENTION",
}


def main(words: Sequence[str]) -> NoReturn:
    """Measure and end the process."""
    parser = argparse.ArgumentParser(description="Measures rates of a machine; torchrun starts it.")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args(words)
    job.end_with(lambda events: _measure(arguments.folder, events), int(os.environ["RANK"]), arguments.folder)


def _measure(folder: Path, events: Writer) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    from runtime.device import device

    asked = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    events.progress("loading")
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    on = device()
    if ranks > 1:
        dist.init_process_group("nccl" if on.type == "cuda" else "gloo")
    clock = _Clock(on, ranks, asked["seconds"])
    work = list(_work(asked, on, rank, ranks, clock))
    result: dict[str, Any] = {}
    with torch.inference_mode():
        for done, (section, item, measure) in enumerate(work):
            events.progress("recording", done, len(work))
            found = measure(len(work))
            if found is not None:
                result.setdefault(section, []).append(item | found)
    threads = torch.get_num_threads() if on.type == "cpu" else None
    return {"measured": result, "device": _described(on), "threads": threads}


#: What is measured: a section of the file, the sizes, and what does it in one of so many parts of the time.
_Item = tuple[str, dict[str, Any], Callable[[int], dict[str, Any] | None]]


class _Clock:
    """Seconds of calls on this rank, all ranks calling at once."""

    def __init__(self, on: torch.device, ranks: int, seconds: float) -> None:
        self.on, self.ranks, self.seconds = on, ranks, seconds

    def wait(self) -> None:
        """Until what was called is done."""
        import torch

        if self.on.type == "cuda":
            torch.cuda.synchronize()

    def meet(self) -> None:
        """Until all ranks are here."""
        import torch.distributed as dist

        self.wait()
        if self.ranks > 1:
            dist.barrier()

    def of(self, call: Callable[[], Any], parts: int, *, together: bool = False) -> float:
        """The median of as many calls as fill a part of the time; ``together``: ranks make the same number of calls."""
        import torch
        import torch.distributed as dist

        call()
        self.meet()
        begun = time.perf_counter()
        call()
        self.wait()
        count = (self.seconds / parts) / max(time.perf_counter() - begun, 1e-7)
        if together:
            agreed = torch.tensor([count], device=self.on)
            dist.all_reduce(agreed)
            count = float(agreed.item()) / self.ranks
        taken = []
        self.meet()
        for _ in range(int(min(max(count, _LEAST), _MOST))):
            begun = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return median(taken)


def _work(asked: dict[str, Any], on: torch.device, rank: int, ranks: int, clock: _Clock) -> Iterator[_Item]:
    import torch

    dtype: torch.dtype = getattr(torch, asked["dtype"])
    products = {
        (rows, inputs, outputs)
        for rows in asked["tokens"]
        for one in asked["shapes"]
        for inputs, outputs in (
            (one["hidden"], one["hidden"]),
            (one["hidden"], one["ffn"]),
            (one["hidden"], one["ffn"] // 2),
        )
    }
    for rows, inputs, outputs in sorted(products):
        shape = {"dtype": asked["dtype"], "rows": rows, "inputs": inputs, "outputs": outputs}
        yield "matmul", shape, partial(_product, (rows, inputs, outputs), on, dtype, clock)
    scores = {
        (tokens, heads, one["head_size"])
        for tokens in asked["tokens"]
        for one in asked["shapes"]
        for heads in (one["heads"], one["heads"] // 2)
        if heads
    }
    for backend in BACKENDS if on.type == "cuda" else ["native"]:
        for tokens, heads, head_size in sorted(scores):
            shape = {"dtype": asked["dtype"], "backend": backend}
            shape |= {"tokens": tokens, "heads": heads, "head_size": head_size}
            yield "attention", shape, partial(_attention, (tokens, heads, head_size), backend, on, dtype, clock)
    width = max(one["hidden"] for one in asked["shapes"])
    for size in NORMS:
        yield "norm", {"bytes": size}, partial(_norm, size, width, on, dtype, clock)
    yield "decode", {}, partial(_convolution, on, dtype, clock)
    if on.type == "cuda":
        yield "host", {}, partial(_from_host, on, clock)
    if ranks > 1:
        for kind, call in _COLLECTIVES.items():
            for sent in SENT:
                item = {"kind": kind, "ranks": ranks, "bytes": sent}
                yield "collectives", item, partial(_together, call, sent, on, rank, ranks, clock)
        for one in range(ranks):
            for other in range(one + 1, ranks):
                pair = (one, other)
                yield "pairs", {"ranks": list(pair)}, partial(_between, pair, on, rank, clock)


def _product(
    shape: tuple[int, int, int], on: torch.device, dtype: torch.dtype, clock: _Clock, parts: int
) -> dict[str, Any]:
    import torch

    rows, inputs, outputs = shape
    x = torch.randn(rows, inputs, device=on).to(dtype)
    weight, bias = torch.randn(outputs, inputs, device=on).to(dtype), torch.randn(outputs, device=on).to(dtype)
    taken = clock.of(lambda: torch.nn.functional.linear(x, weight, bias), parts)
    return {"tflops": 2 * rows * inputs * outputs / taken / 1e12}


def _attention(
    shape: tuple[int, int, int], backend: str, on: torch.device, dtype: torch.dtype, clock: _Clock, parts: int
) -> dict[str, Any] | None:
    """None where this GPU has no such backend, or not for this shape."""
    from contextlib import nullcontext

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tokens, heads, head_size = shape
    q, k, v = (torch.randn(1, heads, tokens, head_size, device=on).to(dtype) for _ in range(3))
    named = BACKENDS[backend]
    with nullcontext() if named is None else sdpa_kernel(getattr(SDPBackend, named)):
        try:
            taken = clock.of(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v), parts)
        except RuntimeError as error:
            if named is None or isinstance(error, torch.OutOfMemoryError):
                raise
            return None
    return {"tflops": 4 * tokens**2 * heads * head_size / taken / 1e12}


def _norm(size: int, width: int, on: torch.device, dtype: torch.dtype, clock: _Clock, parts: int) -> dict[str, Any]:
    """Reads and writes so many bytes of activations."""
    import torch

    x = torch.randn(max(1, size // dtype.itemsize // width), width, device=on).to(dtype)
    taken = clock.of(lambda: torch.nn.functional.layer_norm(x, (width,)), parts)
    return {"bandwidth": 2 * x.nbytes / taken / 1e9}


def _convolution(on: torch.device, dtype: torch.dtype, clock: _Clock, parts: int) -> dict[str, Any]:
    """The convolution of which a decoder's last and largest levels are made: 3 x 3, 128 channels."""
    import torch

    pixels, channels = (512, 128) if on.type == "cuda" else (64, 128)
    x = torch.randn(1, channels, pixels, pixels, device=on).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=on).to(dtype)
    taken = clock.of(lambda: torch.nn.functional.conv2d(x, weight, padding=1), parts)
    return {"tflops": 2 * 9 * channels**2 * pixels**2 / taken / 1e12}


def _from_host(on: torch.device, clock: _Clock, parts: int) -> dict[str, Any]:
    """From pageable memory, as weights that are offloaded lie where nothing pins them."""
    import torch

    x = torch.empty(2**28, dtype=torch.uint8)
    return {"bandwidth": x.nbytes / clock.of(lambda: x.to(on), parts) / 1e9}


def _together(
    call: Callable[[torch.Tensor, int, int], Any],
    sent: int,
    on: torch.device,
    rank: int,
    ranks: int,
    clock: _Clock,
    parts: int,
) -> dict[str, Any]:
    import torch

    x = torch.zeros(max(1, sent // 4 // (ranks * _HEAD)) * ranks * _HEAD, device=on)  # whole heads for each rank
    return {"seconds": clock.of(lambda: call(x, rank, ranks), parts, together=True)}


def _all_to_all(x: torch.Tensor, _: int, ranks: int) -> None:
    """As Ulysses has it: heads are put together for each rank, and tokens behind each other again."""
    import torch
    import torch.distributed as dist

    heads = x.reshape(-1, ranks, _HEAD).transpose(0, 1).contiguous()
    found = torch.empty_like(heads)
    dist.all_to_all_single(found, heads)
    found.reshape(-1, 1, _HEAD).transpose(0, 1).contiguous()


def _ring(x: torch.Tensor, rank: int, ranks: int) -> None:
    """As ring attention has it: keys and values, each a half of what is sent, to the next rank."""
    import torch
    import torch.distributed as dist

    parts = x.tensor_split(2)
    ahead, behind = (rank + 1) % ranks, (rank - 1) % ranks
    operations = []
    for part in parts:
        operations.append(dist.P2POp(dist.isend, part, ahead))
        operations.append(dist.P2POp(dist.irecv, torch.empty_like(part), behind))
    for request in dist.batch_isend_irecv(operations):
        request.wait()


def _all_reduce(x: torch.Tensor, _: int, __: int) -> None:
    import torch.distributed as dist

    dist.all_reduce(x)


def _all_gather(x: torch.Tensor, _: int, ranks: int) -> None:
    import torch.distributed as dist

    dist.all_gather_into_tensor(x.new_empty(ranks * x.numel()), x)


_COLLECTIVES = {"all-to-all": _all_to_all, "ring": _ring, "all-reduce": _all_reduce, "all-gather": _all_gather}


def _between(pair: tuple[int, int], on: torch.device, rank: int, clock: _Clock, _: int) -> dict[str, Any]:
    """GB a second from one rank of a pair to the other, the others waiting."""
    import torch
    import torch.distributed as dist

    x = torch.zeros(PAIR // 4, device=on)
    taken: list[float] = []
    for number in range(6):  # the first makes the connection
        clock.meet()
        begun = time.perf_counter()
        if rank == pair[0]:
            dist.send(x, pair[1])
        elif rank == pair[1]:
            dist.recv(x, pair[0])
        clock.wait()
        clock.meet()
        if number:
            taken.append(time.perf_counter() - begun)
    return {"bandwidth": PAIR / median(taken) / 1e9}


def _described(on: torch.device) -> dict[str, Any]:
    import torch

    if on.type != "cuda":
        return {"type": "cpu"}
    properties = torch.cuda.get_device_properties(on)
    return {"type": "gpu", "name": properties.name, "memory": properties.total_memory / 2**30}
