"""What does one watch send, and when does it end? A stream of the tests' API server."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from tests.support.kube_api import answers
from tests.support.kube_api.kinds import ApiKind
from tests.support.kube_api.selectors import Selector
from tests.support.kube_api.store import ApiObject, StoredEvent

HEAD = (
    b"HTTP/1.1 200 OK\r\nCache-Control: no-cache, private\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"

End = Literal["clean", "eof", "reset", "half line"]


class WatchStream:
    """An open watch. The server feeds it with events; ``run`` writes until the time is over or somebody ends it."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        *,
        kind: ApiKind,
        version: str,
        namespace: str | None,
        selector: Selector,
        after: int,
        timeout_seconds: float,
        bookmark_seconds: float | None,
        buffer: int,
        current_version: Callable[[], int],
        thawed: Callable[[], Awaitable[object]],
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self._writer = writer
        self._version = version
        self._selector = selector
        self._after = after
        self._timeout_seconds = timeout_seconds
        self._bookmark_seconds = bookmark_seconds
        self._buffer = buffer
        self._current_version = current_version
        self._thawed = thawed
        self._queue: asyncio.Queue[bytes | End] = asyncio.Queue()
        self.sent = 0  # events

    def initial(self, objects: list[ApiObject]) -> None:
        """Tell what exists as ADDED events, as a watch without a resourceVersion begins."""
        for obj in objects:
            self._put("ADDED", obj)

    def feed(self, event: StoredEvent) -> None:
        """Tell a change, if this watch sees it. One that reads too slowly is ended, cleanly and without a word."""
        if event.kind is not self.kind or event.version <= self._after:
            return
        before = event.old if event.old is not None and self._sees(event.old) else None
        after = event.new if event.new is not None and self._sees(event.new) else None
        if self._queue.qsize() >= self._buffer:
            self.end("clean")
        elif after is not None:
            self._put("MODIFIED" if before is not None else "ADDED", after)
        elif before is not None:
            # As it was before, old labels and all, with the resourceVersion of the change.
            metadata = {**before["metadata"], "resourceVersion": str(event.version)}
            self._put("DELETED", {**before, "metadata": metadata})

    def raw(self, line: bytes) -> None:
        """Send bytes as they are, such as garbage."""
        self._queue.put_nowait(line)

    def error(self, status: dict[str, Any]) -> None:
        """Send an ERROR event."""
        self.raw(answers.dumps({"type": "ERROR", "object": status}))

    def end(self, how: End) -> None:
        """End the stream behind what was told so far."""
        self._queue.put_nowait(how)

    async def run(self) -> bool:
        """Write the stream. True when the connection can be used again."""
        loop = asyncio.get_running_loop()
        await self._thawed()
        self._writer.write(HEAD)
        deadline = loop.time() + self._timeout_seconds
        bookmark_at = loop.time() + self._bookmark_seconds if self._bookmark_seconds is not None else deadline
        while True:
            try:
                async with asyncio.timeout_at(min(deadline, bookmark_at)):
                    item = await self._queue.get()
            except TimeoutError:
                # A timer may ring a hair before its time by this clock.
                if self._bookmark_seconds is None or loop.time() >= deadline:
                    item = "clean"
                else:
                    bookmark_at = loop.time() + self._bookmark_seconds
                    item = answers.dumps(answers.bookmark(self.kind, self._version, self._current_version()))
            await self._thawed()
            if self._writer.is_closing():  # the client has gone
                return False
            match item:
                case bytes():
                    self._writer.write(b"%x\r\n%s\r\n" % (len(item), item))
                    await self._writer.drain()
                    self.sent += 1
                case "clean":
                    self._writer.write(LAST_CHUNK)
                    return True
                case "half line":
                    half = b'{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"ha'
                    self._writer.write(b"%x\r\n%s\r\n" % (len(half), half) + LAST_CHUNK)
                    return True
                case "eof":
                    await self._writer.drain()
                    return False
                case "reset":
                    reset(self._writer)
                    return False

    def _sees(self, obj: ApiObject) -> bool:
        metadata = obj["metadata"]
        return self.namespace in (None, metadata.get("namespace")) and self._selector(metadata.get("labels") or {})

    def _put(self, type_: str, obj: ApiObject) -> None:
        obj = answers.in_version(obj, self.kind, self._version)
        self._queue.put_nowait(json.dumps({"type": type_, "object": obj}, separators=(",", ":")).encode() + b"\n")


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
