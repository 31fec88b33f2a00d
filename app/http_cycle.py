"""What is one request and its answer on a connection? Its ASGI side: `receive`, `send` and the bytes of the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from middleware.errors import GatewayError

if TYPE_CHECKING:
    from app.http_protocol import GatewayProtocol

logger = logging.getLogger(__name__)

_CONTROL_IN_HEAD = bytes({*range(0x20), 0x7F} - {0x09, 0x0A, 0x0D})
_BODILESS = frozenset({204, 304})


class Cycle:
    """One request and its answer on a connection: the ASGI side of it."""

    __slots__ = (
        "_chunked",
        "_close_delimited",
        "_head",
        "_is_head_request",
        "_left",
        "_waiter",
        "chunks",
        "chunks_size",
        "disconnected",
        "error",
        "flow",
        "is_body_given",
        "keep_alive",
        "more_body",
        "protocol",
        "response_complete",
        "response_started",
        "scope",
        "task",
        "transport",
        "waiting_for_100_continue",
    )

    def __init__(
        self, scope: Scope, protocol: GatewayProtocol, flow: FlowControl, expects_100: bool, keep_alive: bool
    ) -> None:
        self.scope = scope
        self.protocol = protocol
        self.flow = flow
        self.transport = protocol.transport
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects_100
        self._waiter: asyncio.Future[None] | None = None
        self.chunks: list[bytes] = []
        self.chunks_size = 0
        self.is_body_given = False  # the whole of it: what is left to receive is that the client left
        self.more_body = True
        self.disconnected = False
        self.error: GatewayError | None = None
        self.response_started = False
        self.response_complete = False
        self.task: asyncio.Task[None] | None = None
        self._head: bytes | None = None
        self._is_head_request = scope["method"] == "HEAD"
        self._chunked = False
        self._close_delimited = False
        self._left = 0  # bytes that content-length still promises

    async def run(self, app: ASGIApp) -> None:
        """Run the app for this request; cut the answer if it was left unfinished."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            logger.exception("the application raised")
        finally:
            # Here and not in a callback, which would be one more turn of the loop for each request.
            self.protocol.tasks.discard(self.task)
            if not self.response_complete and not self.disconnected:
                self.protocol.cut(self)

    @property
    def is_close_delimited(self) -> bool:
        """Whether the end of the connection is what ends this answer's body."""
        return self._close_delimited

    async def receive(self) -> Message:
        """The next part of the body. Raises GatewayError when its framing is broken."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.chunks and self.more_body and self.error is None and not self.disconnected:
            self.flow.resume_reading()
            await self._wait()
        while self.is_body_given and not self.disconnected and not self.response_complete:
            await self._wait()
        if self.disconnected or self.is_body_given:
            return {"type": "http.disconnect"}
        self.flow.resume_reading()  # whatever was too much is taken now; and a client's leaving must be read, too
        if self.error is not None:
            raise self.error
        chunks = self.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.chunks_size = 0
        self.is_body_given = not self.more_body
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait(self) -> None:
        self._waiter = self.protocol.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let ``receive`` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def send(self, message: Message) -> None:
        """Write a part of the answer; waits while the client does not take what was written."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
            return
        if self.response_complete:
            raise RuntimeError("a message after the end of the answer")
        body: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        head = self._head or b""
        self._head = None
        if self._is_head_request:
            data = head
        elif self._chunked:
            data = head
            if body:
                data += b"%x\r\n%b\r\n" % (len(body), body)
            if is_last:
                data += b"0\r\n\r\n"
        else:
            self._left -= len(body)
            if not self._close_delimited and (self._left < 0 or (is_last and self._left)):
                raise RuntimeError("the answer's length is not its content-length")
            data = head + body if head else body
        if is_last and self.keep_alive:
            self.protocol.write_soon(data)
        elif data:
            self.transport.write(data)
        if is_last:
            self.response_complete = True
            self.wake()
            self.protocol.on_response_complete()

    def _start(self, message: Message) -> None:
        status: int = message["status"]
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.more_body or self.protocol.is_draining:
            self.keep_alive = False
        headers: list[tuple[bytes, bytes]] = message["headers"]
        lines = [(STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status)[:-2]]
        has_length = has_close = False
        for name, value in headers:
            if name == b"content-length":
                has_length = True
                self._left = int(value)
            elif name == b"connection":
                has_close = True
                self.keep_alive = False
            lines.append(name + b": " + value)
        if status in _BODILESS:
            self._left = 0
        elif not has_length and not self._is_head_request:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                self._close_delimited = True
                self.keep_alive = False
        if not self.keep_alive and not has_close:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        if len(head.translate(None, _CONTROL_IN_HEAD)) != len(head) or head.count(b"\n") != len(lines):
            self.response_started = False
            raise RuntimeError("a header of the answer has control bytes")
        self._head = head
