"""Does a running gateway tell everything that docs/metrics.md promises?"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from app.loop_lag import LoopLag
from app.metrics_document import document
from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import running_gateway
from tests.support.otlp import receiving, tracing_to

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
STREAM = {"model": "qwen", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5, "messages": []}


def manifests(port: int) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm}}
spec:
  rules:
  - matches: [{{headers: [{{name: X-Gateway-Model-Name, value: qwen}}]}}]
    backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: qwen}}
spec:
  selector: {{matchLabels: {{app: qwen}}}}
  targetPorts: [{{number: {port}}}]
  endpointPickerRef: {{name: unused, port: {{number: 9002}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: qwen-0, labels: {{app: qwen}}}}
status: {{podIP: 127.0.0.1}}
"""


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == document(), "make docs"


async def test_everything_that_the_page_names_is_there_and_valid_openmetrics(tmp_path: Path) -> None:
    promised = set(re.findall(r"^\| `(pointsman_\w+)`", PAGE.read_text("utf-8"), re.MULTILINE))
    simulator = SimulatedModelServer(SimulatorSettings(models=("qwen",), itl_seconds=0.002))
    async with simulator as server, receiving() as collector, tracing_to(collector.port) as pipeline:
        async with running_gateway(manifests(server.port), folder=tmp_path, tracing=pipeline.observer) as gateway:
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{gateway.url}/v1/chat/completions", json=STREAM)
                assert answer.status_code == 200
                exchange = await gateway.finished.next()
                while True:  # until the pod's own metrics were read
                    scraped = await client.get(
                        f"{gateway.admin_url}/metrics", headers={"accept": "application/openmetrics-text"}
                    )
                    if "pointsman_upstream_load_age_seconds{" in scraped.text:
                        break
    assert scraped.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in read_openmetrics(scraped.text)}  # type: ignore[no-untyped-call]
    assert {name for name in promised if not name.startswith("pointsman_kubernetes_")} == {
        f"{name}_total" if family.type == "counter" else name
        for name, family in families.items()
        if name.startswith("pointsman_")
    }
    needs_more = {
        "pointsman_rewritten",
        "pointsman_mirror",
        "pointsman_rate_limit",
        "pointsman_rule_limit",
        "pointsman_cached",
        "pointsman_upstream_healthy",
    }
    for name, family in families.items():
        assert family.samples or name.startswith(tuple(needs_more)), name
    (ready,) = families["pointsman_backend_endpoints"].samples
    assert (ready.labels, ready.value) == ({"backend": "default/qwen", "kind": "InferencePool"}, 1)
    assert exchange.trace is not None
    examples = [s.exemplar for s in families["pointsman_request_duration_seconds"].samples if s.exemplar is not None]
    assert [example.labels for example in examples] == [{"trace_id": exchange.trace.trace_id}]
    assert families["pointsman_request_output_tokens"].samples[-1].value == 5


TWO_PORTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec:
  rules:
  - backendRefs: [{name: qwen, port: 80}, {name: qwen, port: 81}]
---
apiVersion: v1
kind: Service
metadata: {name: qwen}
spec: {ports: [{name: a, port: 80, targetPort: 8000}, {name: b, port: 81, targetPort: 8001}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: qwen-a, labels: {kubernetes.io/service-name: qwen}}
addressType: IPv4
ports: [{name: a, port: 8000}]
endpoints: [{addresses: [10.0.0.7], conditions: {ready: true}}]
"""


async def test_a_service_of_two_ports_is_one_series_that_tells_the_worse(tmp_path: Path) -> None:
    async with running_gateway(TWO_PORTS, folder=tmp_path) as gateway, httpx.AsyncClient() as client:
        lines = (await client.get(f"{gateway.admin_url}/metrics")).text.splitlines()
    told = [line for line in lines if line.startswith("pointsman_backend_endpoints{")]
    assert told == ['pointsman_backend_endpoints{backend="default/qwen",kind="Service"} 0.0']


async def test_how_late_the_loop_is_is_measured() -> None:
    lag = LoopLag()
    lag.start()
    ((_, histogram),) = [row for row in lag.family().rows if row is not None]
    async with asyncio.timeout(10):
        while not sum(histogram.buckets):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    lag.close()
    lag.close()
