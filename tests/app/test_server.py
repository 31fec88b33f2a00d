"""Does the server hold HTTP/1.1's edges? Raw sockets against app/server.py with a small ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.server import HttpServer
from middleware.errors import ErrorsMiddleware
from middleware.exchange import Exchange
from middleware.telemetry import TelemetryMiddleware
from tests.support.raw_client import RawClient, ask

pytestmark = pytest.mark.anyio

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@asynccontextmanager
async def serving(
    app: App, *, head_limit_seconds: float = 10.0, body_limit_seconds: float = 30.0
) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(app, head_limit_seconds=head_limit_seconds, body_limit_seconds=body_limit_seconds)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.close()


async def read_body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise AssertionError("the client left")
        body += message["body"]
        more = message["more_body"]
    return body


async def respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    all_headers = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it understood of the request."""
    body = await read_body(receive)
    told: dict[str, Any] = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    await respond(send, 200, json.dumps(told).encode())


async def test_a_request_and_its_answer_and_the_next_on_the_same_connection() -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        for _ in range(2):
            await client.send(b"POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
            answer = await client.answer()
            told = json.loads(answer.body)
            assert (told["method"], told["path"], told["query"], told["body"]) == ("POST", "/v1/x", "a=b", "{}")
            assert "date" not in answer.headers
            assert "server" not in answer.headers


async def test_a_chunked_body_is_read_and_its_trailers_do_not_become_headers() -> None:
    async with serving(echo) as (_, port):
        answer = await ask(
            port,
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nX-Gateway-Model-Name: spoofed\r\n\r\n",
        )
    told = json.loads(answer.body)
    assert told["body"] == "{}"
    assert ["x-gateway-model-name", "spoofed"] not in told["headers"]


async def test_expect_100_continue_is_granted_when_the_body_is_wanted() -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.head())[0] == 100
        await client.send(b"{}")
        assert json.loads((await client.answer()).body)["body"] == "{}"


async def test_an_answer_is_written_whole_when_its_connection_ends_in_the_same_turn() -> None:
    ends: list[Callable[[], object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"all of it")
        ends[0]()

    async with serving(app) as (server, port), RawClient(port) as client:
        ends.append(server.stop_listening)
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).body == b"all of it"
        assert await client.rest() == b""


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers before it reads."""
    await respond(send, 413, b"too large")


async def test_expect_100_continue_is_not_granted_to_a_request_that_is_refused() -> None:
    async with serving(refuse) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


async def test_a_client_that_writes_all_before_it_reads_gets_an_early_answer() -> None:
    size = 8_000_000
    async with serving(refuse) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        await client.send(b"x" * size)
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"too large")
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two-hosts"),
        pytest.param(b"GARBAGE\r\n\r\n", 400, id="garbage"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nx : y\r\n\r\n", 400, id="space-before-colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nx: y\r\n folded\r\n\r\n", 400, id="obsolete-fold"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 400, id="http-2-version-line"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            id="both-lengths",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, id="two-lengths"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, id="coded-body"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431, id="huge-field"),
        pytest.param(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431, id="huge-target"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 300 + b"\r\n", 431, id="too-many-fields"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"a" * 70_000, 431, id="endless-field"),
    ],
)
async def test_a_head_that_is_not_right_is_answered_in_openai_shape_and_closed(head: bytes, status: int) -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        await client.send(head)
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        told = json.loads(answer.body)
        assert told["type"] == "error"
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert await client.rest() == b""


async def test_a_bad_chunk_in_the_middle_of_a_body_is_a_400_of_that_request() -> None:
    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        from middleware.errors import ErrorsMiddleware

        async def reads(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive)

        await TelemetryMiddleware(ErrorsMiddleware(reads), observers=[])(scope, receive, send)

    async with serving(raises) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await client.send(b"zz\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert json.loads(answer.body)["error"]["code"] == "invalid_body"
        assert await client.rest() == b""


async def test_a_head_that_does_not_come_whole_in_time_is_a_408() -> None:
    async with serving(echo, head_limit_seconds=0.1) as (_, port), RawClient(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHos")
        answer = await client.answer()
        assert answer.status == 408
        assert json.loads(answer.body)["error"]["code"] == "request_timeout"
        assert await client.rest() == b""


async def test_absolute_form_names_the_host() -> None:
    async with serving(echo) as (_, port):
        answer = await ask(port, b"GET http://real.example:80/v1/models?x=1 HTTP/1.1\r\nHost: other\r\n\r\n")
    told = json.loads(answer.body)
    assert (told["path"], told["query"]) == ("/v1/models", "x=1")
    assert [pair for pair in told["headers"] if pair[0] == "host"] == [["host", "real.example:80"]]


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        pytest.param(b"Content-Length: 8\r\n", b'{"a":42}', id="content-length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b'4\r\n{"a"\r\n4\r\n:42}\r\n0\r\n\r\n', id="chunked"),
    ],
)
@pytest.mark.parametrize("is_split", [False, True], ids=["in-one-piece", "split"])
async def test_an_upgrade_is_ignored_without_losing_the_body(framing: bytes, body: bytes, is_split: bool) -> None:
    head = (
        b"POST /v1/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\n" + framing + b"\r\n"
    )
    async with serving(echo) as (_, port), RawClient(port) as client:
        if is_split:
            await client.send(head)
            for byte in body:
                await client.send(bytes([byte]))
        else:
            await client.send(head + body)
        told = json.loads((await client.answer()).body)
        assert (told["path"], told["body"]) == ("/v1/x", '{"a":42}')


async def test_of_two_requests_at_once_the_first_is_answered_and_the_second_never_parsed() -> None:
    seen: list[str] = []

    async def remembers(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await echo(scope, receive, send)

    async with serving(remembers) as (_, port), RawClient(port) as client:
        await client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET /second HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""
    assert seen == ["/first"]


async def test_bytes_behind_a_running_request_are_read_so_that_leaving_is_seen() -> None:
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(waits) as (_, port):
        async with RawClient(port) as client:
            await client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
            await started.wait()
            await client.send(b"GET /second HTTP/1.1\r\nHost: h\r\n\r\n" * 1000)
        async with asyncio.timeout(1):
            await cancelled.wait()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_cancels_its_request_within_100_ms_and_marks_the_exchange(how: str) -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    exchanges: list[Exchange] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        exchanges.append(scope["pointsman.exchange"])
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(TelemetryMiddleware(waits, observers=[])) as (server, port), RawClient(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await started.wait()
        match how:
            case "close":
                client.writer.close()
            case "reset":
                client.reset()
            case _:
                client.half_close()
        async with asyncio.timeout(0.1):
            await ended.wait()
        assert exchanges[0].client_left
        await server.wait_drained()


async def test_an_answer_left_unfinished_is_cut_without_a_clean_end() -> None:
    async def leaves_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with serving(leaves_off) as (_, port), RawClient(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.head())[0] == 200
        assert await client.chunk() == b"half"
        assert await client.rest() == b""  # and no last chunk


async def test_an_http_1_0_client_gets_no_chunks_and_a_reset_when_the_answer_is_cut() -> None:
    finish = asyncio.Event()

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await finish.wait()
        if scope["path"] == "/whole":
            await send({"type": "http.response.body", "body": b"+half", "more_body": False})

    async with serving(streams) as (_, port):
        async with RawClient(port) as client:
            await client.send(b"GET /whole HTTP/1.0\r\n\r\n")
            status, headers = await client.head()
            finish.set()
            assert (status, headers["connection"]) == (200, "close")
            assert "transfer-encoding" not in headers
            assert await client.rest() == b"half+half"
        finish.clear()
        async with RawClient(port) as client:
            await client.send(b"GET /cut HTTP/1.0\r\n\r\n")
            await client.head()
            assert await client.reader.read(4) == b"half"
            finish.set()
            with pytest.raises(ConnectionResetError):
                await client.rest()


async def test_the_answer_to_head_has_no_body() -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["content-length"].isdigit()) == (200, True)
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_a_header_with_control_bytes_never_leaves(caplog: pytest.LogCaptureFixture) -> None:
    async def smuggles(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"", (b"x", b"a\r\nset-cookie: b"))

    async with serving(smuggles) as (_, port), RawClient(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()
    assert "control bytes" in caplog.text


async def test_draining_takes_requests_with_connection_close_and_then_ends_what_is_idle() -> None:
    async with serving(echo) as (server, port), RawClient(port) as idle, RawClient(port) as busy:
        await idle.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert "connection" not in (await idle.answer()).headers
        server.start_draining()
        await busy.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await busy.answer()).headers["connection"] == "close"
        server.stop_listening()
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """The chain's two outer stages around an application that reads the body and answers with its size."""

    async def sizes(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"%d" % len(await read_body(receive)))

    await TelemetryMiddleware(ErrorsMiddleware(sizes), observers=[])(scope, receive, send)


async def test_a_body_that_stops_is_a_408_and_one_that_drips_is_not() -> None:
    async with serving(whole, body_limit_seconds=0.3) as (_, port):
        async with RawClient(port) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
            for byte in b"abcdef":  # in all longer than the limit, but never between two bytes
                await client.send(bytes([byte]))
                await asyncio.sleep(0.1)  # the pace is what is tested
            assert (await client.answer()).body == b"6"
        async with RawClient(port) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc")
            answer = await client.answer()
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (408, "request_timeout")
            assert answer.headers["connection"] == "close"
            assert await client.rest() == b""


@pytest.mark.parametrize(
    "framing",
    [
        pytest.param(b"1\r\n", id="one-byte-chunks"),
        pytest.param(b"000000000000001\r\n", id="leading-zeros"),
        pytest.param(b"1;" + b"e" * 200 + b"\r\n", id="extensions"),
    ],
)
async def test_absurd_chunking_costs_no_more_than_its_bytes(framing: bytes) -> None:
    chunk = framing + b"x\r\n"
    async with serving(whole) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            await client.send(chunk * 500)
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == b"10000"


@pytest.mark.parametrize("size", [b"-1", b"fffffffffffffffff", b"0x10", b"", b" 1", b"1 1"])
async def test_a_chunk_size_that_is_none_is_a_400(size: bytes) -> None:
    async with serving(whole) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nx\r\n")
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_body")


async def test_a_client_that_goes_on_sending_behind_an_early_answer_is_dropped_at_the_limit() -> None:
    async with serving(refuse) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await client.answer()).status == 413
        part, sent = b"100000\r\n" + b"x" * 0x100000 + b"\r\n", 0
        with pytest.raises(ConnectionError):
            while sent < 200:
                await client.send(part)
                sent += 1
        assert 60 <= sent <= 80  # 64 MiB and what the sockets hold


async def test_what_is_told_to_a_client_that_does_not_read_does_not_pile_up() -> None:
    written = 0
    stopped = asyncio.Event()

    async def floods(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(10_000):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                written += 65536
        finally:
            stopped.set()

    async with serving(floods) as (_, port):
        async with RawClient(port) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            previous = -1
            while written != previous or not written:  # until nothing moves any more
                previous = written
                await asyncio.sleep(0.1)
            assert written < 64 * 1024 * 1024
        async with asyncio.timeout(1):
            await stopped.wait()  # and its leaving is seen although it was not reading


async def test_line_breaks_between_requests_are_ignored() -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        for _ in range(2):
            await client.send(b"\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_every_method_is_passed_on(method: str) -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        await client.send(f"{method} /x HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        status, headers = await client.head()
        assert status == 200
        if method != "HEAD":
            assert json.loads(await client.reader.readexactly(int(headers["content-length"])))["method"] == method


async def test_a_response_to_expect_with_another_value_is_no_100() -> None:
    async with serving(echo) as (_, port), RawClient(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: something\r\n\r\n{}")
        assert (await client.answer()).status == 200
