"""A server as manifests of Kubernetes: a Deployment, or, where a copy takes several machines, a LeaderWorkerSet.

Of what is not Kubernetes' own, only fields that its published definition has are written: LeaderWorkerSet v1 and its
labels and variables (kubernetes-sigs/lws 0.9), ScaledObject v1alpha1 and the Prometheus scaler (kedacore/keda 2.13),
PodMonitor v1 (prometheus-operator 0.91).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from omni_config.output.cluster import PORT, dumped
from omni_config.output.serving import CONFIG, KEY, MODELS, SLOWEST_START, STORE, Server, said

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (NCCL needs more of it than a container's 64 MiB)
_WAITING_A_COPY = 4  # requests, on average, before another copy is started
_COPIES_AT_MOST = 4  # times as many as are always there
_LEADER = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}

#: What SGLang's command needs on each machine; LeaderWorkerSet fills in the variables.
MEET = ["--node-rank", "$(LWS_WORKER_INDEX)", "--dist-init-addr", f"$(LWS_LEADER_ADDRESS):{PORT}"]


def kubernetes(server: Server) -> str:
    """A Deployment or LeaderWorkerSet, a Service and a PodDisruptionBudget; of the built-in runtime, also a ConfigMap.

    Where copies may be added, also what adds them: a HorizontalPodAutoscaler, or KEDA's ScaledObject and a PodMonitor.

    The image, the claims and the Secret of the key are to be there or renamed.
    """
    labels = {"app.kubernetes.io/name": server.name}
    asked = labels | (_LEADER if server.nodes > 1 else {})  # the machine that requests go to
    documents = [
        _service(server, asked),
        _group(server, labels) if server.nodes > 1 else _deployment(server, labels),
        _document(
            "policy/v1", "PodDisruptionBudget", server, {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
        ),
    ]
    if server.config is not None:
        config = {PurePosixPath(CONFIG).name: server.config}
        told = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": server.name}, "data": config}
        documents.insert(0, told)
    if server.prometheus is not None:
        documents += _keda(server, documents[-2], asked)
    elif server.queue is not None:
        documents.append(_autoscaler(server, documents[-2]))
    return server.comment + "".join(f"# {line}\n" for line in _to_be_there(server)) + dumped(documents)


def _to_be_there(server: Server) -> list[str]:
    lines = ["The claim omni-models is to be there, on what all nodes can mount."]
    if server.config is not None:
        lines.append(f"So is the claim {_store(server)}, and the image {server.image}.")
    if server.config is not None or server.key_variable is not None:
        lines.append(f"The key: kubectl create secret generic {server.name}-key --from-literal=api-key=...")
    if server.nodes > 1:
        lines.append("The controller of LeaderWorkerSet is to be there.")
    if server.prometheus is not None:
        lines.append("KEDA and the operator of Prometheus are to be there.")
    elif server.queue is not None:
        lines.append(f"{server.queue} is on /metrics, behind the key; an adapter makes it a metric of pods.")
    return lines


def _document(version: str, kind: str, server: Server, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": server.name}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": server.name, "labels": labels}, "spec": spec}


def _service(server: Server, asked: dict[str, str]) -> dict[str, Any]:
    """Not of the name of a LeaderWorkerSet: its controller makes a headless Service of that, by which pods meet."""
    service = _document("v1", "Service", server, {"selector": asked, "ports": [{"name": "http", "port": server.port}]})
    if server.nodes > 1:
        service["metadata"]["name"] += "-http"
    return service


def _deployment(server: Server, labels: dict[str, str]) -> dict[str, Any]:
    scales = server.queue is not None
    spec = {
        "replicas": None if scales else server.copies,
        "selector": {"matchLabels": labels},
        "strategy": None if scales else {"type": "Recreate"},  # there are no GPUs for an old and a new one
        "template": {"metadata": {"labels": {**labels, **server.labels}}, "spec": _pod(server)},
    }
    return _document("apps/v1", "Deployment", server, said(spec))


def _group(server: Server, labels: dict[str, str]) -> dict[str, Any]:
    """All machines of a copy start and end together. Only the first answers requests, and so is probed."""
    template = {
        "size": server.nodes,
        "restartPolicy": "RecreateGroupOnPodRestart",
        "leaderTemplate": {"metadata": {"labels": {**labels, **server.labels}}, "spec": _pod(server)},
        "workerTemplate": {"metadata": {"labels": labels}, "spec": _pod(server, answers=False)},
    }
    replicas = server.copies if server.queue is None else None
    spec = said({"replicas": replicas, "leaderWorkerTemplate": template})
    return _document("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", server, spec)


def _scaled(workload: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": workload["apiVersion"], "kind": workload["kind"], "name": workload["metadata"]["name"]}


def _autoscaler(server: Server, workload: dict[str, Any]) -> dict[str, Any]:
    metric = {"metric": {"name": server.queue}, "target": {"type": "AverageValue", "averageValue": _WAITING_A_COPY}}
    spec = {
        "scaleTargetRef": _scaled(workload),
        "minReplicas": server.copies,
        "maxReplicas": _COPIES_AT_MOST * server.copies,
        "metrics": [{"type": "Pods", "pods": metric}],
    }
    return _document("autoscaling/v2", "HorizontalPodAutoscaler", server, spec)


def _keda(server: Server, workload: dict[str, Any], asked: dict[str, str]) -> list[dict[str, Any]]:
    """What has Prometheus read the gauge, as the job that its operator names after this, and what scales on the sum."""
    endpoint: dict[str, Any] = {"port": "http", "path": "/metrics"}
    if server.config is not None:
        endpoint["authorization"] = {"credentials": _key(server)}
    question = {
        "serverAddress": server.prometheus,
        "query": f'sum({server.queue}{{job=~".+/{server.name}"}})',
        "threshold": str(_WAITING_A_COPY),
        "ignoreNullValues": "false",  # nothing is known where no server is read, not that nobody waits
    }
    scaled = {
        "scaleTargetRef": _scaled(workload),
        "minReplicaCount": server.copies,
        "maxReplicaCount": _COPIES_AT_MOST * server.copies,
        "triggers": [{"type": "prometheus", "metadata": question}],
    }
    read = {"selector": {"matchLabels": asked}, "podMetricsEndpoints": [endpoint]}
    return [
        _document("monitoring.coreos.com/v1", "PodMonitor", server, read),
        _document("keda.sh/v1alpha1", "ScaledObject", server, scaled),
    ]


def _key(server: Server) -> dict[str, str]:
    return {"name": f"{server.name}-key", "key": "api-key"}


def _store(server: Server) -> str:
    return f"{server.name}-store"


def _pod(server: Server, *, answers: bool = True) -> dict[str, Any]:
    mounts = {"models": MODELS, "shm": _SHARED_MEMORY}
    volumes: list[dict[str, Any]] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": "omni-models"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in (server.environment | {"HF_HOME": MODELS}).items()
    ]
    if server.config is not None:
        volumes.append({"name": "config", "configMap": {"name": server.name}})
        volumes.append({"name": "key", "secret": {"secretName": _key(server)["name"]}})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": _store(server)}})
        mounts |= {"config": str(PurePosixPath(CONFIG).parent), "key": str(PurePosixPath(KEY).parent), "store": STORE}
    elif server.key_variable is not None:
        environment.append({"name": server.key_variable, "valueFrom": {"secretKeyRef": _key(server)}})
    read = [{"name": f"files-{number}", "mountPath": path} for number, path in enumerate(server.files)]
    volumes += [{"name": mount["name"], "hostPath": {"path": mount["mountPath"]}} for mount in read]
    probes = {
        "startupProbe": _probe(server.is_ready, period=10, failures=SLOWEST_START // 10),
        "readinessProbe": _probe(server.is_ready, period=5, failures=1),
        "livenessProbe": _probe(server.is_alive, period=10, failures=6),
    }
    container = {
        "name": "server",
        "image": server.image,
        "command": server.command,
        "env": environment,
        "ports": [{"name": "http", "containerPort": server.port}] if answers else None,
        "resources": {"limits": {"nvidia.com/gpu": server.gpus}},
        **(probes if answers else {}),
        "volumeMounts": [
            *({"name": name, "mountPath": path} for name, path in mounts.items()),
            *({**mount, "readOnly": True} for mount in read),
        ],
    }
    return {
        "terminationGracePeriodSeconds": server.drain + 30,
        "automountServiceAccountToken": False,
        "shareProcessNamespace": True,  # a process 1 would not hear SIGTERM before it has a handler for it
        "containers": [said(container)],
        "volumes": volumes,
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    check = {"path": path, "port": "http"}
    return {"httpGet": check, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5}
