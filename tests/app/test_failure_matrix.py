"""Does every way an upstream can fail, at every moment, end as the contract says, and count against its endpoint?

Each fault happens twice: with the breaker closed, which it trips, and as the half-open breaker's one probe, which it
trips again. Then the upstream is well, and the next probe closes the breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from middleware.exchange import Exchange
from middleware.upstream.breaker import State
from tests.app.test_policies import policy
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream, unanswered_port

pytestmark = pytest.mark.anyio

BODY = b'{"model":"qwen","stream":true}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

# One failure trips, and the ejection is over at once: the next request is the probe.
POLICY = """timeout: {tcp: {connectTimeout: 150ms}, http: {streamIdleTimeout: 250ms}}
  retry: {numRetries: 0}
  healthCheck: {panicThreshold: 0, passive: {consecutive5XxErrors: 1, baseEjectionTime: 0s}}"""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"text":"one"}]}\n\n'
ERROR_EVENT = b'event: error\ndata: {"error":{"message":"out of memory","code":500}}\n\n'
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# What is sent before the fault, by the moment of the fault.
MOMENTS = {
    "before-headers": b"",
    "in-headers": HEAD[:30],
    "before-first-byte": HEAD,
    "mid-stream": HEAD + chunk(EVENT),
    "mid-event": HEAD + chunk(EVENT + b'data: {"cho'),
}


async def reset(peer: Conversation) -> None:
    peer.reset()


async def silence(peer: Conversation) -> None:
    await peer.until_closed()


async def end(peer: Conversation) -> None:
    """Half an answer: the connection ends, and says so."""


async def drip(peer: Conversation) -> None:
    """A byte now and then, more often than the idle timeout, and never to the end of anything."""
    for _ in range(100):
        await peer.send(b"x")
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Case:
    fault: Callable[[Conversation], Awaitable[None]]
    moment: str
    reason: str
    flag: str

    @property
    def is_after_first_byte(self) -> bool:
        return self.moment.startswith("mid-")


CASES = [
    Case(reset, "before-headers", "upstream_unavailable", "UC"),
    Case(reset, "in-headers", "upstream_unavailable", "UC"),
    Case(reset, "before-first-byte", "upstream_unavailable", "UC"),
    Case(reset, "mid-stream", "upstream_reset", "UC"),
    Case(reset, "mid-event", "upstream_reset", "UC"),
    Case(silence, "before-headers", "upstream_timeout", "UT"),
    Case(silence, "in-headers", "upstream_timeout", "UT"),
    Case(silence, "before-first-byte", "upstream_timeout", "UT"),
    Case(silence, "mid-stream", "upstream_timeout", "SI"),
    Case(silence, "mid-event", "upstream_timeout", "SI"),
    Case(end, "before-headers", "upstream_unavailable", "UC"),
    Case(end, "in-headers", "upstream_unavailable", "UC"),
    Case(end, "before-first-byte", "upstream_unavailable", "UC"),
    Case(end, "mid-stream", "upstream_reset", "UC"),
    Case(end, "mid-event", "upstream_reset", "UC"),
    Case(drip, "in-headers", "upstream_timeout", "UT"),
]
STATUS = {"upstream_unavailable": 503, "upstream_timeout": 504, "upstream_protocol_error": 502}


class Faulty:
    """An upstream that fails as the case says, until it is well."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.is_well = False

    async def __call__(self, peer: Conversation) -> None:
        await peer.request()
        if self.is_well:
            await peer.send(HEAD + chunk(EVENT) + END)
            return
        if MOMENTS[self.case.moment]:
            await peer.send(MOMENTS[self.case.moment])
        if self.case.is_after_first_byte:
            await asyncio.sleep(0.02)  # what was sent has to arrive, a reset overtakes it
        await self.case.fault(peer)


def breaker_state(gateway: RunningGateway) -> State:
    (upstream,) = gateway.gateway.registry
    (breaker,) = upstream.breakers
    return breaker.state


def assert_nothing_is_left(gateway: RunningGateway) -> None:
    (upstream,) = gateway.gateway.registry
    traffic = gateway.gateway.rules.of("HTTPRoute/default/route-qwen/0")
    assert (upstream.in_flight, traffic.in_flight, traffic.waiting, traffic.retries_in_flight) == (0, 0, 0, 0)
    assert gateway.gateway.memory.used_bytes == 0


async def ask_and_read_all(gateway: RunningGateway) -> tuple[int, bytes, Exchange]:
    count = len(gateway.finished.all)
    async with RawClient(gateway.port) as client:
        await client.send(POST)
        status, headers = await client.head()
        body = b""
        try:
            if headers.get("transfer-encoding") == "chunked":
                while data := await client.chunk():
                    body += data
            else:
                body = await client.reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError:
            body += b"<cut>"
    return status, body, await gateway.finished.next(count + 1)


@asynccontextmanager
async def failing_gateway(case: Case, folder: Path) -> AsyncIterator[tuple[RunningGateway, Faulty]]:
    faulty = Faulty(case)
    async with RawUpstream(faulty) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port)) + policy(POLICY)
        async with running_gateway(manifests, folder=folder) as gateway:
            yield gateway, faulty


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.fault.__name__}-{c.moment}") for c in CASES])
async def test_a_fault_ends_as_it_should_with_the_breaker_closed_and_half_open(tmp_path: Path, case: Case) -> None:
    async with failing_gateway(case, tmp_path) as (gateway, faulty):
        for ejections in (1, 2):
            status, body, exchange = await ask_and_read_all(gateway)
            assert (exchange.reason, exchange.flag) == (case.reason, case.flag)
            assert len(exchange.attempts) == 1
            if case.is_after_first_byte:
                assert status == 200
                assert body.startswith(EVENT)
                assert body.endswith(b"\n\n<cut>")  # the error event, and no clean end
                assert b'\n\nevent: error\ndata: {"type":"error"' in body
                assert case.reason.encode() in body
            else:
                assert status == STATUS[case.reason]
                assert case.reason.encode() in body
            (upstream,) = gateway.gateway.registry
            assert (breaker_state(gateway), upstream.ejections) == (State.OPEN, ejections)
            assert_nothing_is_left(gateway)
        faulty.is_well = True
        status, body, exchange = await ask_and_read_all(gateway)
        assert (status, body, exchange.reason) == (200, EVENT, "")
        assert breaker_state(gateway) is State.CLOSED


async def test_a_drip_of_answer_bytes_is_no_fault(tmp_path: Path) -> None:
    async def dripping(peer: Conversation) -> None:
        await peer.request()
        await peer.send(HEAD)
        for number in range(8):
            await peer.send(chunk(b"data: %d\n\n" % number))
            await asyncio.sleep(0.05)  # together longer than the idle timeout
        await peer.send(END)

    async with RawUpstream(dripping) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port)) + policy(POLICY)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            status, body, exchange = await ask_and_read_all(gateway)
            assert (status, exchange.reason, breaker_state(gateway)) == (200, "", State.CLOSED)
            assert body == b"".join(b"data: %d\n\n" % number for number in range(8))


async def test_an_error_event_counts_as_a_failure_and_its_stream_ends_as_it_came(tmp_path: Path) -> None:
    async def failing(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.send(HEAD + chunk(EVENT) + chunk(ERROR_EVENT) + END)

    async with RawUpstream(failing) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port)) + policy(POLICY)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            status, body, exchange = await ask_and_read_all(gateway)
            assert (status, body, exchange.reason) == (200, EVENT + ERROR_EVENT, "upstream_error_event")
            assert breaker_state(gateway) is State.OPEN
            # As a probe: its first byte has closed the breaker, its end trips it again.
            await ask_and_read_all(gateway)
            (tripped,) = gateway.gateway.registry
            assert (breaker_state(gateway), tripped.ejections) == (State.OPEN, 2)
            assert_nothing_is_left(gateway)


async def test_a_refused_connection_is_a_failure_and_a_failed_probe(tmp_path: Path) -> None:
    async with RawUpstream(silence) as gone:
        pass
    async with running_gateway(route_to(("127.0.0.1", gone.port)) + policy(POLICY), folder=tmp_path) as gateway:
        for ejections in (1, 2):
            status, _, exchange = await ask_and_read_all(gateway)
            assert (status, exchange.reason, exchange.flag) == (503, "upstream_unavailable", "UF")
            (upstream,) = gateway.gateway.registry
            assert (breaker_state(gateway), upstream.ejections) == (State.OPEN, ejections)
            assert_nothing_is_left(gateway)


async def test_a_connection_that_nobody_answers_is_a_failure_after_the_connect_timeout(tmp_path: Path) -> None:
    with unanswered_port() as port:
        async with running_gateway(route_to(("127.0.0.1", port)) + policy(POLICY), folder=tmp_path) as gateway:
            for ejections in (1, 2):
                status, _, exchange = await ask_and_read_all(gateway)
                assert (status, exchange.reason, exchange.flag) == (503, "upstream_unavailable", "UF")
                (upstream,) = gateway.gateway.registry
                assert (breaker_state(gateway), upstream.ejections) == (State.OPEN, ejections)
                assert_nothing_is_left(gateway)


# -- what is counted is given back, at whatever moment a client leaves -----------------------------------------------

LIMITS = """circuitBreaker: {maxConnections: 8, maxPendingRequests: 64, maxParallelRetries: 4}
  retry: {numRetries: 3, perRetry: {backOff: {baseInterval: 1ms}}}
  healthCheck: {panicThreshold: 50, passive: {consecutive5XxErrors: 3, baseEjectionTime: 5ms}}"""


class Moody:
    """An upstream that answers, is busy, fails, breaks off or takes its time, by the roll of a die."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    async def __call__(self, peer: Conversation) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(self.dice.random() * 0.01)
            match self.dice.randrange(6):
                case 0:
                    await peer.answer(status="503 Service Unavailable")
                case 1:
                    await peer.answer(status="500 Internal Server Error")
                case 2:
                    peer.reset()
                    return
                case 3:
                    await peer.send(HEAD + chunk(EVENT))
                    await asyncio.sleep(self.dice.random() * 0.01)
                    await peer.send(chunk(EVENT) + END)
                case _:
                    await peer.answer()


async def test_counters_are_conserved_after_a_thousand_requests_cancelled_at_random_moments(tmp_path: Path) -> None:
    dice = random.Random(7)
    mirror = """filters:
- type: RequestMirror
  requestMirror: {backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: backend-qwen}}"""

    async def one(port: int) -> None:
        async with RawClient(port) as client:
            await client.send(POST)
            if dice.randrange(10) == 0:  # and some stay, however slow the machine is
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await client.answer()
                return
            await asyncio.sleep(dice.random() * 0.03)
            client.reset()

    async with RawUpstream(Moody(dice)) as first, RawUpstream(Moody(dice)) as second:
        manifests = route_to(("127.0.0.1", first.port), ("127.0.0.1", second.port), rule=mirror) + policy(LIMITS)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            for _ in range(25):
                await asyncio.gather(*(one(gateway.port) for _ in range(40)))
            await gateway.finished.next(1000)
            async with asyncio.timeout(5):
                while len(gateway.gateway.copies):
                    await asyncio.sleep(0.01)
            assert gateway.gateway.metrics.requests_in_flight == 0
            assert gateway.gateway.copies.held_bytes == 0
            assert gateway.gateway.memory.used_bytes == 0
            traffic = gateway.gateway.rules.of("HTTPRoute/default/route-qwen/0")
            assert (traffic.in_flight, traffic.waiting, traffic.retries_in_flight) == (0, 0, 0)
            assert [upstream.in_flight for upstream in gateway.gateway.registry] == [0, 0]
            # No breaker waits for a probe that will never report: each lets one through once its time is over.
            async with asyncio.timeout(5):
                while not all(b.admits() for upstream in gateway.gateway.registry for b in upstream.breakers):
                    await asyncio.sleep(0.01)
            reasons = {exchange.reason for exchange in gateway.finished.all}
            assert {"client_closed", ""} <= reasons  # some left in time, some too late
            assert (await ask(gateway.port, POST)).status in (200, 500, 503)
