"""Does the transport speak HTTP/1.1 with upstreams that do everything a socket allows? Over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import httpx
import pytest

from middleware.upstream.connection import (
    HEAD_LIMIT_BYTES,
    READ_HIGH_WATER_BYTES,
    ConnectionBrokenError,
)
from middleware.upstream.transport import Timeouts, UpstreamStream, UpstreamTransport
from tests.support.raw_upstream import Conversation, RawUpstream, unanswered_port

pytestmark = pytest.mark.anyio

URL = httpx.URL("http://upstream.test/")


def make_request(
    method: str = "POST",
    *,
    target: bytes = b"/v1/chat/completions",
    body: bytes = b'{"model":"qwen"}',
    timeouts: Timeouts | None = None,
    fresh: bool = False,
) -> httpx.Request:
    headers = [(b"host", b"upstream.test"), (b"content-length", b"%d" % len(body))]
    extensions = {"target": target, "body": body, "fresh_connection": fresh, "timeout": timeouts or Timeouts()}
    return httpx.Request(method, URL, headers=headers, stream=httpx.ByteStream(b""), extensions=extensions)


async def read_all(response: httpx.Response) -> bytes:
    assert isinstance(response.stream, UpstreamStream)
    try:
        return b"".join([chunk async for chunk in response.stream])
    finally:
        response.stream.release()


async def exchange(transport: UpstreamTransport, request: httpx.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(request)
    return response.status_code, await read_all(response)


def answers(data: bytes, *, then_close: bool = False) -> Callable[[Conversation], Awaitable[None]]:
    """A script that reads one request, sends ``data``, and closes or waits for the other side to."""

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(data)
        if not then_close:
            await peer.until_closed()

    return script


async def one_exchange(
    data: bytes, *, then_close: bool = False, request: httpx.Request | None = None
) -> tuple[int, bytes, int]:
    """Status, body and the connections kept, for an upstream that answers with these bytes."""
    async with RawUpstream(answers(data, then_close=then_close)) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        try:
            status, body = await exchange(transport, request or make_request())
            return status, body, transport.idle_connections
        finally:
            transport.close()


@pytest.mark.parametrize(
    ("data", "then_close", "expected"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", False, (200, b"{}", 1), id="content-length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n",
            False,
            (200, b"abcde", 1),
            id="chunked-with-extension",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-trailer: 1\r\n\r\n",
            False,
            (200, b"ab", 1),
            id="trailers-are-dropped",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", True, (200, b"until the end", 0), id="ended-by-close"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", True, (200, b"ok", 0), id="http-1.0"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", False, (204, b"", 1), id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", False, (304, b"", 1), id="304"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
            False,
            (200, b"a", 1),
            id="interim-answers-are-skipped",
        ),
        pytest.param(b"HTTP/1.1 799 Odd\r\ncontent-length: 1\r\n\r\na", False, (799, b"a", 1), id="status-past-599"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", False, (200, b"", 1), id="empty"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\na", False, (200, b"a", 0), id="close"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\n",
            False,
            (200, b"a", 0),
            id="bytes-behind-the-answer-taint-the-connection",
        ),
    ],
)
async def test_every_framing_of_an_answer_is_understood(
    data: bytes, then_close: bool, expected: tuple[int, bytes, int]
) -> None:
    assert await one_exchange(data, then_close=then_close) == expected


async def test_the_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
    assert (await one_exchange(data, request=make_request("HEAD", body=b"")))[:2] == (200, b"")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"220 smtp.example ESMTP\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", id="two-lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="bad-chunk-size"),
        pytest.param(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", id="bad-field"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="coded-body"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="101"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * HEAD_LIMIT_BYTES + b"\r\n\r\n", id="huge-field"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n", id="too-many-fields"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 3 * HEAD_LIMIT_BYTES, id="endless-head"),
    ],
)
async def test_what_is_not_http_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await one_exchange(data)
    assert "aaaa" not in str(caught.value)


async def test_the_parts_of_a_stream_come_as_they_are_sent() -> None:
    released = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await peer.send(b"3\r\none\r\n")
        await released.wait()
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        response = await transport.handle_async_request(make_request())
        assert isinstance(response.stream, UpstreamStream)
        assert await response.stream.read() == b"one"
        released.set()
        assert await response.stream.read() == b"two"
        assert await response.stream.read() == b""
        assert response.stream.is_drained
        response.stream.release()
        assert transport.idle_connections == 1
        transport.close()


async def test_idle_connections_are_reused_last_in_first_out() -> None:
    async def script(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer(b"%d" % peer.number)

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        first = await transport.handle_async_request(make_request())
        second = await transport.handle_async_request(make_request())
        assert await read_all(first) == b"1"
        assert await read_all(second) == b"2"
        assert await exchange(transport, make_request()) == (200, b"2")
        assert upstream.connections == 2
        assert await exchange(transport, make_request(fresh=True)) == (200, b"3")
        transport.close()


async def test_an_idle_connection_is_closed_when_it_expires() -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port, idle_expiry_seconds=0.1)
        await exchange(transport, make_request())
        await upstream.wait_ended()
        assert transport.idle_connections == 0
        transport.close()


async def test_an_idle_connection_that_speaks_unasked_is_dropped() -> None:
    speak = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()
        await speak.wait()
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        await exchange(transport, make_request())
        speak.set()
        await upstream.wait_ended()
        assert transport.idle_connections == 0
        transport.close()


async def test_a_reused_connection_that_ends_at_once_says_so() -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()
        await peer.request()  # and no answer: the keep-alive race

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        await exchange(transport, make_request())
        with pytest.raises(ConnectionBrokenError) as caught:
            await exchange(transport, make_request())
        assert caught.value.is_reused
        assert not caught.value.has_answer_bytes
        assert 0 <= caught.value.seconds_since_write < 5
        transport.close()


@pytest.mark.parametrize("with_reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize(
    ("before", "has_bytes"),
    [
        pytest.param(b"", False, id="before-the-head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nconte", True, id="in-the-head"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", True, id="in-a-body-with-length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", True, id="in-a-chunked-body"
        ),
    ],
)
async def test_an_answer_that_breaks_off_is_never_a_whole_one(before: bytes, has_bytes: bool, with_reset: bool) -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(before)
        if with_reset:
            peer.reset()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        with pytest.raises(ConnectionBrokenError) as caught:
            await exchange(transport, make_request())
        assert not caught.value.is_reused
        if not with_reset:  # a reset may overtake what was sent before it
            assert caught.value.has_answer_bytes == has_bytes
        transport.close()


async def test_a_body_that_ends_with_a_reset_is_not_whole() -> None:
    sent = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await sent.wait()
        peer.reset()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        response = await transport.handle_async_request(make_request())
        assert isinstance(response.stream, UpstreamStream)
        assert await response.stream.read() == b"half"
        sent.set()
        with pytest.raises(ConnectionBrokenError):
            await response.stream.read()
        transport.close()


async def test_nobody_listening_is_a_connect_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        transport = UpstreamTransport(address="127.0.0.1", port=unused.getsockname()[1])
        with pytest.raises(httpx.ConnectError):
            await exchange(transport, make_request())


async def test_a_peer_that_does_not_accept_is_a_connect_timeout() -> None:
    with unanswered_port() as port:
        transport = UpstreamTransport(address="127.0.0.1", port=port)
        with pytest.raises(httpx.ConnectTimeout):
            await exchange(transport, make_request(timeouts=Timeouts(connect=0.1)))


async def test_a_name_is_resolved_at_connect_and_one_that_does_not_resolve_is_a_connect_error() -> None:
    async with RawUpstream(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")) as upstream:
        # localhost is ::1 and 127.0.0.1 on many machines; only one of them listens, and all are tried.
        transport = UpstreamTransport(address="localhost", port=upstream.port)
        assert await exchange(transport, make_request()) == (200, b"{}")
        transport.close()
    with pytest.raises(httpx.ConnectError):
        await exchange(UpstreamTransport(address="nowhere.invalid", port=80), make_request())


@pytest.mark.parametrize(
    "timeouts",
    [
        pytest.param(Timeouts(first_byte=0.1), id="first-byte"),
        pytest.param(Timeouts(idle=0.1, first_byte=0.1), id="idle"),
    ],
)
@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"], ids=["no-head", "head-and-no-body"]
)
async def test_silence_before_the_first_byte_is_a_read_timeout(timeouts: Timeouts, sent: bytes) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await one_exchange(sent, request=make_request(timeouts=timeouts))


async def test_silence_between_bytes_is_a_read_timeout_and_slow_bytes_are_not() -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(4):
            await peer.send(b"1\r\na\r\n")
            await asyncio.sleep(0.15)  # the pace is what is tested
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        # In all longer than the limit, but never between two bytes; then silence.
        response = await transport.handle_async_request(make_request(timeouts=Timeouts(idle=0.4)))
        assert isinstance(response.stream, UpstreamStream)
        received = b""
        with pytest.raises(httpx.ReadTimeout):
            while True:
                received += await response.stream.read()
        assert received == b"aaaa"
        await upstream.wait_ended()
        transport.close()


async def test_the_limit_of_the_whole_ends_even_an_answer_that_keeps_coming() -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"1\r\na\r\n")
            await asyncio.sleep(0.02)  # the pace is what is tested

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        with pytest.raises(httpx.ReadTimeout):
            await exchange(transport, make_request(timeouts=Timeouts(remaining=0.2)))
        transport.close()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="before-the-head"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n", id="in-the-body"),
    ],
)
async def test_cancelling_closes_the_upstream_connection_within_100_ms(sent: bytes) -> None:
    waiting = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(sent)
        waiting.set()
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        task = asyncio.create_task(exchange(transport, make_request()))
        await waiting.wait()
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(0.1):
            await upstream.wait_ended()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.idle_connections == 0


async def test_cancelling_while_connecting_leaves_nothing_behind() -> None:
    with unanswered_port() as port:
        transport = UpstreamTransport(address="127.0.0.1", port=port)
        tasks = len(asyncio.all_tasks())
        task = asyncio.create_task(exchange(transport, make_request(timeouts=Timeouts(connect=30))))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == tasks
        assert transport.idle_connections == 0


async def test_a_reader_that_is_slow_holds_the_upstream_back() -> None:
    total = 64 * READ_HIGH_WATER_BYTES
    sent = 0

    async def script(peer: Conversation) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        part = b"x" * 65536
        while sent < total:
            await peer.send(part)
            sent += len(part)
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        response = await transport.handle_async_request(make_request())
        assert isinstance(response.stream, UpstreamStream)
        first = len(await response.stream.read())
        received = first
        previous = -1
        while sent != previous:  # until nothing moves any more
            previous = sent
            await asyncio.sleep(0.1)
        assert sent < total / 2
        largest = first
        while chunk := await response.stream.read():
            received += len(chunk)
            largest = max(largest, len(chunk))
        assert largest <= 2 * READ_HIGH_WATER_BYTES  # the bound, and the one read of the socket that crosses it
        assert received == total
        response.stream.release()
        transport.close()


async def test_an_answer_before_the_request_was_read_is_given_and_its_connection_not_reused() -> None:
    async def script(peer: Conversation) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer(b"no", status="413 Content Too Large")
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        response = await transport.handle_async_request(make_request(body=b"x" * 32_000_000))
        assert (response.status_code, await read_all(response)) == (413, b"no")
        assert transport.idle_connections == 0
        transport.close()


async def test_a_request_that_is_given_up_in_the_turn_it_was_made_in_is_never_sent() -> None:
    heard: list[bytes] = []
    ended = asyncio.Event()

    async def script(peer: Conversation) -> None:
        try:
            heard.append(await peer.reader.read())
        except ConnectionError:
            heard.append(b"")
        ended.set()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        await transport.connect(timeout_seconds=5)
        asked = transport.ask(b"GET / HTTP/1.1\r\n\r\n", limit_seconds=5, limit_bytes=100, on_answer=print)
        assert asked is not None
        asked.abort()
        await asyncio.wait_for(ended.wait(), 5)
        assert heard == [b""]
        transport.close()


async def test_what_comes_before_the_request_was_sent_is_not_its_answer() -> None:
    async with RawUpstream(Conversation.until_closed) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        await transport.connect(timeout_seconds=5)
        answers: list[object] = []
        asked = transport.ask(b"GET / HTTP/1.1\r\n\r\n", limit_seconds=5, limit_bytes=100, on_answer=answers.append)
        assert asked is not None
        asked.data_received(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        (error,) = answers
        assert isinstance(error, ConnectionBrokenError)
        assert not error.has_answer_bytes
        assert transport.idle_connections == 0
        transport.close()


async def test_it_is_an_httpx_transport_that_a_stock_client_can_use() -> None:
    received: list[bytes] = []

    async def script(peer: Conversation) -> None:
        received.append(await peer.request())
        await peer.answer(b'{"ok":true}', headers="content-type: application/json\r\n")
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{upstream.host}:{upstream.port}") as client:
            answer = await client.post("/v1/models?x=1", json={"model": "qwen"})
        assert answer.json() == {"ok": True}
    assert received[0].startswith(b"POST /v1/models?x=1 HTTP/1.1\r\n")
    assert received[0].endswith(b'{"model":"qwen"}')
