"""The names of an engine's settings: fields of its classes of settings, and destinations of its flags."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from omni_config.facts.engines import Engine
from omni_config.facts.syntax import last_name, text, walk
from omni_config.facts.wheel import File


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Names so common in code of models that they mean a setting only where they are read from something called a config.
COMMON = _words(
    """
    name type types kind key keys value values mode model models path paths file files device devices dtype shape
    size sizes rank data config configs args kwargs params prefix suffix index id ids default enabled enable stage
    stages role roles method methods format formats host port url timeout level levels scale scales dim dims
    length width_ratio step steps scheduler scheduler_config tokenizer processor prompt prompts image images video
    videos audio audios mask masks seed generator extra metadata state states version backend task tasks input
    inputs output outputs layer layers block blocks head heads group groups world_size local_rank master_port
    parallel_config quant_config lora_config cache_config model_config stage_id stage_type hidden_size num_layers
    num_heads head_dim patch_size in_channels out_channels num_attention_heads attention_head_dim sample_rate fps
    request_id temperature top_k top_p batch_size latents timesteps sigmas text messages tags components component
    modules module weights weight bias scope owner source sources target targets loader pipeline transformer vae
    text_encoder architectures arch_config dtype_str latent_channels z_dim embed_dim num_tokens tokens alpha beta
    eta order reason debug result results context description callback callbacks names options settings priority
    status title label labels all none layout strategy producer timestep start stop wait encoding stride
    model_runner representation resolution precision profile segments tokenizer_config architecture quant
    threshold mlp remote endpoint directory cache local request hf_config value_range transform transforms compute
    weight_block_size activation workers count iterations order_id num_blocks world ndim dimension output_type
    rows columns schema preset task_type data_type model_type pin_memory schema_version bits rank_id blocks_name
    transformer_type parallel replica_id force verbose quiet output_path prompt_embeds prefetch seed_offset
    dump_path pipe controlnet model_path revision token variant model_subdir domain all_modules env platforms
    rollout profile_all_stages
    """
)

#: Containers of settings. Reading the container alone says nothing about a setting.
CONTAINERS = _words(
    """
    parallel_config pipeline_config model_config cache_config_dict extra_args stage_configs sampling_params
    od_config additional_config engine_config runtime_config input_config server_args vllm_config dit_config
    vae_config text_encoder_configs image_encoder_config arch_config tf_model_config overrides extras
    engine_extras sp_config load_config
    """
)

#: Parameters of a request that a deployment may state as well. The others are content.
REQUEST = _words(
    """
    height width num_frames num_inference_steps guidance_scale guidance_scale_2 true_cfg_scale guidance_rescale
    negative_prompt num_outputs_per_prompt max_sequence_length fps frame_rate flow_shift boundary_ratio strength
    do_classifier_free_guidance enable_teacache teacache_params enable_cache_dit cache_dit_params enable_spectrum
    spectrum_params attention_backend_override skip_softmax_params lora_request lora_scale generator_device
    cfg_gate_step progressive_mode enable_sequence_shard num_images_per_prompt num_videos_per_prompt
    enable_frame_interpolation enable_upscaling use_resolution_binning num_pipeline_warmup_steps resolution
    supported_resolutions diffusers_kwargs vsa_sparsity teacache_thresh coefficients
    """
)


@dataclass(frozen=True)
class Names:
    """The names of settings and of request parameters; ``strong`` ones mean one wherever they are read."""

    known: frozenset[str]
    strong: frozenset[str]
    request: frozenset[str]


def known_names(files: Iterable[File], engine: Engine) -> Names:
    """Each name of a setting of the engine."""
    settings: set[str] = set()
    requests: set[str] = set()
    for file in files:
        nodes = [node for node in walk(file.tree) if isinstance(node, ast.ClassDef | ast.Call)]
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        settings.update(
            name for node in classes if engine.holds_settings(file.path, node.name) for name in _fields(node)
        )
        asked = [node for node in classes if engine.holds_requests(file.path, node.name)]
        requests.update(REQUEST.intersection(name for node in asked for name in _fields(node)))
        calls = (node for node in nodes if isinstance(node, ast.Call) and last_name(node.func) == "add_argument")
        flags = {name for call in calls for name in _destination(call)}
        settings.update(flags & REQUEST if asked else flags)
    known = {name for name in settings | requests if not name.startswith("_") and len(name) > 2} - CONTAINERS
    return Names(frozenset(known), frozenset(known - COMMON), frozenset(known & REQUEST))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if last_name(statement.annotation) != "ClassVar":
                yield statement.target.id
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            arguments = statement.args
            yield from (a.arg for a in (*arguments.args[1:], *arguments.kwonlyargs))


def _destination(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg == "dest" and (name := text(keyword.value)):
            yield name
            return
    names = [name for argument in call.args if (name := text(argument))]
    long = [name for name in names if name.startswith("--")] or names[:1]
    yield from (name.lstrip("-").replace("-", "_") for name in long[:1])
