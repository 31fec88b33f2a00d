"""Does the admin port tell what a policy does to a rule right now: limits, queue, breakers?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.test_policies import POST, SlowPods, policy, waiting
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio


async def rule_status(gateway: RunningGateway) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        entries = (await client.get(f"{gateway.admin_url}/status")).json()
    (route,) = [entry for entry in entries if entry["kind"] == "HTTPRoute"]
    assert {condition["type"] for condition in route["conditions"]} == {"Accepted", "ResolvedRefs"}
    (rule,) = route["rules"]
    return dict(rule)


async def test_what_runs_what_waits_and_the_limits_are_told(tmp_path: Path) -> None:
    pods = SlowPods()
    async with RawUpstream(pods) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port))
        manifests += policy("circuitBreaker: {maxConnections: 1, maxPendingRequests: 7}")
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            clients = [asyncio.create_task(ask(gateway.port, POST)) for _ in range(3)]
            await waiting(gateway, 2)
            await pods.until_running(1)
            rule = await rule_status(gateway)
            assert (rule["requestsRunning"], rule["requestsWaiting"], rule["retriesRunning"]) == (1, 2, 0)
            assert rule["limits"] == {"maxConnections": 1, "maxPendingRequests": 7}
            metrics = await gateway.metrics()
            labels = 'route="default/route-qwen",rule="0"'
            assert f"pointsman_rule_requests_running{{{labels}}} 1.0" in metrics
            assert f"pointsman_rule_requests_waiting{{{labels}}} 2.0" in metrics
            assert f'pointsman_rule_limit{{limit="maxPendingRequests",{labels}}} 7.0' in metrics
            pods.release.set()
            await asyncio.gather(*clients)
            assert f"pointsman_rule_requests_running{{{labels}}} 0.0" in await gateway.metrics()


async def test_an_ejected_endpoint_is_told_with_its_breaker(tmp_path: Path) -> None:
    async def failing(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer(status="500 Internal Server Error")

    async with RawUpstream(failing) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port))
        manifests += policy("healthCheck: {passive: {consecutive5XxErrors: 2}, panicThreshold: 0}")
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            label = f'endpoint="127.0.0.1:{upstream.port}"'
            await ask(gateway.port, POST)
            assert (await rule_status(gateway))["endpoints"][0]["breaker"] == "closed"
            await ask(gateway.port, POST)
            assert (await rule_status(gateway))["endpoints"] == [
                {
                    "backend": "default/backend-qwen",
                    "endpoint": f"127.0.0.1:{upstream.port}",
                    "requestsRunning": 0,
                    "breaker": "open",
                    "ejections": 1,
                }
            ]
            assert (await ask(gateway.port, POST)).status == 503
            metrics = await gateway.metrics()
            assert f'pointsman_upstream_breakers{{{label},state="open"}} 1.0' in metrics
            assert f"pointsman_upstream_ejections_total{{{label}}} 1.0" in metrics
