"""How does a test say, byte by byte, what a client does? A TCP connection with the few reads that tests need."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self


class RawAnswer(NamedTuple):
    """An answer as it came: the head's lines and the body, chunks joined."""

    status: int
    headers: dict[str, str]  # lower-case names; the last of repeated ones
    body: bytes


class RawClient:
    """`async with RawClient(port) as client:` is one connection to 127.0.0.1."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def send(self, data: bytes) -> None:
        """Send bytes and wait until the socket took them."""
        self.writer.write(data)
        await self.writer.drain()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Leave with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def head(self) -> tuple[int, dict[str, str]]:
        """The head of the next answer, interim ones included."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            if line:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
        return int(lines[0].split(" ")[1]), headers

    async def answer(self) -> RawAnswer:
        """The next whole answer. Raises asyncio.IncompleteReadError when it is cut."""
        status, headers = await self.head()
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                body += chunk
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return RawAnswer(status, headers, body)

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; b"" for the last. Raises asyncio.IncompleteReadError when it is cut."""
        size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data

    async def rest(self) -> bytes:
        """Everything until the other side ends the connection."""
        return await self.reader.read(-1)


async def ask(port: int, request: bytes) -> RawAnswer:
    """Send a request on a connection of its own and read its answer."""
    async with RawClient(port) as client:
        await client.send(request)
        return await client.answer()
