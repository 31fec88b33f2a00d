"""How does a test say, byte by byte, what an upstream does? A TCP server whose connections each run a script."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tests.support.ports import free_port


class Conversation:
    """One connection as its script sees it. It controls every byte that is sent and the moment of the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # 1 for the server's first connection

    async def request(self) -> bytes:
        """The next request, head and body (content-length only). Raises asyncio.IncompleteReadError at the end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        """Send bytes and wait until the socket took them. Raises ConnectionError when the other side is gone."""
        if self.writer.transport.is_closing():  # uvloop's has an error of its own for this
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> None:
        """Send a whole answer with a content-length."""
        await self.send(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)

    async def until_closed(self) -> None:
        """Wait until the other side ended the connection; what it sends before is dropped."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def end_without_a_word(self) -> None:
        """End the sending half with a FIN alone: under TLS that is no end of what is said (no close_notify)."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


class RawUpstream:
    """`async with RawUpstream(script) as upstream:` listens at upstream.host:upstream.port.

    A connection is closed when its script ends. A script that fails makes the block fail.
    """

    def __init__(
        self, script: Script, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self.tls = tls
        self.host = host
        self.port = port
        self.connections = 0
        self.ended = 0  # connections whose script is over
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> Self:
        self.port = self.port or free_port(self.host)
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self._errors:
            raise self._errors[0]

    async def wait_ended(self, count: int = 1) -> None:
        """Wait until so many connections are over."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.ended >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self.script(Conversation(reader, writer, self.connections))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway hung up, which is what idle connections are for
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._tasks.discard(task)
            if not writer.transport.is_closing():
                writer.close()
            self.ended += 1
            async with self._changed:
                self._changed.notify_all()


@contextmanager
def unanswered_port() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel answers no more SYN, as from a node that is gone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        try:
            yield listener.getsockname()[1]
        finally:
            for client in waiting:
                client.close()
