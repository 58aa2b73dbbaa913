"""Compilation: torch.compile turns each repeated block of the transformer into fused kernels (diffusers, inductor)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features import transformers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan compiles."""
    return plan.compile


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Compile the blocks, which happens at their first call; blocks of one class share what was compiled.

    Compiled again for a second size, they take any; layers split over tensor ranks are compiled for each.

    Raises:
        CannotRunError: this machine lacks the compiler, or the transformer does not name its repeated blocks.
    """
    _need_a_compiler()
    compat.remove_unfinished_libraries()
    graphs: list[int] = []
    runs: list[int] = []
    dynamic = False if plan.mesh.tensor > 1 else None  # torch (2.13) fails at DTensors of a size that is not known
    for transformer in transformers(pipe):
        try:
            transformer.compile_repeated_blocks(backend=_counting(graphs, runs), dynamic=dynamic)
        except ValueError as error:
            name = type(transformer).__name__
            raise CannotRunError(f"{name} names no repeated blocks; set compile to false") from error
    pipe._omni_compiled = graphs, runs


def measure(pipe: Any) -> dict[str, Any]:
    """The graphs that were compiled, and how often compiled code ran."""
    graphs, runs = pipe._omni_compiled
    return {"graphs": len(graphs), "graph_runs": len(runs)}


def undo(pipe: Any) -> None:
    """Run the blocks as Python again."""
    for transformer in transformers(pipe):
        for module in transformer.modules():
            module._compiled_call_impl = None


def _need_a_compiler() -> None:
    """Look for what inductor would miss in the middle of the first step."""
    import torch

    if torch.cuda.is_available():
        from torch.utils._triton import has_triton

        if not has_triton():
            raise CannotRunError("compile needs Triton on a GPU; next: pip install triton, or set compile to false")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise CannotRunError("compile needs a C++ compiler; next: install g++, or set compile to false") from error


def _counting(graphs: list[int], runs: list[int]) -> Callable[..., Any]:
    """Inductor as a backend that counts."""
    from torch._dynamo import lookup_backend

    inductor = lookup_backend("inductor")

    def compile_graph(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(1)
        with compat.one_compiles_for_all(graph):
            compiled = inductor(graph, inputs)

        def run(*args: Any) -> Any:
            runs.append(1)
            return compiled(*args)

        return run

    return compile_graph
