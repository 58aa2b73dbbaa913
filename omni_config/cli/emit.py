"""``omni serve --emit``: what a cluster starts, printed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

import typer
from packaging.version import Version

from omni_config import __version__
from omni_config.checking.document import CheckResult, ParsedDocument, judge
from omni_config.checking.export import export
from omni_config.cli.exchange import as_yaml
from omni_config.cli.inputs import checked_config, engine_of, with_server
from omni_config.cli.running import fail
from omni_config.output.cluster import files, name_of, on_nodes
from omni_config.output.kubernetes import MEET, kubernetes
from omni_config.output.serving import CONFIG, KEY, STORE, Server, compose, image_of, ray
from omni_config.plan import Plan
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override
from omni_config.schema.settings import Settings

EMITTERS: dict[str, Callable[[Server], str]] = {
    "kubernetes": kubernetes,
    "llm-d": kubernetes,  # as its guides/omni-serving routes to: the router is installed by llm-d's own charts
    "ray": ray,
    "compose": compose,
}
_ON_KUBERNETES = ("kubernetes", "llm-d")
_POOL = {"llm-d.ai/guide": "omni-serving"}
_POOLED = "# The router: llm-d's guides/omni-serving, whose pool takes the pods with its label, on port 8000.\n"

#: Where no plan would arrive as it was judged.
_LOST = {
    "dynamo": "Dynamo's workers take some of an engine's flags, and drop most of SGLang's without a word "
    "(ai-dynamo/dynamo#13667); its images have versions of their own; next: --emit kubernetes or llm-d"
}

#: The gauge of the requests that wait, the first version that counts them all, and what its command needs to show it.
_QUEUES = {
    "vllm-omni": ("vllm_omni:num_requests_waiting", Version("0.28"), []),
    "sglang": ("sglang:diffusion_num_queue_reqs", Version("0.5.22"), ["--enable-metrics"]),
}

#: Ports of engines whose configs have no section ``server``: their own defaults.
_PORTS = {"sglang": 30000}
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (a pod is reached by others, and asks for the key)

_HERE = "127.0.0.1"


def emitted(cluster: str, document: ParsedDocument, policies: tuple[Rule, ...], prometheus: str | None = None) -> str:
    """The text for a cluster, where KEDA scales by what ``prometheus`` says. Ends the command where there is none."""
    if cluster in _LOST:
        fail("serve", f"--emit {cluster}: {_LOST[cluster]}")
    if cluster not in EMITTERS:
        raise typer.BadParameter(f"--emit {cluster}: expected {', '.join(EMITTERS)}")
    family, document = engine_of(document), with_server(document)
    first = judge(document, policies)
    if first.plan is None or first.resolution is None:
        checked_config(document, policies)
    assert first.plan is not None
    assert first.resolution is not None
    plan, settings = first.plan, first.resolution.settings
    if plan.mesh.nodes > 1 and (reason := _on_one_machine(family, cluster, settings)):
        fail("serve", f"the plan is for {plan.mesh.nodes} nodes, and {reason}")
    if prometheus is not None and cluster not in _ON_KUBERNETES:
        raise typer.BadParameter(f"--keda: KEDA scales what runs on Kubernetes, not {cluster}")
    if settings["api_key"] is not None:
        fail("serve", "server.api_key would stand in the text; remove it, as the key comes from a secret")
    apart = family == "native" and cluster != "compose" and plan.sampling.video is None
    checked = checked_config(document.overridden(_overrides(family, cluster, settings, apart=apart)), policies)
    server = _server(family, cluster, checked, plan, settings, apart=apart)
    if prometheus is not None:
        server = _counted(replace(server, prometheus=prometheus), plan.engine)
    return EMITTERS[cluster](server)


def _on_one_machine(family: str, cluster: str, settings: Settings) -> str:
    """Why a server's plan cannot span machines there; empty where it can."""
    lower = "; lower the degrees"
    if family == "vllm-omni":  # vllm_omni/diffusion/executor/multiproc_executor.py starts all of them itself
        return f"vLLM-Omni starts the ranks of a plan on one machine, unless Ray does it for 0.32{lower}"
    if family != "sglang":
        return f"what is served runs on one{lower}"
    if cluster not in _ON_KUBERNETES:
        return f"only --emit kubernetes and llm-d start SGLang on several{lower}"
    if (settings["data_parallel_size"] or 1) > 1:
        return "a LeaderWorkerSet has the copies of such a plan; remove parallel.data_parallel_size"
    return ""


def _counted(server: Server, engine: str) -> Server:
    """The server with the gauge of the requests that wait. Ends the command where it has none."""
    if server.queue is not None:
        return server
    family, _, version = engine.partition("==")
    if family not in _QUEUES:
        fail("serve", "jobs of videos live where they were asked for, so a server of them is not copied; remove --keda")
    gauge, since, shown = _QUEUES[family]
    if Version(version) < since:
        fail("serve", f"{engine} does not count all requests that wait; {family}=={since} does; remove --keda")
    return replace(server, queue=gauge, command=[*server.command, *shown])


def _overrides(family: str, cluster: str, settings: Settings, *, apart: bool) -> list[Override]:
    """What the place where it runs decides."""
    said: dict[tuple[str, ...], object] = {}
    if family == "sglang":  # its command is the same on each machine, of which the manifest says the number
        said["hardware", "gpus_per_node"] = None
    if family not in _PORTS:
        said["server", "host"] = _EVERYWHERE if cluster != "ray" else _HERE
        said["server", "port"] = _port(family, cluster, settings)
    if family == "native" and cluster != "ray":
        said["server", "api_key_file"] = KEY
        said["server", "store"] = STORE  # what one copy has made, another one or the next gives out
    if apart and settings["data_parallel_size"]:
        said["parallel", "data_parallel_size"] = 1
    return [Override(path, value, ()) for path, value in said.items()]


def _server(family: str, cluster: str, checked: CheckResult, plan: Plan, settings: Settings, *, apart: bool) -> Server:
    replicas = settings["data_parallel_size"] or 1
    read = files(plan) + ([settings["lora_folder"]] if settings["lora_folder"] else [])
    relative = [path for path in read if not path.startswith("/")]
    if relative and cluster != "ray":
        fail("serve", f"a container has no folder from which {relative[0]} leads anywhere; give an absolute path")
    common: dict[str, Any] = {
        "name": name_of(plan),
        "gpus": plan.mesh.ranks_per_node * (1 if apart else replicas),
        "nodes": plan.mesh.nodes,
        "copies": replicas if apart else 1,
        "files": read,
        "comment": on_nodes(read) + (_POOLED if cluster == "llm-d" else ""),
        "labels": _POOL if cluster == "llm-d" else {},
        "port": _port(family, cluster, settings),
    }
    if family == "native":
        return Server(
            **common,
            image=image_of("native", __version__),
            command=["omni", "serve", CONFIG],
            environment={},
            config=as_yaml(checked),
            is_ready="/ready",
            is_alive="/health",
            queue="omni_queue_depth" if apart else None,
            drain=ceil(settings["drain_timeout"]),
        )
    words, environment = _command(checked, plan.engine)
    if family in _PORTS:
        words += ["--host", _EVERYWHERE if cluster != "ray" else _HERE, "--port", str(common["port"])]
    if plan.mesh.nodes > 1:
        words += ["--nnodes", str(plan.mesh.nodes), *MEET]
    return Server(
        **common,
        image=image_of(family, plan.engine.partition("==")[2]),
        command=words,
        environment=environment,
        config=None,
        is_ready="/health",
        is_alive="/health",
        queue=None,
        drain=ceil(settings["drain_timeout"]),
    )


def _port(family: str, cluster: str, settings: Settings) -> int:
    return 8000 if cluster == "llm-d" else _PORTS.get(family) or settings["port"] or 8091


def _command(checked: CheckResult, engine: str) -> tuple[list[str], dict[str, str]]:
    """The words that start another engine's server, and the variables in front of them."""
    if engine.partition("==")[0] not in ("vllm-omni", "sglang") or "==" not in engine:
        fail("serve", f"--emit is for native, vllm-omni==VERSION and sglang==VERSION; the config says engine {engine}")
    text, findings = export(checked)
    if text is None:
        fail("serve", "; ".join(finding.message for finding in findings))
    words = shlex.split(text.replace("\\\n", " "))
    names = dict(word.split("=", 1) for word in words if word.partition("=")[0].isupper())
    words = words[len(names) :]
    if words[1] != "serve":
        fail("serve", "the config says what is generated, so its command makes that and ends; remove sampling")
    return words, names
