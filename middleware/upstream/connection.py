"""What happens on one connection to an upstream? One HTTP/1.1 exchange at a time over asyncio.Protocol and httptools.

The connection knows bytes, framing and time limits, and nothing of pools or retries. It is told when a request starts
(`start`), gives the head (`head`) and then the body in whatever pieces the socket delivered (`read`). Every way in
which an answer can fail is one of httpx's exceptions, so callers need to know no other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

import httptools
import httpx

from middleware.upstream.dead_peers import tune_socket

HEAD_LIMIT_BYTES = 64 * 1024
HEAD_LIMIT_FIELDS = 256
# Above this many unread bytes the socket is not read any more, until the reader has caught up.
READ_HIGH_WATER_BYTES = 256 * 1024
# Up to here copying a body behind its head costs less than giving the socket two buffers.
LARGE_BODY_BYTES = 16 * 1024


class ConnectionBrokenError(httpx.ReadError):
    """The connection ended before the answer was complete.

    ``is_reused`` says whether it had served an exchange before, ``seconds_since_write`` how long ago the request's last
    byte was handed to the socket, ``has_answer_bytes`` whether anything of the answer had come. The transport never
    retries; these let the caller decide whether this was the keep-alive race.
    """

    def __init__(self, message: str, *, is_reused: bool, seconds_since_write: float, has_answer_bytes: bool) -> None:
        super().__init__(message)
        self.is_reused = is_reused
        self.seconds_since_write = seconds_since_write
        self.has_answer_bytes = has_answer_bytes


class Activity:
    """When did an endpoint last send anything? Shared by its connections; the loop's time in seconds."""

    __slots__ = ("last_byte_at",)

    def __init__(self) -> None:
        self.last_byte_at = 0.0


class _BehindAnswerError(Exception):
    """Bytes behind the answer: the parser must not take them for more of it."""


class UpstreamConnection(asyncio.Protocol):
    """One connection. States: idle, waiting for the head, reading the body, done; closed from any of them.

    Single-threaded and await-free between a check and its use, so there is no lock.
    """

    # With more attributes than 30 an object without slots looks each of them up in a dict of its own.
    __slots__ = (
        "_activity",
        "_can_keep_alive",
        "_deadline",
        "_error",
        "_first_byte_limit",
        "_has_answer_bytes",
        "_has_first_byte",
        "_has_framing",
        "_head_bytes",
        "_idle_limit",
        "_is_busy",
        "_is_framed",
        "_is_head_request",
        "_is_read_paused",
        "_last_byte_at",
        "_loop",
        "_on_closed_idle",
        "_on_end",
        "_on_lost",
        "_parser",
        "_parts",
        "_silence_limit",
        "_timer",
        "_timer_due",
        "_tls",
        "_transport",
        "_unparsed_bytes",
        "_unread_bytes",
        "_unsent",
        "_waiter",
        "_whole_limit_bytes",
        "_written_at",
        "exchanges",
        "has_head",
        "headers",
        "idle_since",
        "is_closed",
        "is_complete",
        "on_body",
        "status",
    )

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        on_closed_idle: Callable[[UpstreamConnection], None],
        activity: Activity,
        on_lost: Callable[[UpstreamConnection], None] = lambda connection: None,
    ) -> None:
        self._loop = loop
        self._activity = activity
        self._on_closed_idle = on_closed_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # the parser calls list.append itself: no Python frame per chunk
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._whole_limit_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._error: Exception | None = None
        self._is_busy = False
        self._is_read_paused = False
        self.is_closed = False
        self.exchanges = 0
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._parts.clear()
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.has_head = False
        self.is_complete = False
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._unsent = b""
        self._unread_bytes = 0
        self._is_head_request = False
        self._has_framing = False
        self._is_framed = False  # the head says where the body ends
        self._can_keep_alive = False
        self._written_at = 0.0
        self._has_answer_bytes = False
        self._has_first_byte = False
        self._first_byte_limit = 0.0
        self._idle_limit = 0.0
        self._deadline: float | None = None
        self._silence_limit: float | None = None  # once the pod is known to be deleted
        self._last_byte_at = 0.0

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._tls = transport.get_extra_info("ssl_object")
        tune_socket(transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_busy:
            self.abort()  # nobody asked: what comes next could be taken for the answer to the next request
            return
        if self._unsent:  # nothing was asked yet: taken for an answer it would be every later request's, one behind
            self._fail(
                ConnectionBrokenError(
                    "the upstream spoke before it was asked",
                    is_reused=self.exchanges > 1,
                    seconds_since_write=0.0,
                    has_answer_bytes=False,
                )
            )
            return
        self._has_answer_bytes = True
        self._activity.last_byte_at = self._last_byte_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.is_complete:  # it is what comes behind the answer that is no HTTP
                self._can_keep_alive = False
                self._wake()
                return
            self._fail(httpx.RemoteProtocolError(f"the upstream's answer is malformed: {_why(error)}"))
            return
        if not self.has_head:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > HEAD_LIMIT_BYTES:
                self._fail(httpx.RemoteProtocolError("the head of the upstream's answer is too large"))
            return
        if self._parts:
            self._has_first_byte = True
            # Several reads can come before the reader runs: the bound holds for what is there, waited for or not.
            self._unread_bytes += len(data)
            if self._unread_bytes > READ_HIGH_WATER_BYTES and not self._is_read_paused and not self.is_complete:
                self._pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False  # the transport closes itself, connection_lost says the rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._on_lost(self)
        if not self._is_busy:
            self._stop_timer()
            self._on_closed_idle(self)
            return
        if self.is_complete:
            return
        if exc is None and self.has_head and not self._is_framed and self._is_end_certain():
            self.is_complete = True  # a body that ends with the connection
            self._can_keep_alive = False
            self._wake()
            return
        what = "reset" if exc is not None else "closed"
        where = "in the middle of the answer" if self.has_head else "before the answer"
        self._fail(
            ConnectionBrokenError(
                f"the upstream {what} the connection {where}",
                is_reused=self.exchanges > 1,
                seconds_since_write=self._loop.time() - self._written_at,
                has_answer_bytes=self._has_answer_bytes,
            )
        )

    # -- httptools ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise _BehindAnswerError

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_head:
            return  # a trailer
        name = name.lower()
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_LIMIT_BYTES or len(self.headers) > HEAD_LIMIT_FIELDS:
            raise httpx.RemoteProtocolError("the head of the upstream's answer is too large")
        if name == b"content-length":
            self._has_framing = True
        elif name == b"transfer-encoding":
            self._has_framing = True
            if value.lower() != b"chunked":
                raise httpx.RemoteProtocolError("the upstream's transfer-encoding is not understood")

    def on_headers_complete(self) -> None:
        if self.is_complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                raise httpx.RemoteProtocolError("the upstream switched protocols unasked")
            self.headers = []
            self._has_framing = False
            return
        if status < 100:
            raise httpx.RemoteProtocolError("the upstream's answer has no valid status")
        self.status = status
        self.has_head = True
        self._can_keep_alive = self._parser.should_keep_alive()
        if self._is_head_request:
            # The parser cannot be told that no body follows; one that has seen a HEAD is not used again.
            self._can_keep_alive = False
            self.is_complete = True
            self._is_framed = True
            return
        self._is_framed = self._has_framing or status in (204, 304)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete = True

    # -- for the transport --------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        head: bytes,
        body: bytes,
        is_head_request: bool,
        first_byte_limit_seconds: float,
        idle_limit_seconds: float,
        limit_seconds: float | None,
    ) -> None:
        """Write a request. The connection must be idle.

        From here on ``wait_head()`` and ``read()`` raise httpx.ReadTimeout when no byte of the answer's body comes for
        ``first_byte_limit_seconds``, or later for ``idle_limit_seconds`` between bytes, or when the answer is not whole
        after ``limit_seconds``.
        """
        assert self._transport is not None
        assert not self._is_busy
        self._reset()
        self._is_busy = True
        self.exchanges += 1
        self._is_head_request = is_head_request
        if len(body) > LARGE_BODY_BYTES:
            self._transport.writelines([head, body])
        else:
            # What all requests of one turn of the loop write goes out together at its end: each write on its own would
            # wake the model server, which has slept since the one before; under load that is a sixth of all CPU.
            self._unsent = head + body
            self._loop.call_soon(self._send)
        self._written_at = self._last_byte_at = self._loop.time()
        self._first_byte_limit = first_byte_limit_seconds
        self._idle_limit = idle_limit_seconds
        self._deadline = None
        first_look = self._written_at + min(first_byte_limit_seconds, idle_limit_seconds)
        if limit_seconds is not None:
            self._deadline = self._written_at + limit_seconds
            first_look = min(first_look, self._deadline)
        # The last exchange's timer serves this one too, unless it would ring too late.
        if self._timer is None or self._timer_due > first_look:
            self._set_timer(first_look)

    def _send(self) -> None:
        data, self._unsent = self._unsent, b""
        if data and not self.is_closed and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def now(self) -> float:
        """The clock that ``idle_since`` is of."""
        return self._loop.time()

    async def wait_head(self) -> None:
        """Wait until ``status`` and ``headers`` are there. Raises httpx.TransportError."""
        while not self.has_head:
            if self._error is not None:
                raise self._error
            # Written out here and in ``read``: a coroutine for it would be one more for every chunk.
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.abort()  # whoever waited has left: the upstream must learn of it now
                raise
            finally:
                self._waiter = None

    async def read(self) -> bytes:
        """The next bytes of the body, as many as are there; b"" at its end. Raises httpx.TransportError."""
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return b""
            if self._is_read_paused:
                self._resume_reading()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.abort()
                raise
            finally:
                self._waiter = None
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._unread_bytes = 0
        return data

    def when_whole(self, on_end: Callable[[], None], *, limit_bytes: int) -> None:
        """Call ``on_end`` once, when the answer is complete, has failed, or has more than about ``limit_bytes`` of
        body: in place of ``wait_head`` and ``read``, for small answers. One that comes in pieces wakes nobody between.

        It is called while the socket is being read, and never after ``abort``; ``take`` gives what there is.
        """
        self._on_end = on_end
        self._whole_limit_bytes = limit_bytes

    def take(self) -> bytes:
        """What came of the body; it is not held here any longer. Raises httpx.TransportError if the answer failed."""
        body = b"".join(self._parts)
        self._parts.clear()  # the connection and its parser refer to each other: what they hold goes late
        if self._error is not None:
            raise self._error
        return body

    def limit_silence(self, seconds: float) -> None:
        """From now on the answer is broken after so long without a byte: the pod was deleted."""
        if self._is_busy and not self.is_complete and not self.is_closed:
            self._idle_limit = min(self._idle_limit, seconds)
            self._silence_limit = self._first_byte_limit = self._idle_limit
            self._written_at = max(self._written_at, self._loop.time())
            self._last_byte_at = max(self._last_byte_at, self._written_at)
            self._set_timer(self._loop.time() + self._idle_limit)

    @property
    def is_drained(self) -> bool:
        """Whether the answer is complete and all of it was read."""
        return self.is_complete and not self._parts

    def finish(self) -> bool:
        """End the exchange. True when the connection can take another one; else it is aborted."""
        if (
            self.is_closed
            or not self.is_complete
            or not self._can_keep_alive
            or self._error is not None
            or self._transport is None
            or self._transport.get_write_buffer_size()  # the answer came before the request was sent whole
        ):
            self.abort()
            return False
        if self._is_read_paused:
            self._resume_reading()
        self._is_busy = False
        self._parts.clear()
        self.idle_since = self._loop.time()
        return True

    def abort(self) -> None:
        """Drop the connection now: close() would wait for a peer that may never read."""
        self._stop_timer()
        self.is_closed = True
        self._on_end = None
        if self._transport is not None:
            self._transport.abort()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _is_end_certain(self) -> bool:
        """Whether it was the upstream that ended the connection. In TLS it says so (close_notify, RFC 8446 6.1); an end
        without it can be anybody's, in the middle of the answer."""
        if self._tls is None:
            return True
        try:
            return self._tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif self._on_end is not None:
            self._look_whether_whole()

    def _look_whether_whole(self) -> None:
        if not self.is_complete and self._error is None and self._unread_bytes <= self._whole_limit_bytes:
            if self._is_read_paused:
                self._resume_reading()
            return
        on_end, self._on_end = self._on_end, None
        assert on_end is not None
        on_end()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()
        self.abort()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self.is_closed:
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._is_read_paused = False
        if self._transport is not None and not self.is_closed:
            self._last_byte_at = self._loop.time()  # a reader that was slow is not the upstream's silence
            self._transport.resume_reading()

    def _look_at_clock(self) -> None:
        # One timer for the exchange, set anew only when it fires: a chunk costs no timer.
        self._timer = None
        if self.is_complete or not self._is_busy:
            return
        now = self._loop.time()
        if self._is_read_paused:
            due = now + self._idle_limit  # the client is slow, not the upstream; the server has a limit for that
        elif self._has_first_byte:
            due = self._last_byte_at + self._idle_limit
        else:
            due = self._written_at + self._first_byte_limit
        if self._deadline is not None:
            due = min(due, self._deadline)
        if due - now > 0.001:
            # Never later than the idle limit, which may become the nearer one when the first byte comes.
            self._set_timer(min(due, now + self._idle_limit))
            return
        if self._silence_limit is not None and (self._deadline is None or now < self._deadline):
            self._fail(
                ConnectionBrokenError(
                    "the pod was deleted, and nothing came any more",
                    is_reused=False,
                    seconds_since_write=now - self._written_at,
                    has_answer_bytes=self._has_answer_bytes,
                )
            )
            return
        self._fail(httpx.ReadTimeout("the upstream took too long"))

    def _set_timer(self, due: float) -> None:
        self._stop_timer()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - self._loop.time()), self._look_at_clock)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _why(error: Exception) -> str:
    cause = error.__context__ if error.__context__ is not None else error
    if isinstance(cause, httpx.RemoteProtocolError):
        return str(cause)
    return type(error).__name__  # the parser's message can quote the bytes it choked on
