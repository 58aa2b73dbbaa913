"""One test a function of runtime/compat: when it fails, the quirk is gone, and the function can go.

Some read the source of a library: they are meant to fail when a new version has other code there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import models
import pytest
from PIL import Image

from omni_config.estimate.data import decoders
from runtime import compat


def test_torchrun_tells_how_a_worker_was_killed_only_in_its_output(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import os, signal, time\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\ntime.sleep(60)")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert compat.torch.exit_codes(done.stdout + done.stderr)[1] == -9
    assert done.returncode == 1  # and not something that says -9


def test_only_errors_about_other_ranks_are_secondary() -> None:
    from torch.distributed import DistNetworkError

    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:11077"
    assert compat.torch.is_secondary(RuntimeError(gloo))
    assert compat.torch.is_secondary(DistNetworkError("failed to recv"))
    assert not compat.torch.is_secondary(RuntimeError("The size of tensor a (64) must match the size of tensor b (32)"))


@pytest.mark.parametrize("layers", [1, 2])
def test_cache_dit_forgets_to_split_a_single_refiner_layer(layers: int) -> None:
    from cache_dit.distributed.config import ParallelismConfig
    from diffusers import ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        dim=48, n_layers=1, n_refiner_layers=layers, n_heads=2, n_kv_heads=2, cap_feat_dim=8, axes_dims=[8, 8, 8]
    )
    planner = compat.cache_dit.sequence_planner(transformer)
    hooks = planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(ulysses_size=2))
    restored = compat.cache_dit.split_single_layers(transformer, ("noise_refiner", "context_refiner"), hooks)
    if layers == 1:
        assert not isinstance(hooks["noise_refiner.0"], dict)  # only the gathering is left of it
        for name in ("noise_refiner.0", "context_refiner.0"):
            split, gather = restored[name]
            assert split["x"].split_dim == 1
            assert gather is hooks[name]
    else:
        assert restored == hooks


def test_cache_dit_configs_lack_what_diffusers_reads() -> None:
    from cache_dit.distributed.core import _ContextParallelConfig

    config = _ContextParallelConfig(ulysses_degree=2)
    assert not hasattr(config, "tensor_parallel_config")
    compat.cache_dit.let_diffusers_read(config)
    assert config.tensor_parallel_config is None


def test_ring_attention_asks_a_cpu_for_cuda() -> None:
    import torch
    from cache_dit.attention.backends import native
    from cache_dit.distributed.core import _templated_ring

    tokens = torch.randn(1, 4, 2, 8)  # (batch, tokens, heads, head size)
    library = native._native_attention_forward_op
    merge = _templated_ring.fused_merge_attn_states
    with pytest.raises(NotImplementedError, match="_scaled_dot_product_flash_attention"):
        library(None, tokens, tokens, tokens, return_lse=True, _save_ctx=False)
    out, lse = torch.randn(1, 4, 2, 8), torch.randn(1, 4, 2, 1)
    with pytest.raises(Exception, match=r"CUDA|cuda|triton|Triton|driver|not supported"):
        merge(out, lse, out, lse)
    undo = compat.cache_dit.ring_attention_on_cpu()
    try:
        compat.cache_dit.ring_attention_on_cpu()()  # replaced before, so nothing is put back
        out, lse = native._native_attention_forward_op(None, tokens, tokens, tokens, return_lse=True, _save_ctx=False)
        scores = torch.einsum("bqhd,bkhd->bqhk", tokens, tokens) / 8**0.5
        torch.testing.assert_close(lse, scores.logsumexp(dim=-1))
        torch.testing.assert_close(out, torch.einsum("bqhk,bkhd->bqhd", scores.softmax(dim=-1), tokens))
    finally:
        undo()
    assert native._native_attention_forward_op is library
    assert _templated_ring.fused_merge_attn_states is merge


def test_cache_dit_asks_a_cpu_for_an_accelerator() -> None:
    """Why the planners get parts of our mesh instead of making their own."""
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.transformers.register import TensorParallelismPlanner

    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'type'"):
        TensorParallelismPlanner().mesh(ParallelismConfig(tp_size=2))


def test_cache_dit_registers_its_planners_only_when_its_own_entry_is_used() -> None:
    import torch
    from diffusers import AutoencoderKL, QwenImageTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    part = object()
    transformer = QwenImageTransformer2DModel(
        num_layers=1, attention_head_dim=16, num_attention_heads=4, joint_attention_dim=8, axes_dims_rope=(4, 6, 6)
    )
    assert compat.cache_dit.tensor_planner(transformer, part).mesh(None) is part
    encoder = T5EncoderModel(T5Config(vocab_size=4, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    assert compat.cache_dit.text_encoder_planner(encoder, part).mesh(None) is part
    assert hasattr(compat.cache_dit.tiling_planner(AutoencoderKL()), "parallelize_tiling")
    other = torch.nn.Linear(1, 1)
    for unknown in (
        lambda: compat.cache_dit.sequence_planner(other),
        lambda: compat.cache_dit.tensor_planner(other, part),
        lambda: compat.cache_dit.text_encoder_planner(other, part),
        lambda: compat.cache_dit.tiling_planner(other),
    ):
        with pytest.raises(ValueError, match="Linear"):
            unknown()


def test_cache_dit_sleeps_after_it_has_split_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.text_encoders import qwen3
    from transformers import Qwen3Config, Qwen3Model

    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    encoder = Qwen3Model(Qwen3Config(vocab_size=4, num_hidden_layers=1, **sizes))
    monkeypatch.setattr(qwen3, "parallelize_module", lambda **_: None)
    theirs, ours = qwen3.Qwen3TensorParallelismPlanner(), compat.cache_dit.text_encoder_planner(encoder, object())
    theirs.mesh = lambda **_: None
    for planner, sleeps in ((theirs, True), (ours, False), (theirs, True)):
        slept.clear()
        planner.apply(text_encoder=encoder, parallelism_config=ParallelismConfig(tp_size=2))
        assert bool(slept) == sleeps


def test_each_import_for_forks_is_one_that_the_libraries_leave_for_later() -> None:
    script = """
import sys
import cache_dit, diffusers
names = ["diffusers.pipelines.z_image.pipeline_z_image", "cache_dit.distributed.transformers.wan"]
assert not [name for name in names if name in sys.modules]
from runtime import compat
compat.cache_dit.import_for_forks({"ZImagePipeline"})
assert not [name for name in names if name not in sys.modules], names
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_cache_dit_and_diffusers_both_divide_the_heads_of_qwen_image() -> None:
    import inspect

    from cache_dit.distributed.transformers import qwen_image
    from diffusers import QwenImageTransformer2DModel
    from diffusers.models.transformers import transformer_qwenimage

    assert 'shard_div_attr(block.attn, "heads"' in inspect.getsource(qwen_image)
    assert "head_dim = attn.inner_dim // attn.heads" in inspect.getsource(transformer_qwenimage)
    transformer = QwenImageTransformer2DModel(
        num_layers=1, attention_head_dim=16, num_attention_heads=4, joint_attention_dim=8, axes_dims_rope=(4, 6, 6)
    )
    attention = transformer.transformer_blocks[0].attn
    attention.heads = 2
    compat.cache_dit.restore_heads(transformer, {"transformer_blocks.0.attn": 4})
    assert attention.heads == 4


def test_a_ring_receives_into_the_shape_that_it_sends() -> None:
    import inspect

    from cache_dit.distributed.core._distributed_primitives import _RingP2PComm

    assert "torch.empty_like(to_send)" in inspect.getsource(_RingP2PComm.send_recv)


def test_a_ring_of_uneven_parts_receives_into_the_length_of_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 of three, whose parts have 4, 3 and 2 tokens: first the keys of rank 2 come, then those of rank 1."""
    import torch
    from cache_dit.distributed.core import _distributed_primitives, _templated_ring

    library = _templated_ring._RingP2PComm
    received = []
    monkeypatch.setattr(library, "send_recv_kv", lambda _, k, v, k_buffer, v_buffer: received.append(k_buffer.shape))
    monkeypatch.setattr(_distributed_primitives, "_gather_size", lambda *_: [4, 3, 2])
    undo = compat.cache_dit.ring_attention_of_uneven_parts()
    try:
        ring = _templated_ring._RingP2PComm.__new__(_templated_ring._RingP2PComm)  # making one asks for a group
        ring.rank, ring.world_size, ring._process_group = 0, 3, None
        part = torch.zeros(1, 4, 2, 8)  # (batch, tokens, heads, head size)
        ring.send_recv_kv(part, part)
        ring.send_recv_kv(part, part)
        assert received == [(1, 2, 2, 8), (1, 3, 2, 8)]
    finally:
        undo()
    assert _templated_ring._RingP2PComm is library


def test_gloo_gathers_parts_of_one_length_only() -> None:
    import inspect

    import torch
    from cache_dit.distributed.core import _context_parallel

    library = _context_parallel._all_gather_anything
    assert "dist.all_gather(gathered_tensors, tensor, group=group)" in inspect.getsource(library)
    torch.distributed.init_process_group("gloo", world_size=1, rank=0, store=torch.distributed.HashStore())
    try:
        with pytest.raises(RuntimeError, match="invalid tensor size"):
            torch.distributed.all_gather([torch.empty(3)], torch.ones(2))
        undo = compat.cache_dit.gather_uneven_parts_on_cpu()
        part = torch.arange(6.0).reshape(1, 3, 2)
        whole = _context_parallel._all_gather_anything(part, 1, torch.distributed.group.WORLD)
        assert torch.equal(whole, part)
        undo()
        assert _context_parallel._all_gather_anything is library
    finally:
        torch.distributed.destroy_process_group()


def test_attention_over_ranks_would_be_traced() -> None:
    import torch._dynamo.config
    from cache_dit.attention.backends import native
    from cache_dit.distributed.core import _context_parallel, _distributed_primitives

    assert torch._dynamo.config.recompile_limit == 8  # as OMNI708 says
    hooks = _context_parallel._ContextParallelSplitHook, _context_parallel._ContextParallelGatherHook
    library = [native._context_parallel_attention, _distributed_primitives._gather_size]
    library += [getattr(hook, method) for hook in hooks for method in ("pre_forward", "post_forward")]
    assert not any(getattr(function, "_torchdynamo_disable", False) for function in library)

    undo = compat.cache_dit.compile_around_ranks(SimpleNamespace())
    try:
        compat.cache_dit.compile_around_ranks(SimpleNamespace())()  # replaced before, so nothing is put back
        assert native._context_parallel_attention is not library[0]
        assert all(hook.pre_forward._torchdynamo_disable for hook in hooks)
    finally:
        undo()
    assert native._context_parallel_attention is library[0]
    assert [getattr(hook, method) for hook in hooks for method in ("pre_forward", "post_forward")] == library[2:]


def test_cache_dit_averages_over_the_world() -> None:
    import inspect

    import torch
    from cache_dit.caching.cache_contexts import cache_manager

    source = inspect.getsource(cache_manager.CachedContextManager.similarity)
    assert "dist.all_reduce(mean_diff, op=dist.ReduceOp.AVG)" in source
    library = cache_manager.dist
    group = torch.distributed.ProcessGroup  # any object
    undo = compat.cache_dit.average_differences_over(group)
    try:
        with pytest.MonkeyPatch.context() as patch:
            asked: list[object] = []
            patch.setattr(torch.distributed, "all_reduce", lambda tensor, op, group: asked.append(group))
            cache_manager.dist.all_reduce(torch.zeros(1), op=cache_manager.dist.ReduceOp.AVG)
        assert asked == [group]
    finally:
        undo()
    assert cache_manager.dist is library


def test_inductor_compiles_in_a_pool_of_processes_by_default() -> None:
    from torch._dynamo import config as dynamo
    from torch._inductor import config

    assert config.get_config_copy()["compile_threads"] != 1 or os.cpu_count() == 1
    default = config.compile_threads
    assert not dynamo.fail_on_recompile_limit_hit
    try:
        compat.torch.compile_for_forks()
        assert config.compile_threads == 1
        assert dynamo.fail_on_recompile_limit_hit
    finally:
        config.compile_threads = default
        dynamo.fail_on_recompile_limit_hit = False


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="a quirk of a machine without torchvision")
def test_transformers_needs_torchvision_even_for_pictures() -> None:
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor, Qwen3VLProcessor

    for kind in (Qwen2VLProcessor, Qwen3VLProcessor):
        if "get_attributes" in vars(kind):  # another test's model needed it
            del kind.get_attributes
        with pytest.raises(AttributeError, match="VIDEO_PROCESSOR_MAPPING"):
            kind(Qwen2VLImageProcessorPil(), models.byte_tokenizer(), None)
        compat.diffusers.processor_without_video()
        processor = kind(Qwen2VLImageProcessorPil(), models.byte_tokenizer(), None)
        found = processor(text=["<|image_pad|>"], images=[Image.new("RGB", (56, 56))], return_tensors="pt")
        assert found["image_grid_thw"].tolist() == [[1, 4, 4]]


def test_cache_dit_asserts_that_split_norms_are_not_on_a_cpu() -> None:
    import inspect

    from cache_dit.distributed.transformers.wan import DistributedRMSNorm

    library = DistributedRMSNorm.forward
    assert 'x_normed.device.type != "cpu"' in inspect.getsource(library)
    undo = compat.cache_dit.split_norms_on_cpu()
    assert DistributedRMSNorm.forward is not library
    undo()
    assert DistributedRMSNorm.forward is library


def test_cache_dit_deals_out_the_columns_of_joined_inputs() -> None:
    """Two tensor ranks; the first input has 4 columns and the second 8."""
    import inspect

    import torch
    from cache_dit.distributed.transformers import flux

    assert "single_block.proj_out.weight.data.copy_(new_linear2_weight.T)" in inspect.getsource(flux)
    whole = torch.arange(12.0).repeat(3, 1)
    dealt = whole[:, [0, 1, 4, 5, 6, 7, 2, 3, 8, 9, 10, 11]]
    block = torch.nn.Module()
    block.attn, block.proj_mlp, block.proj_out = torch.nn.Module(), torch.nn.Linear(5, 8), torch.nn.Linear(12, 3)
    block.attn.to_q = torch.nn.Linear(5, 4)
    packed = compat.cache_dit.packed_columns(torch.nn.ModuleDict({"block": block, "other": torch.nn.Linear(12, 3)}))
    assert packed == {"block.proj_out.weight": [4, 8]}
    compat.cache_dit.restore_packed_columns(dealt, packed["block.proj_out.weight"], 2)
    assert torch.equal(dealt, whole)


def test_torch_s_tensor_parallel_styles_scatter_whole_weights() -> None:
    """Of two ranks, the second gets what the first one sends, which is nothing of a group that only seems to be."""
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        mesh = dist.init_device_mesh("cpu", (2,))
        asked = []

        def split(weight: torch.Tensor, placement: Shard) -> DTensor:
            asked.append((tuple(weight.shape), placement))
            part = weight.chunk(2, placement.dim)[1] if isinstance(placement, Shard) else weight
            return DTensor.from_local(part, mesh, [placement], run_check=False)

        for style, local in ((ColwiseParallel(), (1, 4)), (RowwiseParallel(), (2, 2))):
            layer = torch.nn.Linear(4, 2)
            expected = layer.weight.detach().chunk(2, 0 if local == (1, 4) else 1)[1]
            with compat.torch.tensor_parallel_styles_split_by(split):
                parallelize_module(layer, mesh, style)
            assert torch.equal(layer.weight.to_local(), expected)
        assert asked[0] == ((2, 4), Shard(0))
        count = len(asked)
        layer = torch.nn.Linear(4, 2)
        whole = layer.weight.detach().clone()
        parallelize_module(layer, mesh, ColwiseParallel())
        assert len(asked) == count
        assert not torch.equal(layer.weight.to_local(), whole.chunk(2)[1])
    finally:
        dist.destroy_process_group()


def test_torch_has_no_way_back_from_fully_shard() -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import FSDPModule, fully_shard

    assert not [name for name in dir(FSDPModule) if name.startswith("un") and name != "unshard"]
    dist.init_process_group("gloo", world_size=1, rank=0, store=dist.HashStore())
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).requires_grad_(False)
        names, given = [{*vars(part)} for part in (model, *model)], torch.randn(1, 4)
        before = model(given)
        for _ in range(2):  # nothing is left that a second time would meet
            fully_shard(model[0], mesh=mesh)
            fully_shard(model, mesh=mesh)
            assert compat.torch.bytes_of_shards(model) == (4 * 3 + 3 + 3 * 2 + 2) * 4
            assert torch.equal(model(given), before)
            compat.torch.unshard(model)
            assert [type(part) for part in (model, *model)] == [torch.nn.Sequential, torch.nn.Linear, torch.nn.Linear]
            assert [{*vars(part)} for part in (model, *model)] == names
            assert not any(part._forward_pre_hooks or part._forward_hooks for part in (model, *model))
            assert torch.equal(model(given), before)
    finally:
        dist.destroy_process_group()


def test_libraries_keep_some_layers_in_float32() -> None:
    """That diffusers and transformers load weights so is in test_loading.py."""
    import torch
    from diffusers import WanTransformer3DModel
    from transformers import T5EncoderModel

    half, brain = torch.float16, torch.bfloat16
    wan, t5 = (object.__new__(kind) for kind in (WanTransformer3DModel, T5EncoderModel))
    assert compat.diffusers.precision(wan, "blocks.0.norm2.weight", brain) == torch.float32
    assert compat.diffusers.precision(wan, "blocks.0.attn1.to_q.weight", brain) == brain
    block = "encoder.block.0.layer.1.DenseReluDense"
    assert compat.diffusers.precision(t5, f"{block}.wo.weight", half) == torch.float32
    assert compat.diffusers.precision(t5, f"{block}.wo.weight", brain) == brain
    assert compat.diffusers.precision(t5, f"{block}.wi.weight", half) == half


def test_cache_dit_leaves_larger_tiles_behind() -> None:
    import inspect

    from cache_dit.distributed.autoencoders import autoencoder_kl_qwen_image
    from torch import nn

    source = inspect.getsource(autoencoder_kl_qwen_image)
    shared = decoders()["AutoencoderKLQwenImage"].shared
    assert f"min(sample_height, sample_width) >= {shared['pixels']}:" in source
    assert f"self.tile_sample_min_height = {shared['tile']}" in source
    assert f"self.tile_sample_stride_height = {shared['stride']}" in source
    vae = nn.Module()
    vae.tile_sample_min_height = 256

    def enlarge() -> None:
        vae.tile_sample_min_height = 512

    compat.cache_dit.keep_tile_sizes(vae, enlarge)()
    assert vae.tile_sample_min_height == 256


def test_cache_dit_fails_on_a_rank_that_has_no_tile() -> None:
    from cache_dit.distributed.autoencoders.utils import TileBatchedP2PComm

    library = TileBatchedP2PComm.sync
    idle = TileBatchedP2PComm.__new__(TileBatchedP2PComm)  # making one asks for a process group
    idle._ops, idle._reqs = [], []
    with pytest.raises(IndexError):
        idle.sync()
    undo = compat.cache_dit.let_ranks_be_without_tiles()
    idle.sync()
    undo()
    assert TileBatchedP2PComm.sync is library


def test_results_of_split_layers_are_awaited_only_when_used() -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed._functional_collectives import AsyncCollectiveTensor
    from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = dist.init_device_mesh("cpu", (2,))
        model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        parallelize_module(model, mesh, {"0": RowwiseParallel()})
        part = torch.zeros(1, 2)
        with torch.no_grad():
            result = model(part)
            assert isinstance(result, AsyncCollectiveTensor)
            result.trigger_wait()
            compat.torch.one_reduction_at_a_time(model)
            assert not isinstance(model(part), AsyncCollectiveTensor)
    finally:
        dist.destroy_process_group()


def test_inductor_loads_whatever_library_lies_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    unfinished, young, whole = (tmp_path / name / "kernel.so" for name in ("unfinished", "young", "whole"))
    for path in (unfinished, young, whole):
        path.parent.mkdir()
        path.write_bytes(b"code" if path is whole else b"")
        if path is not young:
            os.utime(path, (0, 0))
    with pytest.raises(OSError, match="file too short"):
        ctypes.CDLL(str(unfinished))
    compat.torch.remove_unfinished_libraries()
    assert not unfinished.exists()
    assert young.exists()
    assert whole.exists()


def test_ranks_without_gpus_compile_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import torch

    graph = torch.fx.symbolic_trace(torch.nn.Identity())
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    inside: list[int] = []
    most: list[int] = []

    def compile_something(number: int) -> None:
        with compat.torch.one_compiles_for_all(graph):
            inside.append(number)
            time.sleep(0.1)
            most.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=compile_something, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_a_process_group_takes_its_address_from_the_environment() -> None:
    import torch.distributed as dist

    library = dist.init_process_group
    undo = compat.torch.meet_in(dist.HashStore(), 0, 1)
    try:
        dist.init_process_group("gloo")  # as init_device_mesh calls it
        assert dist.get_world_size() == 1
        dist.destroy_process_group()
    finally:
        undo()
    assert dist.init_process_group is library
    with pytest.raises(ValueError, match="environment variable"):
        dist.init_process_group("gloo")


def test_inductor_finds_out_late_that_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch._inductor import config

    assert callable(compat.torch.inductor())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with config.patch("cpp.cxx", ("no-such-compiler",)):  # monkeypatch would leave it deleted
        assert compat.torch.missing_compiler() == "g++"


def test_diffusers_has_attention_kernels_in_a_private_registry() -> None:
    library = compat.diffusers.attention_kernel("native")

    def kernel() -> None:
        """Any function."""

    undo = compat.diffusers.replace_attention_kernel("native", kernel)
    assert compat.diffusers.attention_kernel("native") is kernel
    undo()
    assert compat.diffusers.attention_kernel("native") is library


def test_cache_dit_shares_tokens_over_a_part_of_a_mesh_and_stops() -> None:
    import torch
    import torch.distributed as dist
    from cache_dit.attention.backends import native
    from cache_dit.distributed.config import ParallelismConfig
    from diffusers import QwenImageTransformer2DModel
    from torch.testing._internal.distributed.fake_pg import FakeStore

    transformer = QwenImageTransformer2DModel(
        num_layers=1, attention_head_dim=16, num_attention_heads=4, joint_attention_dim=8, axes_dims_rope=(4, 6, 6)
    )
    library = native._context_parallel_attention
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    try:
        mesh = dist.init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("cfg", "ring", "ulysses"))
        planner = compat.cache_dit.sequence_planner(transformer)
        hooks = planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(ulysses_size=2))
        part = mesh["ring", "ulysses"]
        undo = compat.cache_dit.share_tokens(transformer, hooks, part, torch.device("cpu"), uneven=True)
        processor = transformer.transformer_blocks[0].attn.processor
        assert processor._parallel_config is not None
        undo()
        assert processor._parallel_config is None
        assert native._context_parallel_attention is library
    finally:
        dist.destroy_process_group()


def test_torch_has_a_public_group_of_one_axis_only() -> None:
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        mesh = dist.init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("cfg", "ring", "ulysses"))
        with pytest.raises(RuntimeError, match="have 2 dimensions"):
            mesh["ring", "ulysses"].get_group()
        group = compat.torch.group_over(mesh, ("ring", "ulysses"))
        assert dist.get_process_group_ranks(group) == [0, 1, 2, 3]
        assert compat.torch.group_over(mesh, ("ring", "ulysses")) is group
    finally:
        dist.destroy_process_group()


def test_torch_keeps_compiled_calls_and_hooks_in_private_places() -> None:
    import torch

    layer = torch.nn.Linear(1, 1)
    layer.compile(backend="eager")
    assert layer._compiled_call_impl is not None
    compat.torch.run_as_python(layer)
    assert layer._compiled_call_impl is None
    layer.register_forward_hook(lambda *_: torch.ones(1))
    layer.register_forward_pre_hook(lambda *_: (torch.ones(1),))
    compat.torch.unhook(layer)
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_diffusers_forgets_the_context_that_is_open_with_its_states() -> None:
    from diffusers.hooks.hooks import BaseState, CacheContext, StateManager

    class State(BaseState):
        def reset(self) -> None:
            """Nothing to forget."""

    states, context = StateManager(State), CacheContext("cond")
    states.set_context(context)
    first = states.get_state()
    compat.diffusers.forget(states)
    assert states.context is context
    assert states.get_state() is not first
    states.reset()
    with pytest.raises(ValueError, match="No cache context"):
        states.get_state()


def test_diffusers_says_which_models_stay_on_the_device_by_class() -> None:
    import torch
    from diffusers import ZImagePipeline

    pipe = ZImagePipeline.__new__(ZImagePipeline)
    before = pipe.model_cpu_offload_seq, pipe._exclude_from_cpu_offload
    undo = compat.diffusers.leave_out_of_offload(pipe, "vae")
    assert "vae" not in pipe.model_cpu_offload_seq.split("->")
    assert pipe._exclude_from_cpu_offload == [*before[1], "vae"]
    undo()
    assert (pipe.model_cpu_offload_seq, pipe._exclude_from_cpu_offload) == before
    assert compat.diffusers.hook_of(torch.nn.Linear(1, 1), "group_offloading") is None


def test_some_pipelines_open_no_cache_context() -> None:
    import inspect

    import diffusers

    for name in ("FluxKontextPipeline", "FluxFillPipeline", "ChromaPipeline"):
        assert "cache_context" not in inspect.getsource(getattr(diffusers, name).__call__)
    transformer = models.chroma().transformer
    pipe = SimpleNamespace(transformer=transformer, scheduler=SimpleNamespace(step=list, set_timesteps=list))
    names: list[str] = []

    @contextmanager
    def context(name: str) -> Iterator[None]:
        names.append(name)
        yield
        names.append("out")

    transformer.cache_context = context
    transformer.forward = lambda: None
    compat.diffusers.name_branches(pipe)
    for _ in range(2):
        transformer()
        transformer()
        pipe.scheduler.step()
    transformer()
    assert names == ["cond", "out", "uncond", "out"] * 2 + ["cond", "out"]


def test_hunyuan_video_15_calls_nobody_after_a_step() -> None:
    import inspect

    import diffusers

    name = "callback_on_step_end"
    assert name not in inspect.signature(diffusers.HunyuanVideo15Pipeline.__call__).parameters

    class Pipe:
        scheduler = SimpleNamespace(step=lambda latents: (latents + 1,))

        def __call__(self) -> int:
            return sum(self.scheduler.step(step)[0] for step in (1, 2))

    pipe, told = Pipe(), []
    arguments = {name: lambda pipe, step, _, tensors: told.append((step, tensors["latents"]))}
    before = pipe.scheduler.step
    with compat.diffusers.steps_called_back(pipe, arguments):
        assert pipe(**arguments) == 5
    assert told == [(0, 2), (1, 3)]
    assert pipe.scheduler.step is before


def test_some_transformers_do_not_ask_for_an_attention_backend() -> None:
    assert compat.diffusers.has_attention_backends(models.chroma().transformer)
    cog_video_x = models.cog_video_x().transformer
    cog_video_x.set_attention_backend("_native_math")  # without a word
    assert not compat.diffusers.has_attention_backends(models.sana().transformer)


def test_cache_dit_joins_text_and_image_rank_by_rank() -> None:
    import torch

    transformer, seen = torch.nn.Identity(), []
    transformer.forward = lambda **given: seen.append(given["mask"])  # type: ignore[method-assign]
    text, image = torch.zeros(1, 3, 1), torch.zeros(1, 4, 1)
    mask = torch.tensor([[0, 1, 2, 10, 11, 12, 13]])
    undo = compat.cache_dit.order_mask(transformer, "mask", 2)
    transformer(encoder_hidden_states=text, hidden_states=image, mask=mask)
    transformer(encoder_hidden_states=text, hidden_states=image, mask=None)
    undo()
    transformer(encoder_hidden_states=text, hidden_states=image, mask=mask)
    assert seen[0].tolist() == [[0, 1, 10, 11, 2, 12, 13]]
    assert seen[1] is None
    assert seen[2] is mask


def test_cache_dit_splits_the_text_of_vace() -> None:
    from cache_dit.distributed.config import ParallelismConfig

    transformer = models.wan_vace().transformer
    planner = compat.cache_dit.sequence_planner(transformer)
    hooks = planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(ulysses_size=2))
    assert "encoder_hidden_states" in hooks["vace_blocks.*"]
    left = compat.cache_dit.leave_text_whole(hooks)
    assert left.keys() == hooks.keys()
    assert left["vace_blocks.*"].keys() == {"hidden_states"}
    assert left["proj_out"] is hooks["proj_out"]


@pytest.mark.parametrize("module", [compat.torch, compat.diffusers, compat.cache_dit])
def test_every_function_has_a_test(module: ModuleType) -> None:
    source = Path(__file__).read_text()
    library = module.__name__.rpartition(".")[2]
    mine = [name for name, item in vars(module).items() if getattr(item, "__module__", "") == module.__name__]
    untested = [name for name in mine if not name.startswith("_") and f"compat.{library}.{name}(" not in source]
    assert mine
    assert not untested
