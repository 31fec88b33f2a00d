"""Does a small question get its whole answer in one call, whatever the upstream does? Over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from middleware.upstream.connection import READ_HIGH_WATER_BYTES, ConnectionBrokenError, UpstreamConnection
from middleware.upstream.transport import Answer, UpstreamTransport
from tests.support.raw_upstream import Conversation, RawUpstream, Script

pytestmark = pytest.mark.anyio

HEAD = b"GET /metrics HTTP/1.1\r\nhost: pod\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


class Asker:
    """A transport, and the answers that came."""

    def __init__(self, transport: UpstreamTransport) -> None:
        self.transport = transport
        self.answers: list[Answer | httpx.TransportError] = []
        self._came = asyncio.Event()

    def ask(
        self, *, limit_seconds: float = 5.0, limit_bytes: int = 1_000_000, is_last: bool = False
    ) -> UpstreamConnection | None:
        self._came.clear()
        return self.transport.ask(
            HEAD, limit_seconds=limit_seconds, limit_bytes=limit_bytes, is_last=is_last, on_answer=self._take
        )

    async def until_answered(self) -> None:
        """Until what was asked last has come or failed."""
        await asyncio.wait_for(self._came.wait(), 10)

    def _take(self, answer: Answer | httpx.TransportError) -> None:
        self.answers.append(answer)
        self._came.set()

    async def answer(self, *, limit_seconds: float = 5.0, limit_bytes: int = 1_000_000) -> Answer:
        """Connect if need be, ask, and wait. Raises what comes instead of an answer."""
        if self.ask(limit_seconds=limit_seconds, limit_bytes=limit_bytes) is None:
            await self.transport.connect(timeout_seconds=5.0)
            assert self.ask(limit_seconds=limit_seconds, limit_bytes=limit_bytes) is not None
        await self.until_answered()
        answer = self.answers[-1]
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def asking(script: Script) -> AsyncIterator[Asker]:
    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        try:
            yield Asker(transport)
        finally:
            transport.close()


def pieces(*parts: bytes, then_close: bool = False) -> Script:
    """Answers one request in so many pieces, each seen alone by the other side."""

    async def script(peer: Conversation) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0.01)
        if not then_close:
            await peer.until_closed()

    return script


@pytest.mark.parametrize(
    ("parts", "then_close", "expected"),
    [
        pytest.param([OK + b"content-length: 2\r\n\r\nab"], False, b"ab", id="at-once"),
        pytest.param([OK, b"content-length: 4\r\n\r\n", b"ab", b"c", b"d"], False, b"abcd", id="in-pieces"),
        pytest.param(
            [OK + b"transfer-encoding: chunked\r\n\r\n", b"2\r\nab\r\n", b"1\r\nc\r\n", b"0\r\n\r\n"],
            False,
            b"abc",
            id="chunked",
        ),
        pytest.param([OK + b"\r\nun", b"til the end"], True, b"until the end", id="ended-by-close"),
        pytest.param([OK + b"content-length: 0\r\n\r\n"], False, b"", id="empty"),
        pytest.param(
            [OK + b"content-length: %d\r\n\r\n" % (3 * READ_HIGH_WATER_BYTES), *[b"x" * READ_HIGH_WATER_BYTES] * 3],
            False,
            b"x" * 3 * READ_HIGH_WATER_BYTES,
            id="more-than-is-held-unread-elsewhere",
        ),
    ],
)
async def test_the_whole_answer_comes_once(parts: list[bytes], then_close: bool, expected: bytes) -> None:
    async with asking(pieces(*parts, then_close=then_close)) as one:
        answer = await one.answer()
        assert (answer.status, answer.body, answer.is_whole) == (200, expected, True)
        assert one.transport.idle_connections == (not then_close)
        assert len(one.answers) == 1


async def test_a_connection_serves_one_question_after_the_other() -> None:
    async def script(peer: Conversation) -> None:
        for number in range(3):
            await peer.request()
            await peer.answer(b"%d" % number, headers=f"X-Number: {number}\r\n")
        await peer.until_closed()

    async with asking(script) as one:
        for number in (b"0", b"1", b"2"):
            answer = await one.answer()
            assert (answer.body, dict(answer.headers)[b"x-number"]) == (number, number)


async def test_behind_the_last_answer_the_connection_is_closed() -> None:
    ended = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer(b"once")
        await peer.until_closed()
        ended.set()

    async with asking(script) as one:
        await one.transport.connect(timeout_seconds=5.0)
        assert one.ask(is_last=True) is not None
        await asyncio.wait_for(ended.wait(), 5)
        assert [answer.body for answer in one.answers if isinstance(answer, Answer)] == [b"once"]
        assert one.transport.idle_connections == 0


@pytest.mark.parametrize("then_close", [False, True], ids=["whole", "half"])
async def test_an_answer_that_was_told_is_held_no_longer(then_close: bool) -> None:
    length = 20 if then_close else 10
    async with asking(pieces(OK + b"content-length: %d\r\n\r\n0123456789" % length, then_close=then_close)) as one:
        await one.transport.connect(timeout_seconds=5.0)
        connection = one.ask(is_last=True)
        assert connection is not None
        await one.until_answered()
        assert connection._parts == []


async def test_an_answer_that_is_too_large_ends_there() -> None:
    ended = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 100000000\r\n\r\n")
        try:
            while True:
                await peer.send(b"x" * 50_000)
        except ConnectionError:
            ended.set()

    async with asking(script) as one:
        answer = await one.answer(limit_bytes=400_000)
        assert not answer.is_whole
        assert 400_000 < len(answer.body) < 400_000 + 2 * READ_HIGH_WATER_BYTES
        assert one.transport.idle_connections == 0
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", ConnectionBrokenError, id="nothing"),
        pytest.param(OK + b"content-length: 9\r\n\r\nab", ConnectionBrokenError, id="half"),
        pytest.param(b"no HTTP at all\r\n\r\n", httpx.RemoteProtocolError, id="garbage"),
        pytest.param(OK + b"x: " + b"y" * 70_000, httpx.RemoteProtocolError, id="a-head-without-end"),
    ],
)
async def test_an_answer_that_fails_is_told_once(data: bytes, error: type[Exception]) -> None:
    async with asking(pieces(data, then_close=True)) as one:
        with pytest.raises(error):
            await one.answer()
        assert one.transport.idle_connections == 0
        assert len(one.answers) == 1


@pytest.mark.parametrize("data", [b"", OK + b"content-length: 9\r\n\r\nab"], ids=["no-head", "half-a-body"])
async def test_one_that_hangs_is_given_up(data: bytes) -> None:
    async with asking(pieces(data)) as one:
        with pytest.raises(httpx.ReadTimeout):
            await one.answer(limit_seconds=0.1)
        assert one.transport.idle_connections == 0


async def test_of_a_question_that_is_aborted_nobody_hears() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 9\r\n\r\nab")
        asked.set()
        await peer.until_closed()
        ended.set()

    async with asking(script) as one:
        await one.transport.connect(timeout_seconds=5)
        connection = one.ask()
        assert connection is not None
        await asyncio.wait_for(asked.wait(), 5)
        connection.abort()
        await asyncio.wait_for(ended.wait(), 5)
        assert one.answers == []


async def test_without_a_connection_nothing_is_sent() -> None:
    async with asking(pieces()) as one:
        assert one.ask() is None
        one.transport.close()
        await one.transport.connect(timeout_seconds=5)
        assert one.ask() is None  # what is closed keeps none
        assert one.answers == []


async def test_nobody_there_is_an_error_of_connecting() -> None:
    async with RawUpstream(pieces()) as upstream:
        pass
    transport = UpstreamTransport(address=upstream.host, port=upstream.port)
    with pytest.raises(httpx.ConnectError):
        await transport.connect(timeout_seconds=5)
