"""Quirks of torch (2.13), mostly of torch without a GPU."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.compat.patches import Undo, replaced

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.fx import GraphModule
    from torch.nn import Module

#: gloo and TCPStore (torch 2.13) raise a plain RuntimeError with these texts when another rank is gone.
_PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


def is_secondary(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(text in str(error) for text in _PEER_IS_GONE)


def exit_codes(log: str) -> dict[int, int]:
    """The exit code of each failed rank, from the summary that torchrun (torch 2.13) ends its output with.

    It has no other way to say how a worker ended that wrote no error file, as a killed one does not.
    """
    found = re.findall(r"rank\s*: (\d+) \(local_rank: \d+\)\s*exitcode\s*: (-?\d+)", log)
    return {int(rank): int(code) for rank, code in found}


def compile_for_forks() -> None:
    """Compile a trifle now, which imports inductor (torch 2.13) and lets it read its C++ header, 7 s on one core.

    It does so without its pool of processes, which forks would not have, and which ranks have no cores for. In forks, a
    block that torch gives up on fails, which elsewhere it runs as Python without a word.
    """
    import torch
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    with suppress(Exception):  # a machine without a compiler says so where it is needed
        torch.compile(lambda tensor: tensor + 1)(torch.zeros(1))


def one_reduction_at_a_time(model: Module) -> None:
    """Let every split layer of a model wait for its result; call it once they are split.

    gloo (torch 2.13), which a CPU has, now and then corrupts the heap when reductions are still under way as more
    begin. Split layers begin them so, as their results are awaited when used: Qwen-Image aborts in one of some
    thousand steps.
    """
    from torch.distributed._functional_collectives import AsyncCollectiveTensor

    def wait(_: Module, __: Any, output: Any) -> Any:
        return output.trigger_wait() if isinstance(output, AsyncCollectiveTensor) else output  # type: ignore[no-untyped-call]

    for layer in model.modules():
        if layer._forward_hooks:  # by which torch's tensor parallel styles gather what a layer gives
            layer.register_forward_hook(wait)


@contextmanager
def tensor_parallel_styles_split_by(split: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Let torch's (2.13) tensor parallel styles split weights with a function of a weight and its placement.

    They move each whole weight to the device, and scatter that of the first rank.
    """
    from torch.distributed.tensor.parallel import style

    undo = replaced(style, "distribute_tensor", lambda weight, _, placements, **__: split(weight, placements[0]))
    try:
        yield
    finally:
        undo()


def remove_unfinished_libraries() -> None:
    """Let inductor (torch 2.13) compile again what a run was compiling when it was ended.

    The compiler then leaves an empty library in inductor's cache, which every later run would try to load. A young one
    may still be written by another run.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    for path in Path(cache_dir()).rglob("*.so"):
        with suppress(FileNotFoundError):  # another rank was faster
            found = path.stat()
            if found.st_size == 0 and time.time() > found.st_mtime + 30:
                path.unlink()


@contextmanager
def one_compiles_for_all(graph: GraphModule) -> Iterator[None]:
    """Let ranks that share cores compile a graph in turn: all but the first find it in inductor's cache (torch 2.13).

    It is there when it is done, so that ranks which begin together would each compile it. With GPUs, ranks have cores
    enough.
    """
    import torch
    from filelock import FileLock
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    name = f"omni-{sha256(graph.code.encode()).hexdigest()[:16]}.lock"
    with nullcontext() if torch.cuda.is_available() else FileLock(Path(cache_dir(), name)):
        yield


def missing_compiler() -> str | None:
    """What inductor (torch 2.13) would miss in the middle of the first step, as a package to install; None: nothing."""
    import torch

    if torch.cuda.is_available():
        from torch.utils._triton import has_triton

        return None if has_triton() else "triton"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "g++"
    return None


def inductor() -> Callable[..., Any]:
    """Inductor as a function of a graph and its inputs; torch (2.13) has no public name for it."""
    from torch._dynamo import lookup_backend

    return lookup_backend("inductor")


def meet_in(store: Any, rank: int, world_size: int) -> Undo:
    """Let ``init_process_group`` (torch 2.13) form the group in a store; a rank of many in one torchrun has no address.

    ``init_device_mesh`` would else take the address of torchrun's own group from the environment.
    """
    import torch.distributed as dist

    where = {"store": store, "rank": rank, "world_size": world_size}
    return replaced(dist, "init_process_group", functools.partial(dist.init_process_group, **where))


def group_over(mesh: DeviceMesh, axes: tuple[str, ...]) -> ProcessGroup:
    """The process group of this rank over several axes of a mesh; torch (2.13) has a public one for one axis only."""
    return mesh[axes]._flatten().get_group()


def run_as_python(model: Module) -> None:
    """Undo ``compile_repeated_blocks``, for which torch (2.13) has no function."""
    for module in model.modules():
        module._compiled_call_impl = None


def unhook(layer: Module) -> None:
    """Take off the hooks with which torch's (2.13) tensor parallel styles turn inputs and outputs into DTensors."""
    layer._forward_pre_hooks.clear()
    layer._forward_hooks.clear()


def bytes_of_shards(model: Module) -> int:
    """The bytes of the shards that a rank holds by FSDP2 (torch 2.13), without what is gathered at the moment."""
    return sum(int(weight.sharded_param.to_local().nbytes) for weight in _sharded(model))


def unshard(model: Module) -> None:
    """Undo ``fully_shard`` of a model and its parts, for which torch (2.13) has no function; all ranks must call it."""
    from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
    from torch.distributed._composable_state import _module_state_mapping
    from torch.distributed.fsdp import FSDPModule
    from torch.nn import Parameter

    for weight in _sharded(model):
        where = weight._module_info
        whole = Parameter(weight.sharded_param.full_tensor().detach(), requires_grad=False)
        where.module.register_parameter(where.param_name, whole)
        weight._post_load_hook_handle.remove()
    for module in list(model.modules()):
        if isinstance(module, FSDPModule):
            state: Any = module._get_fsdp_state()
            handles = [state._pre_forward_hook_handle, state._post_forward_hook_handle]
            for group in state._fsdp_param_groups:
                handles += group._module_to_pre_save_state_dict_hook_handle.values()
                handles += group._module_to_pre_load_state_dict_hook_handle.values()
            for handle in handles:
                handle.remove()
            del _module_state_mapping[module]
            module.__class__ = type(module).__mro__[FSDPModule._orig_cls_mro_index]
        for name in (STATE_KEY, REGISTRY_KEY, "_is_fsdp_managed_module", "_fsdp_use_orig_params"):
            module.__dict__.pop(name, None)


def _sharded(model: Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    states: list[Any] = [module._get_fsdp_state() for module in model.modules() if isinstance(module, FSDPModule)]
    return [weight for state in states for group in state._fsdp_param_groups for weight in group.fsdp_params]
