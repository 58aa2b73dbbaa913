"""Compilation: torch.compile turns each repeated block of the transformer into fused kernels (diffusers, inductor)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan compiles."""
    return plan.compile


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Compile the blocks, which happens at their first call; blocks of one class share what was compiled.

    Compiled again for a second size, they take any; layers split over tensor ranks are compiled for each.

    Raises:
        CannotRunError: this machine lacks the compiler.
    """
    _need_a_compiler()
    compat.torch.remove_unfinished_libraries()
    graphs: list[int] = []
    runs: list[int] = []
    dynamic = False if plan.mesh.tensor > 1 else None  # torch (2.13) fails at DTensors of a size that is not known
    for transformer in models.transformers(pipe):
        if not transformer._repeated_blocks:  # of the instance, which hides that of the class
            transformer._repeated_blocks = sorted(
                {type(block).__name__ for block in models.of(pipe).blocks_of(transformer)}
            )
        transformer.compile_repeated_blocks(backend=_counting(graphs, runs), dynamic=dynamic)
    return _Compiled(pipe, graphs, runs)


@dataclass(frozen=True, slots=True)
class _Compiled(Handle):
    pipe: Any
    graphs: list[int]
    runs: list[int]

    def measure(self) -> dict[str, Any]:
        """The graphs that were compiled, and how often compiled code ran."""
        return {"graphs": len(self.graphs), "graph_runs": len(self.runs)}

    def undo(self) -> None:
        """Run the blocks as Python again."""
        for transformer in models.transformers(self.pipe):
            compat.torch.run_as_python(transformer)


def _need_a_compiler() -> None:
    """Look for what inductor would miss in the middle of the first step."""
    missing = compat.torch.missing_compiler()
    if missing == "triton":
        raise CannotRunError("compile needs Triton on a GPU; next: pip install triton, or set compile to false")
    if missing:
        raise CannotRunError(f"compile needs a C++ compiler; next: install {missing}, or set compile to false")


def _counting(graphs: list[int], runs: list[int]) -> Callable[..., Any]:
    """Inductor as a backend that counts."""
    inductor = compat.torch.inductor()

    def compile_graph(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(1)
        with compat.torch.one_compiles_for_all(graph):
            compiled = inductor(graph, inputs)

        def run(*args: Any) -> Any:
            runs.append(1)
            return compiled(*args)

        return run

    return compile_graph


FEATURE = Feature("compile", catalog=("compile",), wanted=wanted, apply=apply)
