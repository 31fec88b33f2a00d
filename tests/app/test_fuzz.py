"""Can any bytes make the server fail? Heads, chunked bodies, JSON and forms, mutated by Hypothesis; longer by `make
fuzz`.

Whatever comes in, three things hold: nothing is logged as an error, every answer is HTTP with a status of ours or the
application's, and the next connection is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from app.server import HttpServer
from middleware.errors import ErrorsMiddleware
from middleware.inference_request import read_body
from middleware.targets import path_for_matching
from middleware.telemetry import TelemetryMiddleware

LIMIT_SECONDS = 2.0


class FuzzedServer:
    """A server in a loop of its own that is driven step by step, and what was logged as an error meanwhile."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.errors: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.errors.append(record.getMessage())  # type: ignore[method-assign]
        self._handler = handler
        logging.getLogger().addHandler(handler)
        chain = TelemetryMiddleware(ErrorsMiddleware(self._application), observers=[])
        self.server = HttpServer(chain, head_limit_seconds=LIMIT_SECONDS, body_limit_seconds=LIMIT_SECONDS)
        self.port = self.runner.run(self.server.listen("127.0.0.1", 0))

    @staticmethod
    async def _application(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        path_for_matching(scope["raw_path"])
        read_body(body, dict(scope["headers"]).get(b"content-type"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})

    def close(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        self.runner.run(self.server.close())
        self.runner.close()

    def talk(self, pieces: list[bytes]) -> bytes:
        """What comes back for these bytes, sent in these pieces and followed by the end of the client's side."""
        return self.runner.run(self._talk(pieces))

    async def _talk(self, pieces: list[bytes]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        try:
            async with asyncio.timeout(LIMIT_SECONDS * 3):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                # The answer to a whole request comes before the half-close could be taken for leaving.
                try:
                    async with asyncio.timeout(0.01):
                        received += await reader.read(65536)
                except TimeoutError:
                    pass
                writer.write_eof()
                received += await reader.read(-1)
        except (ConnectionError, OSError):
            pass
        finally:
            writer.transport.abort()
        return received

    def check(self, received: bytes) -> None:
        """The three things."""
        assert self.errors == []
        while received:
            assert received.startswith(b"HTTP/1.1 "), received[:100]
            status = int(received[9:12])
            assert status in (100, 200, 400, 408, 413, 431), received[:200]
            head, separator, rest = received.partition(b"\r\n\r\n")
            assert separator
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            received = rest[length:]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[FuzzedServer]:
    server = FuzzedServer()
    try:
        yield server
        answer = server.talk([b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"])
        assert answer.startswith(b"HTTP/1.1 200")
    finally:
        server.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` in pieces, cut at these places."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


pieces_at = st.lists(st.integers(0, 10_000), max_size=5)
token = st.text("abcXYZ-_019", min_size=1, max_size=12).map(str.encode)
odd = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b"\xff", b"%", b"\\", b"//", b"?", b"#", b"\r\n\r\n", b"0"]
)
value = st.lists(token | odd, max_size=4).map(b"".join)
header = st.one_of(
    st.tuples(token, value).map(lambda pair: pair[0] + b": " + pair[1]),
    st.sampled_from(
        [
            b"Host: h",
            b"Host: other",
            b"Content-Length: 2",
            b"Content-Length: 02",
            b"Content-Length: 2, 2",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: chunked, chunked",
            b"Connection: close",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Upgrade: h2c",
            b"Expect: 100-continue",
            b"Content-Type: multipart/form-data; boundary=x",
            b"Content-Type: application/json",
            b" folded",
        ]
    ),
)
method = st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT", b"OPTIONS", b"PRI", b"get", b"G\xc3T"])
target = st.one_of(
    value.map(lambda path: b"/" + path),
    st.sampled_from([b"*", b"http://h/x", b"http://h", b"h:443", b"/%2e%2e/", b"//x", b"http://user@h:80/?q"]),
)
version = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b""])
body = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"{}",
            b'{"model":"qwen"}',
            b"2\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\nx: y\r\n\r\n",
            b"2;a=b\r\n{}\r\n0\r\n\r\n",
            b"zz\r\n",
            b"2\n{}\n0\n\n",
            b"--x\r\nContent-Disposition: form-data; name=model\r\n\r\nqwen\r\n--x--\r\n",
            b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n",
        ]
    ),
)

slow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


@slow
@given(
    method=method,
    target=target,
    version=version,
    headers=st.lists(header, max_size=6),
    end=st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\n", b""]),
    body=body,
    places=pieces_at,
)
def test_heads_and_what_follows_them(
    fuzzed: FuzzedServer,
    method: bytes,
    target: bytes,
    version: bytes,
    headers: list[bytes],
    end: bytes,
    body: bytes,
    places: list[int],
) -> None:
    data = method + b" " + target + b" " + version + b"\r\n" + b"\r\n".join([b"Host: h", *headers]) + end + body
    fuzzed.check(fuzzed.talk(cut(data, places)))


chunk = st.one_of(
    st.binary(min_size=1, max_size=20).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    st.binary(max_size=8),
    st.sampled_from(
        [b"0\r\n\r\n", b"0\r\n", b"\r\n", b"1\r\n", b"ffffffffffffffff\r\n", b"1\r\nab\r\n", b";\r\n", b"+1\r\na"]
    ),
)


@slow
@given(chunks=st.lists(chunk, max_size=8), places=pieces_at)
def test_chunked_bodies(fuzzed: FuzzedServer, chunks: list[bytes], places: list[int]) -> None:
    data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)
    fuzzed.check(fuzzed.talk(cut(data, places)))


@slow
@given(data=st.binary(max_size=300), places=pieces_at)
def test_any_bytes(fuzzed: FuzzedServer, data: bytes, places: list[int]) -> None:
    fuzzed.check(fuzzed.talk(cut(data, places)))
