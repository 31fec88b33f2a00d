"""How do bytes get to one endpoint and back? An httpx transport over our own connections, with a small idle stack.

httpx's default pool costs 4.5 ms a request; this one about 50 µs. What is kept is httpx's interface: AsyncBaseTransport
with Request and Response, and its exceptions. The request path calls ``send`` underneath, which raises the same
exceptions and makes no httpx objects. With a Request the target travels as ``extensions["target"]`` and the limits as
``extensions["timeout"]`` (`Timeouts`). It never retries.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from discovery.backend import UpstreamTLS
from discovery.resources.meta import is_internal_address
from middleware.upstream.connection import Activity, UpstreamConnection
from middleware.upstream.tls import context_for, why_failed

logger = logging.getLogger(__name__)

# Model servers close idle connections after 5 s (uvicorn's default); ours must be gone before.
IDLE_EXPIRY_SECONDS = 4.0
MAX_IDLE_CONNECTIONS = 128


@dataclass(slots=True)
class Timeouts:
    """The limits of one attempt, each of a phase of its own, in seconds; ``remaining`` is for all of it."""

    connect: float = 2.0
    first_byte: float = 3600.0
    idle: float = 300.0
    remaining: float | None = None


_DEFAULT_TIMEOUTS = Timeouts()


class Answer(NamedTuple):
    """A whole answer, or its first part if it is larger than what was asked for."""

    status: int
    headers: list[tuple[bytes, bytes]]  # raw, with lower-case names
    body: bytes
    is_whole: bool


class UpstreamStream(httpx.AsyncByteStream):
    """The answer's body. ``read()`` gives what is there; iterating does the same until the end, as httpx expects."""

    __slots__ = ("_connection", "_transport")

    def __init__(self, *, connection: UpstreamConnection, transport: UpstreamTransport) -> None:
        self._connection: UpstreamConnection | None = connection
        self._transport = transport

    def read(self) -> Coroutine[Any, Any, bytes]:
        """The next bytes, b"" at the end. Raises httpx.TransportError; cancelling it aborts the connection."""
        if self._connection is None:
            return _nothing()
        return self._connection.read()

    @property
    def is_drained(self) -> bool:
        """Whether everything was read, the end included."""
        return self._connection is None or self._connection.is_drained

    @property
    def status(self) -> int:
        """The answer's status; 0 once the stream was released."""
        return 0 if self._connection is None else self._connection.status

    @property
    def head(self) -> list[tuple[bytes, bytes]]:
        """The answer's headers as raw pairs with lower-case names; httpx's own take a microsecond to give back."""
        return [] if self._connection is None else self._connection.headers

    def release(self) -> None:
        """Give the connection back if the answer was read whole, else abort it. Safe to call twice."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            self._transport._release(connection)

    def abort(self) -> None:
        """Drop the connection at once; the upstream notices within a round trip."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.abort()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        self.release()


async def _nothing() -> bytes:
    return b""


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Connections to one endpoint. Idle ones are kept last in, first out, for at most 4 s.

    Raises httpx.ConnectError, ConnectTimeout, ReadTimeout, RemoteProtocolError and ConnectionBrokenError (a ReadError).
    """

    def __init__(
        self,
        *,
        address: str,
        port: int,
        tls: UpstreamTLS | None = None,
        is_confined: bool = False,
        idle_expiry_seconds: float = IDLE_EXPIRY_SECONDS,
    ) -> None:
        """``is_confined``: a name must not resolve to an address of the gateway's own pod or node."""
        self._is_confined = is_confined
        self.activity = Activity()
        self._address = address
        self._port = port
        self._server_name = tls.server_name if tls is not None else None
        self._tls = context_for(tls) if tls is not None else None
        self._tls_trouble = ""  # told last
        self._is_literal = _is_ip_literal(address)
        self._idle_expiry = idle_expiry_seconds
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()  # idle and in use
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """httpx's interface over ``send``: for an AsyncClient, and for whatever is not on the hot path."""
        extensions = request.extensions
        timeouts = extensions.get("timeout", _DEFAULT_TIMEOUTS)
        if not isinstance(timeouts, Timeouts):  # httpx.AsyncClient gives a mapping of its own phases
            timeouts = _timeouts_of_httpx(timeouts)
        body = extensions.get("body")
        if body is None:
            body = b"".join([part async for part in request.stream])  # type: ignore[union-attr]
        stream = await self.send(
            method=request.method,
            target=extensions.get("target") or request.url.raw_path,
            headers=request.headers.raw,
            body=body,
            timeouts=timeouts,
            is_fresh=extensions.get("fresh_connection", False),
        )
        return httpx.Response(stream.status, headers=stream.head, stream=stream)

    async def send(
        self,
        *,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        is_fresh: bool = False,
    ) -> UpstreamStream:
        """Send a request and wait for its answer's head: what handle_async_request does, without httpx's Request,
        Response and Headers, which cost an eighth of a small request's instructions.

        ``is_fresh`` asks for a connection that has not been used.
        """
        request_line = b"%b %b HTTP/1.1" % (method.encode("ascii"), target)
        head = b"\r\n".join([request_line, *map(b": ".join, headers), b"\r\n"])
        connection = None if is_fresh else self._pop_idle()
        first_byte, remaining = timeouts.first_byte, timeouts.remaining
        if connection is None:
            # Connecting is a part of the attempt: what it takes is missing from the attempt's other limits.
            started = time.monotonic()
            allowed = first_byte if remaining is None else min(first_byte, remaining)
            connection = await self._connect(timeouts.connect, allowed)
            took = time.monotonic() - started
            first_byte -= took
            remaining = None if remaining is None else remaining - took
        try:
            connection.start(
                head=head,
                body=body,
                is_head_request=method == "HEAD",
                first_byte_limit_seconds=max(0.0, first_byte),
                idle_limit_seconds=timeouts.idle,
                limit_seconds=None if remaining is None else max(0.0, remaining),
            )
            await connection.wait_head()
        except BaseException:
            connection.abort()
            raise
        return UpstreamStream(connection=connection, transport=self)

    async def connect(self, *, timeout_seconds: float) -> None:
        """Have a connection that ``ask`` can use. Raises as ``send`` does."""
        connection = await self._connect_to_any(timeout_seconds)
        connection.idle_since = connection.now()
        self._keep(connection)

    def ask(
        self,
        head: bytes,
        *,
        limit_seconds: float,
        limit_bytes: int,
        is_last: bool = False,
        on_answer: Callable[[Answer | httpx.TransportError], None],
    ) -> UpstreamConnection | None:
        """Send a request without a body and have ``on_answer`` called with its answer: no task, no future, and one
        wake-up however many pieces it comes in. For what is asked hundreds of times a second and answered shortly.

        ``head`` is what goes over the wire; with ``is_last`` the connection is closed behind the answer. None, and
        nothing is sent, when there is no connection: ``connect`` comes first. What is returned can be aborted, and then
        nobody is called.
        """
        connection = self._pop_idle()
        if connection is None:
            return None

        def ended() -> None:
            answer: Answer | httpx.TransportError
            try:
                body = connection.take()
            except httpx.TransportError as error:
                answer = error
            else:
                answer = Answer(connection.status, connection.headers, body, connection.is_complete)
            if is_last:
                connection.abort()
            else:
                self._release(connection)
            on_answer(answer)

        connection.start(
            head=head,
            body=b"",
            is_head_request=False,
            first_byte_limit_seconds=limit_seconds,
            idle_limit_seconds=limit_seconds,
            limit_seconds=limit_seconds,
        )
        connection.when_whole(ended, limit_bytes=limit_bytes)
        return connection

    async def _connect(self, timeout_seconds: float, allowed_seconds: float) -> UpstreamConnection:
        if allowed_seconds >= timeout_seconds:
            return await self._connect_to_any(timeout_seconds)
        try:
            async with asyncio.timeout(allowed_seconds):
                return await self._connect_to_any(timeout_seconds)
        except TimeoutError:
            raise httpx.ReadTimeout("the attempt's time was over before there was a connection") from None

    async def _connect_to_any(self, timeout_seconds: float) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        last_error: Exception | None = None
        try:
            addresses = [self._address] if self._is_literal else await self._resolve(loop, timeout_seconds)
            for address in addresses:
                try:
                    async with asyncio.timeout(timeout_seconds):
                        # The TLS handshake is a part of connecting.
                        _, connection = await loop.create_connection(
                            lambda: UpstreamConnection(
                                loop=loop,
                                on_closed_idle=self._forget,
                                on_lost=self._open.discard,
                                activity=self.activity,
                            ),
                            address,
                            self._port,
                            ssl=self._tls,
                            server_hostname=self._server_name,
                        )
                    self._tls_trouble = ""
                    self._open.add(connection)
                    return connection
                except (OSError, TimeoutError) as error:
                    last_error = error
                    self._tell_tls_trouble(error)
        except socket.gaierror as error:
            raise httpx.ConnectError(f"the name {self._address} does not resolve") from error
        except TimeoutError as error:
            last_error = error
        if isinstance(last_error, TimeoutError):
            raise httpx.ConnectTimeout(f"no connection to {self._address}:{self._port} in time") from last_error
        raise httpx.ConnectError(f"no connection to {self._address}:{self._port}") from last_error

    def _tell_tls_trouble(self, error: Exception) -> None:
        """Once, until it is another or over: it is the same for every request."""
        trouble = why_failed(error) if self._tls is not None else None
        if trouble is not None and trouble != self._tls_trouble:
            self._tls_trouble = trouble
            logger.warning("no TLS with %s:%d as %s: %s", self._address, self._port, self._server_name, trouble)

    async def _resolve(self, loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> list[str]:
        async with asyncio.timeout(timeout_seconds):
            found = await loop.getaddrinfo(self._address, self._port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if self._is_confined:
            addresses = [address for address in addresses if not is_internal_address(address)]
            if not addresses:
                raise httpx.ConnectError(f"{self._address} leads into the gateway's own pod or node")
        return addresses

    def _pop_idle(self) -> UpstreamConnection | None:
        if self._idle:
            oldest_allowed = self._idle[-1].now() - self._idle_expiry
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed and connection.idle_since > oldest_allowed:
                    return connection
                connection.abort()
        return None

    def _release(self, connection: UpstreamConnection) -> None:
        if connection.finish():
            self._keep(connection)

    def _keep(self, connection: UpstreamConnection) -> None:
        if self._is_closed or len(self._idle) >= MAX_IDLE_CONNECTIONS:
            connection.abort()
            return
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_expiry, self._sweep)

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        oldest_allowed = loop.time() - self._idle_expiry
        expired = [connection for connection in self._idle if connection.idle_since <= oldest_allowed]
        self._idle = [connection for connection in self._idle if connection.idle_since > oldest_allowed]
        for connection in expired:
            connection.abort()
        if self._idle:
            next_expiry = self._idle[0].idle_since + self._idle_expiry - loop.time()
            self._sweeper = loop.call_later(max(0.05, next_expiry), self._sweep)

    def limit_silence(self, seconds: float) -> None:
        """End what runs here as broken after so long without a byte: the pod was deleted."""
        for connection in list(self._open):
            connection.limit_silence(seconds)

    @property
    def idle_connections(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    def close_idle(self) -> None:
        """Close what waits for a request; the transport stays usable."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def close(self) -> None:
        """Close what waits, and whatever is in use once its exchange ends."""
        self._is_closed = True
        self.close_idle()

    async def aclose(self) -> None:
        self.close()


def _is_ip_literal(address: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return True
    return False


def _timeouts_of_httpx(mapping: dict[str, Any]) -> Timeouts:
    connect, read = mapping.get("connect"), mapping.get("read")
    return Timeouts(
        connect=_DEFAULT_TIMEOUTS.connect if connect is None else connect,
        first_byte=_DEFAULT_TIMEOUTS.first_byte if read is None else read,
        idle=_DEFAULT_TIMEOUTS.idle if read is None else read,
    )
