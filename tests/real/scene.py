"""What is a gateway under a load that makes every metric move? Models that work, fail, wait and are mirrored."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.real.prometheus import Prometheus, running_prometheus
from tests.support.clusters import create_routing, pod
from tests.support.gateway import RunningGateway, pool_at, running_gateway
from tests.support.kube_api import KubeApi
from tests.support.otlp import receiving, tracing_to
from tests.support.raw_upstream import Conversation, RawUpstream

NOBODY = "127.9.9.9"  # where nothing listens


def _rule(
    model: str, *, kind: str = "InferencePool", group: str = "inference.networking.k8s.io", more: str = ""
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {model}}}
spec:
  rules:
  - matches: [{{headers: [{{name: X-Gateway-Model-Name, value: {model}}}]}}]
    backendRefs: [{{group: {group}, kind: {kind}, name: {model}}}]
    {more}
---
"""


def _policy(model: str, spec: str) -> str:
    return f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {model}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {model}}}]
  {spec}
---
"""


def _limit(*, is_shadow: bool) -> str:
    shadow = ", shadowMode: true" if is_shadow else ""
    return f"rateLimit: {{type: Local, local: {{rules: [{{limit: {{requests: 1, unit: Hour}}{shadow}}}]}}}}"


def _manifests(simulator: int, breaking: int) -> str:
    """Models: good (one of two pods is down; mirrored), shadow and limited (rate limits), narrow (one at a time, with
    health checks), broken (streams end early), failing (500), empty (no pods), alias (stands for good)."""
    mirror = (
        "filters: [{type: RequestMirror, requestMirror: {backendRef: "
        "{group: inference.networking.k8s.io, kind: InferencePool, name: shadow}}}]"
    )
    backend = {"kind": "Backend", "group": "gateway.envoyproxy.io"}
    return (
        _rule("good", more=mirror)
        + pool_at("good", simulator, "127.0.0.1", NOBODY)
        + _rule("shadow")
        + pool_at("shadow", simulator, "127.0.0.1")
        + _policy("shadow", _limit(is_shadow=True))
        + _rule("limited")
        + pool_at("limited", simulator, "127.0.0.1")
        + _policy("limited", _limit(is_shadow=False))
        + _rule("narrow")
        + pool_at("narrow", simulator, "127.0.0.1")
        + _policy(
            "narrow",
            "circuitBreaker: {maxConnections: 1, maxPendingRequests: 1}\n"
            "  healthCheck: {active: {type: HTTP, interval: 200ms, http: {path: /health}}}",
        )
        + _rule("broken", **backend)
        + "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {name: broken}\n"
        + f"spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {breaking}}}}}]}}\n---\n"
        + _rule("empty")
        + pool_at("empty", simulator)
        + _rule("alias")
        + pool_at("alias", simulator, "127.0.0.1")
        + "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\nmetadata: {name: alias}\n"
        + "spec: {modelName: alias, poolRef: {name: alias}, targetModels: [{name: good}]}\n"
    )


MODELS = ("good", "good", "shadow", "limited", "narrow", "narrow", "narrow", "broken", "empty", "alias", "unknown")


async def _breaking(peer: Conversation) -> None:
    await peer.request()
    await peer.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
    )
    peer.reset()


async def _ask(client: httpx.AsyncClient, model: str, patience_seconds: float = 30.0) -> None:
    body = {"model": model, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8}
    messages = [{"role": "user", "content": "hello " * 200}]
    with contextlib.suppress(httpx.TransportError):
        await client.post("/v1/chat/completions", json=body | {"messages": messages}, timeout=patience_seconds)


async def _load(gateways: tuple[RunningGateway, ...]) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=each.url)) for each in gateways]
        while True:
            await asyncio.gather(*(_ask(client, model) for client in clients for model in MODELS))
            await _ask(clients[0], "good", patience_seconds=0.02)  # a client that leaves


@asynccontextmanager
async def observed_gateways(folder: Path) -> AsyncIterator[Prometheus]:
    """Two gateways, one over files and one over a cluster, that have been under load for twenty scrapes."""
    settings = SimulatorSettings(models=("good", "shadow", "limited", "narrow"), ttft_seconds=0.05, itl_seconds=0.005)
    (folder / "cluster").mkdir()
    async with (
        receiving() as collector,
        tracing_to(collector.port) as pipeline,
        SimulatedModelServer(settings) as simulator,
        RawUpstream(_breaking) as breaking,
        KubeApi() as api,
    ):
        create_routing(api)
        api.create(pod("qwen-0", "127.0.0.1"))
        manifests = _manifests(simulator.port, breaking.port)
        async with (
            running_gateway(manifests, folder=folder, tracing=pipeline.observer) as of_files,
            running_gateway(folder=folder / "cluster", cluster=api) as of_cluster,
        ):
            targets = [f"127.0.0.1:{each.gateway.admin_port}" for each in (of_files, of_cluster)]
            async with running_prometheus(targets, folder=folder) as prometheus:
                load = asyncio.create_task(_load((of_files, of_cluster)))
                try:
                    await prometheus.scraped(20)
                finally:
                    load.cancel()
                    await asyncio.wait({load})
                yield prometheus
