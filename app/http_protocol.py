"""How are a connection's bytes read? uvicorn's httptools protocol, hardened.

What differs from uvicorn, each with a socket test in tests/app/test_server.py:
- the client's leaving (a half-close too) cancels the request's task at once and marks its Exchange;
- heads are limited in size, fields and time; exactly one Host; absolute-form targets are taken apart;
- no pipelining: bytes behind a request make its answer the connection's last, and are read but never parsed;
- an Upgrade that we do not honour is ignored without losing the body; trailers are dropped;
- an answer given before the request was read whole lingers, so that a client that writes before it reads gets it;
- an app that returns with the answer unfinished has it cut: flushed and closed without a clean end;
- the end of an answer is written at the end of the loop's turn, where the connection stays open;
- errors in the framing are answered in OpenAI's shape; no Date or Server header of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from typing import Any, Protocol

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.http_cycle import Cycle
from middleware.errors import GatewayError, InvalidBodyError, Reason, RequestTimeoutError, error_body
from middleware.exchange import Exchange
from middleware.upstream.dead_peers import tune_socket

HEAD_LIMIT_BYTES = 64 * 1024
HEAD_LIMIT_FIELDS = 256
HEAD_LIMIT_SECONDS = 10.0
BODY_SILENCE_SECONDS = 30.0
BODY_HIGH_WATER_BYTES = 256 * 1024
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0
LINGER_HEAD_SECONDS = 1.0
STALLED_CLIENT_SECONDS = 300.0
CUT_FLUSH_SECONDS = 5.0
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]+)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
_ASGI = {"version": "3.0", "spec_version": "2.3"}
# A name or an address, with a port or without; empty where a target has no authority (RFC 9110 section 7.2).
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


class HeadTooLargeError(GatewayError):
    """The head is over 64 KiB or 256 fields."""

    reason = Reason.HEADERS_TOO_LARGE
    closes = True


class HeadTimeoutError(GatewayError):
    """The head was not complete in 10 s."""

    reason = Reason.REQUEST_TIMEOUT
    closes = True


class MalformedRequestError(InvalidBodyError):
    """What came is not an HTTP/1.1 request."""

    closes = True


class _PipelinedError(Exception):
    """Bytes of another request behind one that is not answered yet."""


class RefusalReporter(Protocol):
    """Is told of a request that was refused before its head could be read; gives the request id for the answer."""

    def __call__(self, error: GatewayError, peer: str, /) -> str: ...


class DrainingState(ServerState):
    """uvicorn's connections and tasks, whether answers are to be their connection's last, and who hears of refusals."""

    def __init__(self, report_refusal: RefusalReporter) -> None:
        super().__init__()
        self.is_draining = False
        self.report_refusal = report_refusal
        self.changed = asyncio.Event()  # a connection has ended


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the differences that the module's docstring lists."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_limit_seconds: float = HEAD_LIMIT_SECONDS,
        body_limit_seconds: float = BODY_SILENCE_SECONDS,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, DrainingState)
        self._state = server_state
        self._head_limit_seconds = head_limit_seconds
        self._body_limit_seconds = body_limit_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._keep_alive_timer: asyncio.TimerHandle | None = None
        self._last_use = 0.0
        self._hosts = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._stall_size = 0
        self._unsent = b""
        self._is_in_head = False
        self._head_bytes = 0
        self._raw_head_bytes = 0
        self._is_deaf = False  # what comes is read, counted and dropped
        self._swallowed = 0
        self._is_behind_upgrade = False
        self._is_synthetic_head = False
        self.current: Cycle | None = None

    @property
    def is_draining(self) -> bool:
        """Whether answers are to be their connection's last."""
        return self._state.is_draining

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tune_socket(transport)
        self._last_use = self.loop.time()
        self._keep_alive_timer = self.loop.call_later(self.timeout_keep_alive, self._look_at_use)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._state.changed.set()
        self._unsent = b""
        for timer in (self._head_timer, self._body_timer, self._stall_timer, self._close_timer, self._keep_alive_timer):
            if timer is not None:
                timer.cancel()
        self._client_left()
        if self.flow is not None:
            self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # as uvicorn does: it refers back to this object

    def write_soon(self, data: bytes) -> None:
        """Write the end of an answer at the end of this turn of the loop, with those of the other connections: the
        clients, asleep since the write before, are woken once for many. Nothing else may be written before it."""
        self._unsent = data
        self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now what was to be written soon."""
        data, self._unsent = self._unsent, b""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> None:
        self.flush()
        # A half-close counts as leaving: model servers see it so too, and a client that waits for an answer does not
        # do it.
        if self.current is not None and not self.current.response_complete:
            self._client_left()
            self.transport.abort()

    def _client_left(self) -> None:
        cycle = self.current
        if cycle is None or cycle.response_complete or cycle.disconnected:
            return
        cycle.disconnected = True
        cycle.wake()
        exchange = cycle.scope.get("pointsman.exchange")
        if isinstance(exchange, Exchange):
            exchange.client_left = True
        if cycle.task is not None and not cycle.task.done():
            cycle.task.cancel()
            cycle.task.add_done_callback(self.tasks.discard)  # one that has not begun will never do it itself

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._swallow(len(data))
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_body_behind_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._parse_failed(error)
        else:
            if self._is_in_head:
                # What the parser holds of an unfinished field it has not told yet: all that came bounds it.
                self._raw_head_bytes += len(data)
                if self._raw_head_bytes > HEAD_LIMIT_BYTES:
                    self._refuse(HeadTooLargeError("the request head is larger than 64 KiB"))
                elif self._head_timer is None:
                    self._head_timer = self.loop.call_later(self._head_limit_seconds, self._head_timed_out)
            elif self.current is not None and self.current.more_body:
                self._last_use = self.loop.time()
                if self._body_timer is None:
                    self._body_timer = self.loop.call_later(self._body_limit_seconds, self._look_at_body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_size = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(self._stall_limit(), self._look_at_client)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    # -- httptools ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_synthetic_head:
            return
        if self.current is not None and not self.current.response_complete:
            raise _PipelinedError
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._hosts = 0
        self._is_in_head = True
        self._head_bytes = self._raw_head_bytes = 0

    def on_url(self, url: bytes) -> None:
        if not self._is_in_head:
            return
        self.url += url
        self._head_bytes += len(url)
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise HeadTooLargeError("the request target is larger than 64 KiB")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer, or the head that stands in for one with an Upgrade
        name = name.lower()
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_LIMIT_BYTES or len(self.headers) > HEAD_LIMIT_FIELDS:
            raise HeadTooLargeError("the request head is larger than 64 KiB or 256 fields")
        if name == b"host":
            self._hosts += 1
            if _HOST.fullmatch(value) is None:
                raise MalformedRequestError("Host is not a host name or address with a port or without")
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise MalformedRequestError("the only transfer-encoding that is understood is chunked")

    def on_headers_complete(self) -> None:
        if self._is_synthetic_head:
            self._is_synthetic_head = False
            return
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        parser = self.parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise MalformedRequestError("this HTTP version is not served here")
        path, query = self._target()
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise MalformedRequestError("a request must have exactly one Host")
        self._is_behind_upgrade = parser.should_upgrade()
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
            "pointsman.server": True,
            "pointsman.target": self.url if self.url.startswith(b"/") else b"",
        }
        is_1_1 = version == "1.1"
        keep_alive = is_1_1 and parser.should_keep_alive()
        cycle = Cycle(scope, self, self.flow, self.expect_100_continue and is_1_1, keep_alive)
        self.current = cycle
        cycle.task = task = self.loop.create_task(cycle.run(self.app))
        self.tasks.add(task)

    def _target(self) -> tuple[bytes, bytes]:
        if self.url.startswith(b"/"):
            path, _, query = self.url.partition(b"?")
            return path, query
        absolute = _ABSOLUTE_FORM.match(self.url)
        if absolute is None:
            return self.url, b""  # "*" and authority-form: no route has such a path
        # RFC 9112 section 3.2.2: the target's authority counts, whatever Host says.
        authority, path, query = absolute.groups()
        if _HOST.fullmatch(authority) is None:
            raise MalformedRequestError("the target's authority is not a host")
        self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"] + [(b"host", authority)]
        return path or b"/", query or b""

    def on_body(self, body: bytes) -> None:
        cycle = self.current
        if cycle is None or cycle.response_complete:
            return
        cycle.chunks.append(body)
        cycle.chunks_size += len(body)
        if cycle.chunks_size > BODY_HIGH_WATER_BYTES:
            self.flow.pause_reading()
        cycle.wake()

    def on_message_complete(self) -> None:
        cycle = self.current
        if cycle is None or self._is_behind_upgrade:
            return
        cycle.more_body = False
        cycle.wake()
        if cycle.response_complete and self._is_deaf:
            self.transport.close()

    # -- what is not plain reading ------------------------------------------------------------------------------------

    def _read_body_behind_upgrade(self, rest: bytes) -> None:
        # The parser takes what follows an Upgrade for another protocol. A second one that is told only of the framing
        # reads the body.
        self._is_behind_upgrade = False
        framing = b"".join(
            b"%b: %b\r\n" % pair for pair in self.headers if pair[0] in (b"content-length", b"transfer-encoding")
        )
        self.parser = httptools.HttpRequestParser(self)
        self._is_synthetic_head = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n" + rest)
        except httptools.HttpParserError as error:
            self._parse_failed(error)

    def _parse_failed(self, error: Exception) -> None:
        cause = error.__context__
        if isinstance(cause, _PipelinedError):
            assert self.current is not None
            self.current.keep_alive = False
            self._is_deaf = True
        elif isinstance(cause, GatewayError):
            self._refuse(cause)
        else:
            self._refuse(MalformedRequestError("this is not a valid HTTP/1.1 request"))

    def _refuse(self, error: GatewayError) -> None:
        """Answer a request that cannot be read on: through its cycle when its head was read, else directly."""
        self.flush()
        self._is_deaf = True
        is_in_head = self._is_in_head
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        cycle = self.current
        if cycle is not None and not cycle.response_complete and not is_in_head:
            error.closes = True
            cycle.keep_alive = False
            cycle.error = error
            cycle.wake()
            self._linger(LINGER_SECONDS, half_close=False)
            return
        request_id = self._state.report_refusal(error, self.client[0] if self.client else "unknown")
        body = error_body(error)
        self.transport.write(
            STATUS_LINE[error.status]
            + b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nconnection: close\r\n\r\n"
            % (len(body), request_id.encode("ascii"))
            + body
        )
        self._linger(LINGER_HEAD_SECONDS)

    def _head_timed_out(self) -> None:
        self._head_timer = None
        self._refuse(HeadTimeoutError("the request head was not complete in time"))

    def on_response_complete(self) -> None:
        """The answer was written whole: wait for the next request, or end the connection."""
        self.server_state.total_requests += 1
        cycle = self.current
        assert cycle is not None
        if self.transport.is_closing():
            return
        if cycle.keep_alive:
            self.flow.resume_reading()
            self._last_use = self.loop.time()
        elif cycle.more_body or self._is_deaf:
            self._linger(LINGER_SECONDS)
        else:
            self.transport.close()

    def cut(self, cycle: Cycle) -> None:
        """End the connection so that the client sees that the answer is not whole."""
        if self.transport.is_closing():
            return
        sock = self.transport.get_extra_info("socket")
        if not cycle.response_started or (cycle.is_close_delimited and sock is not None):
            with contextlib.suppress(OSError):
                # Where the connection's end is the answer's end, only a reset says that something is missing.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self.transport.close()
        self._close_timer = self.loop.call_later(CUT_FLUSH_SECONDS, self.transport.abort)

    def _linger(self, seconds: float, *, half_close: bool = True) -> None:
        # Closing with unread bytes resets the connection, and the reset can overtake the answer.
        self._is_deaf = True
        self.flow.resume_reading()
        if half_close and self.transport.can_write_eof():
            self.transport.write_eof()
        if self._close_timer is None:
            self._close_timer = self.loop.call_later(seconds, self.transport.abort)

    def _swallow(self, size: int) -> None:
        self._swallowed += size
        if self._swallowed > LINGER_BYTES:
            self.transport.abort()

    def _look_at_use(self) -> None:
        # One timer for the connection's whole life: a request costs none.
        is_busy = self._is_in_head or (self.current is not None and not self.current.response_complete)
        left = self.timeout_keep_alive - (0.0 if is_busy else self.loop.time() - self._last_use)
        if left > 0:
            self._keep_alive_timer = self.loop.call_later(left, self._look_at_use)
        else:
            self._keep_alive_timer = None
            self.transport.close()

    def _look_at_body(self) -> None:
        self._body_timer = None
        cycle = self.current
        if cycle is None or not cycle.more_body or cycle.response_complete or self._is_deaf:
            return
        # While we do not read, it is not the client that is silent.
        silence = 0.0 if self.flow.read_paused else self.loop.time() - self._last_use
        if silence < self._body_limit_seconds:
            self._body_timer = self.loop.call_later(self._body_limit_seconds - silence, self._look_at_body)
        else:
            self._refuse(RequestTimeoutError("no byte of the request body came for too long"))

    def _stall_limit(self) -> float:
        exchange = self.current.scope.get("pointsman.exchange") if self.current is not None else None
        if isinstance(exchange, Exchange) and exchange.rule is not None:
            return exchange.rule.policy.stream_idle_timeout_seconds
        return STALLED_CLIENT_SECONDS

    def _look_at_client(self) -> None:
        size = self.transport.get_write_buffer_size()
        if size < self._stall_size:
            self._stall_size = size
            self._stall_timer = self.loop.call_later(self._stall_limit(), self._look_at_client)
            return
        self._stall_timer = None
        self._client_left()
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection now if it is idle, else after its answer."""
        self.flush()
        if self.current is None or self.current.response_complete:
            if not self._is_in_head:
                self.transport.close()
        else:
            self.current.keep_alive = False
