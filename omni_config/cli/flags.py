"""Flags that override settings: the document's own words with dashes, as in the guide's commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import typer

from omni_config.cli.completion import engines, gpus, models
from omni_config.cli.policies import Rules, load_rules
from omni_config.schema.document import Document
from omni_config.schema.flag_names import ALIASES, dashed
from omni_config.schema.overrides import Override, assignment, yaml_value
from omni_config.schema.settings import FIELDS, PARAMETERS

_NOT_FLAGS = {"version", "tea_cache", "cache_dit", "lora", "server", "attention_2d", "offload_components"}
_NOT_FLAGS |= {"attention_quantization", *PARAMETERS["attention_quantization"]}


def with_overrides(command: Callable[..., None], *, without: tuple[str, ...] = ("server",)) -> Callable[..., None]:
    """Give a command a flag for each setting, and ``--rules``; it receives what was typed as its arguments
    ``overrides`` and ``policies``.

    Settings of the sections ``without`` mean nothing to the command.
    """
    settings = {
        name: path for name, path in FIELDS.items() if name not in _NOT_FLAGS and path[0] not in ("cache", *without)
    }
    own = [
        p
        for name, p in inspect.signature(command, eval_str=True).parameters.items()
        if name not in ("overrides", "policies")
    ]
    flags = [_flag(name, path) for name, path in settings.items()]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        given_rules = given.pop("rules")
        try:
            overrides = [assignment(text) for text in given.pop("set_")]
            overrides += _lora_overrides(given.pop("lora_path"), given.pop("lora_scale"))
            overrides += _cache_overrides(given.pop("cache_backend"), given.pop("cache_config"))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        for name, path in settings.items():
            value = given.pop(name)
            if value is not None:
                flag = dashed(name)
                shown = "***" if name == "api_key" else str(value)
                words = (flag, shown) if not isinstance(value, bool) else (flag,)
                overrides.append(Override(path, value, words))
        command(**given, overrides=overrides, policies=load_rules(given_rules))

    rules = inspect.Parameter("rules", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=Rules)
    parameters = [*own, rules, *_general(), *flags]
    wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _general() -> list[inspect.Parameter]:
    return [
        _parameter("set_", list[str], [], "--set", help="Set PATH=VALUE, such as parallel.ulysses_degree=2."),
        _parameter("cache_backend", list[str], [], "--cache-backend", help="tea_cache, cache_dit or none."),
        _parameter("cache_config", str | None, None, "--cache-config", help="Parameters of the cache, as JSON."),
        _parameter("lora_path", list[str], [], "--lora-path", help="LoRA adapter; may be given several times."),
        _parameter("lora_scale", list[float], [], "--lora-scale", help="Its scale, in the order of the paths."),
    ]


def _flag(name: str, path: tuple[str, ...]) -> inspect.Parameter:
    section: Any = Document
    for part in path[:-1]:
        annotation = section.model_fields[part].annotation
        section = next((kind for kind in get_args(annotation) if kind is not type(None)), annotation)
    info = section.model_fields[path[-1]]
    kind = _plain_type(info.annotation)
    names = [dashed(name), *ALIASES.get(name, [])]
    if kind is bool:
        names[0] += f"/--no-{dashed(name)[2:]}"
    if name == "compile":
        names.append(" /--enforce-eager")  # vLLM-Omni's word for its opposite
    return _parameter(
        name,
        kind | None,
        None,
        *names,
        help=info.description,
        panel=(path[0] if path[1:] else "document"),
        complete={"model": models, "engine": engines, "gpu": gpus}.get(name),
    )


def _plain_type(annotation: Any) -> Any:
    if annotation in (int, float, str, bool):
        return annotation
    if isinstance(annotation, str):  # a word of a Literal; the document knows which words it takes
        return str
    return next((found for inner in get_args(annotation) if (found := _plain_type(inner))), None)


def _parameter(
    name: str,
    kind: Any,
    default: Any,
    *names: str,
    help: str,
    panel: str = "overrides",
    complete: Callable[[str], Any] | None = None,
) -> inspect.Parameter:
    option = typer.Option(
        default, *names, help=help, show_default=False, rich_help_panel=f"Settings: {panel}", autocompletion=complete
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _cache_overrides(backends: list[str], config: str | None) -> list[Override]:
    parameters = {} if config is None else yaml_value(config, "--cache-config")
    if not isinstance(parameters, dict):
        raise ValueError("--cache-config: expected a JSON object")
    chosen = [name for name in backends if name != "none"]
    if config is not None and not chosen:
        raise ValueError("--cache-config needs --cache-backend")
    unknown = [name for name in chosen if name not in ("tea_cache", "cache_dit")]
    if unknown:
        raise ValueError(f"--cache-backend {unknown[0]}: expected tea_cache, cache_dit or none")
    if "none" in backends:
        words = ("--cache-backend", "none")
        return [Override(("cache", name), False, words) for name in ("tea_cache", "cache_dit")]
    return [Override(("cache", name), parameters, ("--cache-backend", name)) for name in chosen]


def _lora_overrides(paths: list[str], scales: list[float]) -> list[Override]:
    if len(scales) > len(paths):
        raise ValueError("--lora-scale: there are more scales than adapters (--lora-path)")
    if not paths:
        return []
    adapters: list[dict[str, Any]] = [{"path": path} for path in paths]
    for adapter, scale in zip(adapters, scales, strict=False):
        adapter["scale"] = scale
    return [Override(("lora",), adapters, ("--lora-path", *paths))]
