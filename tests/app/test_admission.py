"""Do rate limits and injected faults do what their policy says? Over real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.app.test_policies import POST, code, policy
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

PER_USER = """rateLimit:
    type: Local
    local:
      rules:
      - clientSelectors: [{headers: [{name: x-user, type: Distinct}]}]
        limit: {requests: 2, unit: Hour}"""


async def good(peer: Conversation) -> None:
    while True:
        await peer.request()
        await peer.answer()


def of_user(name: str) -> bytes:
    return POST.replace(b"Host: h\r\n", b"Host: h\r\nX-User: %b\r\n" % name.encode())


async def test_each_client_has_its_share_and_is_told_so(tmp_path: Path) -> None:
    async with (
        RawUpstream(good) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(PER_USER), folder=tmp_path) as gateway,
    ):
        answers = [await ask(gateway.port, of_user("ann")) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
        refused = answers[-1]
        assert (code(refused), refused.headers["x-ratelimit-limit"]) == ("rate_limited", "2")
        assert 1700 < int(refused.headers["retry-after"]) <= 1800
        assert json.loads(refused.body)["error"]["type"] == "rate_limit_error"
        assert (await ask(gateway.port, of_user("bob"))).status == 200
        without = await ask(gateway.port, POST)
        assert without.status == 200
        assert "x-ratelimit-limit" not in without.headers
        last = gateway.finished.all[2]
        assert (last.flag, last.attempts) == ("RL", [])
        assert 'reason="rate_limited"' in await gateway.metrics()


async def test_shares_outlive_a_reload_that_leaves_the_limit_as_it_is(tmp_path: Path) -> None:
    async with RawUpstream(good) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port)) + policy(PER_USER)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            for _ in range(2):
                assert (await ask(gateway.port, of_user("ann"))).status == 200
            version = gateway.gateway.store.current.version
            (tmp_path / "manifests.yaml").write_text(
                manifests.replace("  rateLimit:", "  timeout: {http: {requestTimeout: 30s}}\n  rateLimit:", 1)
            )
            async with asyncio.timeout(10):
                while gateway.gateway.store.current.version == version:
                    await asyncio.sleep(0.02)
            assert gateway.gateway.store.current.routing.rules[0].policy.request_timeout_seconds == 30
            assert (await ask(gateway.port, of_user("ann"))).status == 429


async def test_an_abort_is_answered_with_its_status_and_reaches_no_upstream(tmp_path: Path) -> None:
    async with (
        RawUpstream(good) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)) + policy("faultInjection: {abort: {httpStatus: 418}}"),
            folder=tmp_path,
        ) as gateway,
    ):
        answer = await ask(gateway.port, POST)
        assert (answer.status, code(answer)) == (418, "fault_injected")
        assert upstream.connections == 0
        assert (await gateway.finished.next()).flag == "FI"


async def delayed(gateway: RunningGateway) -> None:
    """Wait until a request is being delayed."""
    async with asyncio.timeout(5):
        while not gateway.gateway.requests_running:
            await asyncio.sleep(0.01)


async def test_a_delay_holds_no_place_and_ends_when_the_client_leaves(tmp_path: Path) -> None:
    faults = "faultInjection: {delay: {fixedDelay: 1h}}\n  circuitBreaker: {maxParallelRequests: 1}"
    async with (
        RawUpstream(good) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(faults), folder=tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.send(POST)
            await delayed(gateway)
            assert gateway.gateway.rules.of("HTTPRoute/default/route-qwen/0").in_flight == 0
        left = await gateway.finished.next()
        assert (left.reason, left.attempts) == ("client_closed", [])
        assert upstream.connections == 0


async def test_a_delayed_request_goes_on(tmp_path: Path) -> None:
    async with (
        RawUpstream(good) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)) + policy("faultInjection: {delay: {fixedDelay: 50ms}}"),
            folder=tmp_path,
        ) as gateway,
    ):
        assert (await ask(gateway.port, POST)).status == 200
        finished = await gateway.finished.next()
        assert (finished.flag, finished.reason) == ("DI", "")
