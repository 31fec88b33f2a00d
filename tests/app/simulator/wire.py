"""How do these tests talk HTTP byte by byte, and how do they read a recording?"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

RECORDINGS = Path(__file__).parent / "recordings"

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer. `body` is without chunk framing; `chunks` is empty where there was none."""

    status_line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunks: list[bytes]

    @property
    def status(self) -> int:
        return int(self.status_line.split()[1])

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)

    def json(self) -> Any:
        return orjson.loads(self.body)

    def events(self) -> list[tuple[str | None, Any]]:
        """(event name, data) of each server-sent event, data as JSON where it is JSON."""
        return [_event(block) for block in self.body.decode().split("\n\n") if block]


class Connection:
    """One connection. Nothing is sent or read but when asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.writer.write(request_bytes(method, path, body, headers))

    async def head(self) -> Answer:
        """The head of the next answer, its body left unread."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status_line, headers = _parse_head(raw)
        return Answer(status_line=status_line, headers=headers, body=b"", chunks=[])

    async def chunk(self) -> bytes:
        """The next chunk; b"" for the last one."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self, *, is_head: bool = False) -> Answer:
        """The next answer, whole."""
        head = await self.head()
        chunks: list[bytes] = []
        body = b""
        if head.header(b"transfer-encoding") == b"chunked":
            while chunk := await self.chunk():
                chunks.append(chunk)
            body = b"".join(chunks)
        elif not is_head:
            body = await self.reader.readexactly(int(head.header(b"content-length") or 0))
        return Answer(status_line=head.status_line, headers=head.headers, body=body, chunks=chunks)


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the test cut it


def request_bytes(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    lines = {"host": "127.0.0.1:9101", **(JSON if headers is None else headers)}
    if body:
        lines["content-length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def recording(name: str) -> Answer:
    """A recorded answer; of several in one file the first."""
    raw = (RECORDINGS / f"{name}.txt").read_bytes()
    head, _, rest = raw.partition(b"\r\n\r\n")
    status_line, headers = _parse_head(head + b"\r\n\r\n")
    chunks: list[bytes] = []
    if dict(headers).get(b"transfer-encoding") == b"chunked" and re.match(rb"[0-9a-f]+\r\n", rest):
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        chunks.pop()
        rest = b"".join(chunks)
    length = dict(headers).get(b"content-length")
    body = rest[: int(length)] if length is not None else rest
    return Answer(status_line=status_line, headers=headers, body=body, chunks=chunks)


def shape_of(value: Any) -> Any:
    """The same structure with types for values; a list has the shapes of its elements, each once."""
    match value:
        case dict():
            return {key: shape_of(inner) for key, inner in value.items()}
        case list():
            shapes: list[Any] = []
            for inner in value:
                if (shape := shape_of(inner)) not in shapes:
                    shapes.append(shape)
            return shapes
        case _:
            return type(value).__name__


def _parse_head(raw: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    status_line, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [line.partition(b": ") for line in lines]
    return status_line, [(name, value) for name, _, value in pairs]


def _event(block: str) -> tuple[str | None, Any]:
    name = None
    data = ""
    for line in block.split("\n"):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
    return name, orjson.loads(data) if data.startswith("{") else data
