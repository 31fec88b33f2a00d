"""Does a BackendTrafficPolicy do to one model's traffic what it says? Over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawAnswer, RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

BODY = b'{"model":"qwen"}'
POST = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def policy(spec: str, *, target: str = "route-qwen") -> str:
    return f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: traffic}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {target}}}]
  {spec}
---
"""


def code(answer: RawAnswer) -> str:
    return str(json.loads(answer.body)["error"]["code"]) if answer.status >= 400 else ""


class SlowPods:
    """An upstream that answers when it is told to, and counts what is under way."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.order: list[bytes] = []
        self.release = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, peer: Conversation) -> None:
        while True:
            request = await peer.request()
            self.order.append(request.rsplit(b"x-number: ", 1)[-1].split(b"\r\n")[0])
            await self._count(1)
            await self.release.wait()
            await peer.answer()
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.running += change
            self.most = max(self.most, self.running)
            self._changed.notify_all()

    async def until_running(self, count: int) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self.running == count)


async def waiting(gateway: RunningGateway, count: int) -> None:
    """Wait until so many requests wait for their turn."""
    async with asyncio.timeout(5):
        while gateway.gateway.rules.of("HTTPRoute/default/route-qwen/0").waiting != count:
            await asyncio.sleep(0.01)


async def test_above_max_parallel_requests_the_rest_is_refused_at_once(tmp_path: Path) -> None:
    pods = SlowPods()
    async with (
        RawUpstream(pods) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)) + policy("circuitBreaker: {maxParallelRequests: 10}"),
            folder=tmp_path,
        ) as gateway,
    ):
        tasks = [asyncio.create_task(ask(gateway.port, POST)) for _ in range(100)]
        await pods.until_running(10)
        async with asyncio.timeout(5):
            while sum(task.done() for task in tasks) < 90:
                await asyncio.sleep(0.01)
        refused = [task.result() for task in tasks if task.done()]
        assert Counter((answer.status, code(answer)) for answer in refused) == {(503, "overloaded"): 90}
        assert all("retry-after" in answer.headers for answer in refused)
        pods.release.set()
        answers = [await task for task in tasks]
        assert Counter(answer.status for answer in answers) == {200: 10, 503: 90}
        assert (await ask(gateway.port, POST)).status == 200  # a place is free as soon as one ends
        assert {exchange.flag for exchange in gateway.finished.all} == {"", "UO"}


async def test_above_max_connections_requests_wait_in_order_and_what_is_over_is_refused(tmp_path: Path) -> None:
    pods = SlowPods()
    limits = "circuitBreaker: {maxConnections: 2, maxPendingRequests: 3}"
    async with (
        RawUpstream(pods) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(limits), folder=tmp_path) as gateway,
        AsyncExitStack() as stack,
    ):
        clients = []
        for number in range(5):
            client = await stack.enter_async_context(RawClient(gateway.port))
            await client.send(POST.replace(b"Host: h\r\n", b"Host: h\r\nX-Number: %d\r\n" % number))
            clients.append(client)
            if number < 2:
                await pods.until_running(number + 1)
            else:
                await waiting(gateway, number - 1)
        assert code(await ask(gateway.port, POST)) == "overloaded"
        pods.release.set()
        for client in clients:
            assert (await client.answer()).status == 200
        assert pods.most == 2
        assert pods.order == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_client_that_leaves_the_queue_makes_room_and_a_wait_has_an_end(tmp_path: Path) -> None:
    pods = SlowPods()
    limits = "circuitBreaker: {maxConnections: 1, maxPendingRequests: 1}\n  timeout: {http: {requestTimeout: 1s}}"
    async with (
        RawUpstream(pods) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(limits), folder=tmp_path) as gateway,
        RawClient(gateway.port) as running,
    ):
        await running.send(POST)
        await pods.until_running(1)
        async with RawClient(gateway.port) as queued:
            await queued.send(POST)
            await waiting(gateway, 1)
        await waiting(gateway, 0)
        assert (await gateway.finished.next()).reason == "client_closed"
        answer = await ask(gateway.port, POST)  # waits, and its time is over before its turn comes
        assert (answer.status, code(answer)) == (504, "upstream_timeout")
        await waiting(gateway, 0)


async def test_places_are_conserved_over_requests_that_are_cancelled_at_random(tmp_path: Path) -> None:
    import random

    dice = random.Random(7)

    async def quick(peer: Conversation) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(dice.random() * 0.01)
            await peer.answer()

    limits = "circuitBreaker: {maxConnections: 5, maxPendingRequests: 10}"
    async with (
        RawUpstream(quick) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(limits), folder=tmp_path) as gateway,
    ):

        async def one() -> None:
            async with RawClient(gateway.port) as client:
                await client.send(POST)
                await asyncio.sleep(dice.random() * 0.02)

        for _ in range(25):
            await asyncio.gather(*(one() for _ in range(40)))
        async with asyncio.timeout(5):
            while gateway.gateway.requests_running:
                await asyncio.sleep(0.01)
        traffic = gateway.gateway.rules.of("HTTPRoute/default/route-qwen/0")
        assert (traffic.in_flight, traffic.waiting, traffic.retries_in_flight) == (0, 0, 0)
        assert [upstream.in_flight for upstream in gateway.gateway.registry] == [0]


async def test_retry_settings_hold(tmp_path: Path) -> None:
    seen = 0

    async def failing(peer: Conversation) -> None:
        nonlocal seen
        while True:
            await peer.request()
            seen += 1
            await peer.answer(b"{}", status="500 Oops" if seen < 4 else "200 OK")

    retry = """retry:
    numRetries: 5
    retryOn: {triggers: [5xx]}
    perRetry: {backOff: {baseInterval: 1ms, maxInterval: 2ms}}"""
    async with (
        RawUpstream(failing) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(retry), folder=tmp_path) as gateway,
    ):
        assert (await ask(gateway.port, POST)).status == 200
        assert seen == 4


async def test_a_retry_list_of_nothing_turns_retries_off(tmp_path: Path) -> None:
    seen = 0

    async def busy(peer: Conversation) -> None:
        nonlocal seen
        while True:
            await peer.request()
            seen += 1
            await peer.answer(b"{}", status="503 Busy")

    async with (
        RawUpstream(busy) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)) + policy("retry: {numRetries: 0}"), folder=tmp_path
        ) as gateway,
    ):
        assert (await ask(gateway.port, POST)).status == 503
        assert seen == 1


async def test_the_time_of_one_try_is_its_own(tmp_path: Path) -> None:
    async def silent_once(peer: Conversation) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.until_closed()
        await peer.answer()
        await peer.until_closed()

    retry = "retry: {retryOn: {triggers: [reset]}, perRetry: {timeout: 200ms}}"
    async with (
        RawUpstream(silent_once) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(retry), folder=tmp_path) as gateway,
    ):
        assert (await ask(gateway.port, POST)).status == 200
        assert [attempt.outcome for attempt in (await gateway.finished.next()).attempts] == ["timeout", "answered"]


async def test_a_failover_hides_the_failure_of_one_endpoint(tmp_path: Path) -> None:
    async def good(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer()

    async def bad(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer(b"{}", status="503 Busy")

    checks = "healthCheck: {passive: {consecutive5XxErrors: 1, baseEjectionTime: 10s}}\n  retry: {numRetries: 0}"
    async with (
        RawUpstream(good) as one,
        RawUpstream(bad) as two,
        running_gateway(
            route_to(("127.0.0.1", one.port), ("127.0.0.1", two.port)) + policy(checks), folder=tmp_path
        ) as gateway,
    ):
        statuses = Counter([(await ask(gateway.port, POST)).status for _ in range(40)])
        assert statuses == {200: 39, 503: 1}  # with the policy 503 is a failure, and one is enough


async def test_when_no_endpoint_is_left_to_retry_the_last_answer_passes_unchanged(tmp_path: Path) -> None:
    async def failing(peer: Conversation) -> None:
        await peer.request()
        await peer.answer(b"out of memory", status="500 Oops")
        await peer.until_closed()

    spec = """retry: {retryOn: {triggers: [5xx]}}
  healthCheck: {panicThreshold: 0, passive: {consecutive5XxErrors: 1}}"""
    async with (
        RawUpstream(failing) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)) + policy(spec), folder=tmp_path) as gateway,
    ):
        answer = await ask(gateway.port, POST)
        assert (answer.status, answer.body) == (500, b"out of memory")
        assert len((await gateway.finished.next()).attempts) == 1
        assert code(await ask(gateway.port, POST)) == "no_endpoints"


async def test_a_reload_moves_the_queue_to_the_new_limit(tmp_path: Path) -> None:
    pods = SlowPods()
    async with RawUpstream(pods) as upstream:
        route = route_to(("127.0.0.1", upstream.port))
        narrow = route + policy("circuitBreaker: {maxConnections: 1, maxPendingRequests: 9}")
        async with running_gateway(narrow, folder=tmp_path) as gateway:
            asks = [asyncio.create_task(ask(gateway.port, POST)) for _ in range(4)]
            await waiting(gateway, 3)
            (tmp_path / "manifests.yaml").write_text(narrow.replace("maxConnections: 1,", "maxConnections: 3,"))
            await waiting(gateway, 1)
            await pods.until_running(3)
            (tmp_path / "manifests.yaml").write_text(route)
            await pods.until_running(4)
            pods.release.set()
            assert [(await task).status for task in asks] == [200] * 4


async def test_a_rule_always_has_one_connection(tmp_path: Path) -> None:
    async def good(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()

    async with (
        RawUpstream(good) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)) + policy("circuitBreaker: {maxConnections: 0}"), folder=tmp_path
        ) as gateway,
    ):
        async with asyncio.timeout(5):
            assert (await ask(gateway.port, POST)).status == 200
