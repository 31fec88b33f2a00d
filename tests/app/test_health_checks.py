"""Do active health checks keep requests from endpoints that are not well? The whole gateway, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from app.admin.explain_text import explain_as_text
from tests.app.test_policies import POST, policy
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

CHECKS = """healthCheck:
    panicThreshold: 0
    active: {type: HTTP, interval: 20ms, http: {path: /health}}"""


class Pod:
    """A model server that serves whatever its health is."""

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well = is_well
        self.served = 0

    async def __call__(self, peer: Conversation) -> None:
        while True:
            if (await peer.request()).startswith(b"GET /health "):
                await peer.answer(status="200 OK" if self.is_well else "503 Loading")
            else:
                self.served += 1
                await peer.answer()


async def checked(gateway: RunningGateway, *healthy: bool) -> None:
    """Wait until every endpoint has been checked, with these findings."""
    async with asyncio.timeout(5):
        while [(h.is_healthy, h.is_pending) for _, h in gateway.gateway.health.states()] != [
            (is_healthy, False) for is_healthy in healthy
        ]:
            await asyncio.sleep(0.01)


async def test_requests_go_to_those_that_are_well(tmp_path: Path) -> None:
    well, ill = Pod(), Pod(is_well=False)
    async with (
        RawUpstream(well) as one,
        RawUpstream(ill) as two,
        running_gateway(
            route_to(("127.0.0.1", one.port), ("127.0.0.1", two.port)) + policy(CHECKS), folder=tmp_path
        ) as gateway,
    ):
        await checked(gateway, True, False)
        for _ in range(20):
            assert (await ask(gateway.port, POST)).status == 200
        assert (well.served, ill.served) == (20, 0)

        metrics = await gateway.metrics()
        assert f'pointsman_upstream_healthy{{endpoint="127.0.0.1:{one.port}"}} 1.0' in metrics
        assert f'pointsman_upstream_healthy{{endpoint="127.0.0.1:{two.port}"}} 0.0' in metrics
        assert 'pointsman_health_checks_total{finding="wrong_answer"}' in metrics
        async with httpx.AsyncClient(base_url=gateway.admin_url) as client:
            answer = (await client.post("/explain", json={"model": "qwen"})).json()
            status = (await client.get("/status")).text
        assert answer["arms"][0]["endpoints"][1]["health"].startswith("unhealthy: active check failed")
        line = next(line for line in explain_as_text(answer).splitlines() if f":{two.port}" in line)
        assert "left out: unhealthy: active check failed" in line
        assert line.endswith("status 503")
        assert "active check failed" in status

        ill.is_well = True
        await checked(gateway, True, True)
        well.is_well = False
        await checked(gateway, False, True)
        assert (await ask(gateway.port, POST)).status == 200
        assert (well.served, ill.served) == (20, 1)


async def test_with_none_that_is_well_the_panic_threshold_decides(tmp_path: Path) -> None:
    ill = Pod(is_well=False)
    manifests = ""
    async with RawUpstream(ill) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port)) + policy(CHECKS)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            await checked(gateway, False)
            answer = await ask(gateway.port, POST)
            assert (answer.status, ill.served) == (503, 0)
            assert (await gateway.finished.next()).reason == "no_endpoints"
        async with running_gateway(manifests.replace("panicThreshold: 0", ""), folder=tmp_path) as gateway:
            await checked(gateway, False)
            assert (await ask(gateway.port, POST)).status == 200
