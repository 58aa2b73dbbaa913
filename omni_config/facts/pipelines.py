"""The pipelines and models that an engine registers, each with the marks of its capabilities, by file and line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from omni_config.facts.classes import Class, Classes
from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.syntax import first, last_name, text, walk
from omni_config.facts.wheel import Wheel

Entries = dict[str, Any]


def pipelines(wheel: Wheel, engine: str, constants: Constants) -> Entries:
    """The registered pipelines of an engine by name."""
    classes = Classes(wheel, constants)
    if engine == "vllm-omni":
        return dict(_of_table(wheel, classes))
    if engine == "sglang":
        return {**dict(_entry_classes(wheel, classes)), **dict(_registered_configs(wheel, classes))}
    if engine == "xdit":
        return dict(_decorated_classes(wheel, classes))
    if engine == "cache-dit":
        return dict(_registrations(wheel))
    return dict(_diffusers(classes))


def _of_table(wheel: Wheel, classes: Classes) -> Iterator[tuple[str, Entries]]:
    """vLLM-Omni: a table of name: (folder, module, class)."""
    for file in wheel.files:
        if "_DIFFUSION_MODELS" not in file.names or not file.path.endswith("diffusion/registry.py"):
            continue
        tables = classes.constants.by_file[file.path]
        table = tables.get("_DIFFUSION_MODELS")
        without = _keys(tables.get("_NO_CACHE_ACCELERATION"))
        for key, value in zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ():
            name = text(key)
            parts = [text(part) for part in value.elts] if isinstance(value, ast.Tuple) else []
            if name is None or key is None or len(parts) != 3:
                continue
            folder, module, class_name = (part or "" for part in parts)
            near = f"{file.path.rpartition('/')[0]}/models/{folder}/{module}.py"
            entry: Entries = {"class": class_name, "registered_at": f"{file.path}:{key.lineno}"}
            if name in without:
                entry["no_cache"] = f"{file.path}:{without[name]}"
            one = classes.find(class_name, near)
            if one is not None:
                entry |= {"at": one.at, "markers": classes.markers(one)}
            yield name, entry


def _keys(node: ast.expr | None) -> dict[str, int]:
    if isinstance(node, ast.Call) and node.args:
        node = node.args[0]
    items = node.elts if isinstance(node, ast.Set | ast.List | ast.Tuple) else getattr(node, "keys", [])
    return {str(text(item)): item.lineno for item in items if item is not None}


def _entry_classes(wheel: Wheel, classes: Classes) -> Iterator[tuple[str, Entries]]:
    """SGLang: the EntryClass of a file of pipelines or of models."""
    for file in wheel.files:
        entry = classes.constants.by_file[file.path].get("EntryClass")
        if entry is None:
            continue
        for node in entry.elts if isinstance(entry, ast.List | ast.Tuple) else [entry]:
            one = classes.find(last_name(node), file.path)
            if one is None or not ("/pipelines/" in file.path or "/models/dits/" in file.path):
                continue
            facts: Entries = {"class": one.node.name, "at": one.at, "markers": classes.markers(one)}
            name = one.node.name
            for attribute in ("pipeline_name", "pipeline_config_cls", "sampling_params_cls", "is_video_pipeline"):
                if bound := classes.attribute(one, attribute):
                    try:
                        facts[attribute] = classes.constants.value(bound[0], bound[1].file.path)
                    except Unknown:
                        facts[attribute] = last_name(bound[0])
            name = facts.get("pipeline_name") or name
            yield f"{'pipeline' if '/pipelines/' in file.path else 'model'} {name}", facts


def _registered_configs(wheel: Wheel, classes: Classes) -> Iterator[tuple[str, Entries]]:
    """SGLang: register_configs calls, by pipeline configuration and sampling parameters."""
    for file in wheel.files:
        if "register_configs" not in file.names and "register_model_configs" not in file.names:
            continue
        for node in walk(file.tree):
            if not isinstance(node, ast.Call) or last_name(node.func) != "register_configs":
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            config = last_name(keywords.get("pipeline_config_cls") or first(node.args[1:2]))
            sampling = last_name(keywords.get("sampling_param_cls") or first(node.args))
            if not config or not config[0].isupper():
                continue
            facts: Entries = {"pipeline_config": config, "sampling_params": sampling}
            facts["registered_at"] = f"{file.path}:{node.lineno}"
            try:
                facts["hub_ids"] = classes.constants.value(keywords.get("hf_model_paths"), file.path)
            except Unknown:
                facts["hub_ids"] = []
            if detectors := _looked_for(keywords.get("model_detectors")):
                facts["detectors"] = detectors
            if one := classes.find(config, file.path):
                facts |= _deployment(one, classes)
            yield f"config {config} {sampling} {(facts['hub_ids'] or [''])[0]}".strip(), facts


def _deployment(start: Class, classes: Classes) -> Entries:
    """SGLang: what a pipeline configuration says of its placement, where it differs from the class of such policies."""
    found: Entries = {}
    for one in reversed([*classes.line(start)]):
        for statement in one.node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "get_model_deployment_config":
                for node in walk(statement):
                    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                        inherited = found.get("deployment", {}) if last_name(node.value.func) == "replace" else {}
                        said = {
                            str(keyword.arg): _value(keyword.value, one, classes) for keyword in node.value.keywords
                        }
                        found = {"deployment": inherited | said, "deployment_at": f"{one.file.path}:{node.lineno}"}
    return found if found.get("deployment") else {}


def _looked_for(node: ast.expr | None) -> list[str]:
    """The texts that functions look for in the name of a model, such as ``"flux.1" in name.lower()``."""
    return sorted(
        {
            found
            for part in (walk(node) if node is not None else ())
            if isinstance(part, ast.Compare) and isinstance(part.ops[0], ast.In | ast.Eq)
            for side in (part.left, *part.comparators)
            if (found := text(side))
        }
    )


def _decorated_classes(wheel: Wheel, classes: Classes) -> Iterator[tuple[str, Entries]]:
    """xDiT: runner models, with their names and the tables that say what they can."""
    for file in wheel.files:
        if "register_model" not in file.names:
            continue
        for node in file.tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            names = [
                name
                for decorator in node.decorator_list
                if isinstance(decorator, ast.Call) and last_name(decorator) == "register_model"
                if (name := text(first(decorator.args)))
            ]
            if not names:
                continue
            one = Class(file, node)
            facts: Entries = {"names": sorted(names), "at": one.at}
            for table in ("capabilities", "default_input_values", "settings", "load_support"):
                bound = classes.attribute(one, table)
                if bound is not None:
                    facts[table] = _keywords(bound[0], bound[1], classes)
                    facts[f"{table}_at"] = f"{bound[1].file.path}:{bound[0].lineno}"
            yield node.name, facts


def _keywords(node: ast.expr, owner: Class, classes: Classes) -> Entries:
    """The keywords of a table, with those of the table that it replaces parts of, or those that it is."""
    result: Entries = {}
    if isinstance(node, ast.Attribute) and (base := classes.find(last_name(node.value), owner.file.path)):
        bound = classes.attribute(base, node.attr)
        return _keywords(bound[0], bound[1], classes) if bound and bound[0] is not node else {}
    if not isinstance(node, ast.Call):
        return result
    if last_name(node.func) in ("replace", "copy", "deepcopy") and node.args:
        result |= _keywords(node.args[0], owner, classes)
    for keyword in node.keywords:
        if keyword.arg is None:
            continue
        try:
            result[keyword.arg] = classes.constants.value(keyword.value, owner.file.path)
        except Unknown:
            result[keyword.arg] = _shape(keyword.value, owner, classes)
    return result


def _shape(node: ast.expr, owner: Class, classes: Classes) -> object:
    """A table inside a table, and for anything else the name of what it is."""
    if isinstance(node, ast.Dict):
        return {
            str(text(key)): _value(value, owner, classes) for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, ast.Call) and node.keywords:
        return _keywords(node, owner, classes)
    return {"from": last_name(node) or type(node).__name__}


def _value(node: ast.expr, owner: Class, classes: Classes) -> object:
    try:
        return classes.constants.value(node, owner.file.path)
    except Unknown:
        return _shape(node, owner, classes)


def _registrations(wheel: Wheel) -> Iterator[tuple[str, Entries]]:
    """cache-dit: what is registered by decorator, as ``Register name``."""
    for file in wheel.files:
        for node in walk(file.tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            for decorator in node.decorator_list:
                if not isinstance(decorator, ast.Call) or not last_name(decorator).startswith("register"):
                    continue
                function = decorator.func
                owner = last_name(function.value) if isinstance(function, ast.Attribute) else last_name(function)
                names = [name for argument in decorator.args if (name := text(argument))]
                classes = [last_name(argument) for argument in decorator.args if last_name(argument)]
                for name in names or classes or [node.name]:
                    facts: Entries = {"at": f"{file.path}:{node.lineno}", "name": node.name}
                    patterns = sorted(
                        {
                            part.attr
                            for part in walk(node)
                            if isinstance(part, ast.Attribute) and part.attr.startswith("Pattern_")
                        }
                    )
                    if patterns:
                        facts["patterns"] = patterns
                    yield f"{owner} {name}", facts


def _diffusers(classes: Classes) -> Iterator[tuple[str, Entries]]:
    """diffusers: pipelines with their components, and models with a plan or a cache."""
    for name, found in sorted(classes.by_name.items()):
        for one in found:
            path = one.file.path
            if path.startswith("diffusers/pipelines/") and name.endswith("Pipeline"):
                facts: Entries = {"at": one.at}
                if bound := classes.attribute(one, "model_cpu_offload_seq"):
                    facts["model_cpu_offload_seq"] = text(bound[0])
                if components := _components(one):
                    facts["components"] = components
                    yield f"pipeline {name}", facts
            elif path.startswith("diffusers/models/transformers/"):
                markers = _own_markers(one, classes)
                if markers:
                    yield f"model {name}", {"at": one.at, "markers": markers}


def _components(one: Class) -> dict[str, str]:
    """The models that a pipeline's constructor takes, by type."""
    for statement in one.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return {
                argument.arg: last_name(argument.annotation)
                for argument in statement.args.args
                if argument.arg.startswith(("transformer", "unet", "vae")) and last_name(argument.annotation)
            }
    return {}


def _own_markers(one: Class, classes: Classes) -> Entries:
    found: Entries = {}
    for name in ("_cp_plan", "_tp_plan", "_repeated_blocks", "_supports_group_offloading"):
        bound = classes.attribute(one, name)
        if bound and not (isinstance(bound[0], ast.Constant) and not bound[0].value):
            found[name] = f"{bound[1].file.path}:{bound[0].lineno}"
    for base in one.node.bases:
        if last_name(base) in ("CacheMixin", "PeftAdapterMixin"):
            found[f"base {last_name(base)}"] = f"{one.file.path}:{base.lineno}"
    return found
