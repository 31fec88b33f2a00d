"""How does a test get a running gateway? A real one, on free ports, over manifests that the test writes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson

from app.lifespan import Gateway
from app.logs import LineWriter
from app.settings import Settings
from app.tracing.spans import Tracing
from middleware.exchange import Exchange
from tests.support.clusters import QUICK, QUICK_STATUS, pod_access
from tests.support.kube_api import KubeApi


class FinishedExchanges:
    """An observer that keeps what is over and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[Exchange] = []
        self.keeps = True
        self._changed = asyncio.Event()

    def started(self, exchange: Exchange) -> None:
        """Nothing to keep yet."""

    def finished(self, exchange: Exchange) -> None:
        """Keep it."""
        if self.keeps:
            self.all.append(exchange)
        self._changed.set()

    async def next(self, count: int = 1) -> Exchange:
        """The exchange that makes ``count`` of them, once it is over."""
        async with asyncio.timeout(10):
            while len(self.all) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.all[count - 1]


class RunningGateway:
    """A gateway, its ports, what it finished, and its access log."""

    def __init__(self, gateway: Gateway, finished: FinishedExchanges, log: Path, writer: LineWriter) -> None:
        self.gateway = gateway
        self.finished = finished
        self._log = log
        self._writer = writer

    @property
    def port(self) -> int:
        """The data port."""
        return self.gateway.port

    @property
    def url(self) -> str:
        """The data port's base URL."""
        return f"http://127.0.0.1:{self.gateway.port}"

    @property
    def admin_url(self) -> str:
        """The admin port's base URL."""
        return f"http://127.0.0.1:{self.gateway.admin_port}"

    async def metrics(self) -> str:
        """What /metrics says now."""
        async with httpx.AsyncClient(base_url=self.admin_url) as client:
            return (await client.get("/metrics")).text

    def log_records(self) -> list[dict[str, object]]:
        """The lines of the access log so far; ends the log."""
        self._writer.close()
        return [orjson.loads(line) for line in self._log.read_bytes().splitlines()]


@asynccontextmanager
async def running_gateway(
    manifests: str = "",
    *,
    folder: Path,
    configure: Callable[[Settings], Settings] = lambda settings: settings,
    tracing: Tracing | None = None,
    cluster: KubeApi | None = None,
    is_awaited: bool = True,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway over ``manifests`` (YAML), written to ``folder``, on free ports of 127.0.0.1; and over a cluster,
    whose first state is waited for unless ``is_awaited`` is False."""
    paths: tuple[Path, ...] = ()
    if manifests:
        path = folder / "manifests.yaml"
        path.write_text(manifests)
        paths = (path,)
    settings = Settings(
        paths=paths, host="127.0.0.1", port=0, admin_port=0, drain_grace_seconds=0.0, drain_timeout_seconds=5.0
    )
    log = folder / "access.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = LineWriter(file_descriptor=descriptor)
    finished = FinishedExchanges()
    if cluster is not None:
        settings = replace(settings, watches_cluster=True)
    gateway = Gateway(
        configure(settings),
        writer=writer,
        tracing=tracing,
        observers=[finished],
        access=pod_access(cluster, folder) if cluster is not None else None,
        cluster_times=QUICK,
        status_times=QUICK_STATUS,
    )
    try:
        await gateway.start()
        if is_awaited:
            async with asyncio.timeout(20):
                await gateway.wait_serving()
        yield RunningGateway(gateway, finished, log, writer)
    finally:
        await gateway.close()
        writer.close()
        os.close(descriptor)


def with_models(*models: str) -> Callable[[Settings], Settings]:
    """Configure with --model shorthands."""
    return lambda settings: replace(settings, models=models)


def route_to(*endpoints: tuple[str, int], model: str = "qwen", rule: str = "") -> str:
    """An HTTPRoute for one model to a Backend with these endpoints; ``rule`` is YAML put into the rule."""
    indented = "".join(f"\n    {line}" for line in rule.splitlines())
    listed = "".join(f"\n  - ip: {{address: {address}, port: {port}}}" for address, port in endpoints)
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-{model}}}
spec:
  rules:
  - matches:
    - headers: [{{name: X-Gateway-Model-Name, value: {model}}}]
    backendRefs:
    - {{group: gateway.envoyproxy.io, kind: Backend, name: backend-{model}}}{indented}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: backend-{model}}}
spec:
  endpoints:{listed}
---
"""


def pool_at(name: str, port: int, *addresses: str) -> str:
    """An InferencePool and its pods, one for each address; each document ends with the line that parts it."""
    pods = "".join(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}-{number}, labels: {{app: {name}}}}}
status: {{podIP: {address}}}
---"""
        for number, address in enumerate(addresses)
    )
    return f"""
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  targetPorts: [{{number: {port}}}]
  endpointPickerRef: {{name: unused, port: {{number: 9002}}}}
---{pods}
"""
