"""How does a test describe what a cluster holds, and follow it quickly? Objects in short, and times in milliseconds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from app.status_writer import StatusTimes
from discovery.sources.backoff import Times
from discovery.sources.kube_access import PodAccess
from discovery.sources.kube_client import KubeClient
from tests.support.kube_api import KubeApi
from tests.support.kube_api.server import TOKEN

CONTROLLER = "pointsman.dev/gatewayclass-controller"

# What takes seconds in a cluster takes milliseconds here; watches that nobody ends stay open.
QUICK = Times(
    watch_least=240,
    watch_most=240,
    missing_least=0.02,
    missing_most=0.05,
    missing_grace=0.2,
    forbidden=0.05,
    refused=0.05,
    short_watch=0.01,
    pause=0.01,
    backoff_first=0.01,
    backoff_most=0.05,
)
QUICK_STATUS = StatusTimes(settle=0.05, first_pause=0.3, conflict=0.1)


def pod_access(api: KubeApi, folder: Path, *, token: str = TOKEN, namespace: str = "default") -> PodAccess:
    """The service account of a pod in the test's cluster, as files in ``folder``."""
    (folder / "token").write_text(f"{token}\n")
    (folder / "namespace").write_text(namespace)
    return PodAccess(url=api.url, folder=folder)


@contextlib.asynccontextmanager
async def kube_client(api: KubeApi, folder: Path, **limits: float) -> AsyncIterator[KubeClient]:
    """A client of the test's cluster."""
    client = KubeClient(pod_access(api, folder), **limits)
    try:
        yield client
    finally:
        await client.close()


def pod(
    name: str,
    address: str | None = "127.1.0.1",
    *,
    labels: dict[str, str] | None = None,
    namespace: str = "default",
    is_ready: bool = True,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A running pod."""
    status: dict[str, Any] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}],
    }
    if address is not None:
        status["podIP"] = address
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels or {"app": "qwen"},
            "annotations": annotations or {},
        },
        "spec": {"nodeName": "node-a", "containers": [{"name": "vllm", "env": [{"name": "KEY", "value": "s3cret"}]}]},
        "status": status,
    }


def pool(
    name: str = "qwen", *, port: int = 8000, labels: dict[str, str] | None = None, namespace: str = "default"
) -> dict[str, Any]:
    """An InferencePool of v1."""
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels or {"app": name}},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {"name": "unused", "port": {"number": 9002}},
        },
    }


def gateway_class(name: str = "pointsman", controller: str = CONTROLLER) -> dict[str, Any]:
    """A GatewayClass."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
    }


def gateway(name: str = "gateway", *, class_name: str = "pointsman", namespace: str = "default") -> dict[str, Any]:
    """A Gateway with one HTTP listener that takes routes of all namespaces."""
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": class_name, "listeners": [listener]},
    }


def route(
    name: str = "models",
    *,
    models: dict[str, str] | None = None,
    parents: tuple[str, ...] = ("gateway",),
    namespace: str = "default",
    kind: str = "InferencePool",
) -> dict[str, Any]:
    """An HTTPRoute with a rule for each model, to the pool (or Service at port 80, or Backend) of that name."""
    groups = {"InferencePool": "inference.networking.k8s.io", "Service": "", "Backend": "gateway.envoyproxy.io"}
    rules = []
    for model, target in (models or {"qwen": "qwen"}).items():
        ref: dict[str, Any] = {"group": groups[kind], "kind": kind, "name": target}
        if kind == "Service":
            ref["port"] = 80
        match = {"headers": [{"name": "X-Gateway-Model-Name", "value": model}]}
        rules.append({"matches": [match], "backendRefs": [ref]})
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [{"name": parent, "namespace": "default"} for parent in parents], "rules": rules},
    }


def create_routing(api: KubeApi, *, models: dict[str, str] | None = None) -> None:
    """A class, a Gateway, a route with a rule for each model, and the pools."""
    models = models or {"qwen": "qwen"}
    api.create(gateway_class())
    api.create(gateway())
    api.create(route(models=models))
    for name in set(models.values()):
        api.create(pool(name))
