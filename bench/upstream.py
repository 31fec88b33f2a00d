"""What do the gateways talk to? A model server of prebuilt bytes, cheaper than anything that is measured.

One process, one port per behaviour; prints the ports as one line of JSON and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import time
from functools import partial
from typing import cast

import uvloop

from bench.loads import POD_ADDRESSES, Behaviour, burst_events, json_answer, paced_event
from bench.processes import free_port

_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_SHORTEST_GAP, _LONGEST_GAP = 0.020, 0.050
_BASE_HEAD = b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
_JSON_BODY = json_answer()
_STREAM_HEAD = _BASE_HEAD + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_JSON_ANSWER = (
    _BASE_HEAD + b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(_JSON_BODY) + _JSON_BODY
)
_BURST_WRITES = [_STREAM_HEAD, *map(_chunk, burst_events()), b"0\r\n\r\n"]
_BEFORE, _AFTER = paced_event()
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class ModelServer(asyncio.Protocol):
    """Reads requests only as far as their length, and answers in the port's way."""

    def __init__(self, *, behaviour: Behaviour, loop: asyncio.AbstractEventLoop) -> None:
        self._behaviour = behaviour
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0  # bytes of the body that are still to come
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1 << 20)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            if self._head:
                data = self._head + data
                self._head = b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            if data.startswith(b"GET "):  # for metrics, of which this one has none
                assert self._transport is not None
                self._transport.write(_NOT_FOUND)
                return
            self._left = _content_length(data[:end]) - (len(data) - end - 4)
        if self._left < 0:
            raise RuntimeError("more bytes than content-length says")
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        assert self._transport is not None
        match self._behaviour:
            case Behaviour.JSON:
                self._transport.write(_JSON_ANSWER)
            case Behaviour.BURST:
                self._write_each(_BURST_WRITES)
            case Behaviour.PACED:
                self._transport.write(_STREAM_HEAD)
                self._emit()
            case Behaviour.HELD:
                self._transport.write(_STREAM_HEAD + _chunk(_event()))

    def _write_each(self, writes: list[bytes]) -> None:
        # A system call for each, as a model server does; the transport would gather them to one.
        assert self._transport is not None
        descriptor = self._transport.get_extra_info("socket").fileno()
        for number, data in enumerate(writes):
            try:
                written = os.write(descriptor, data)
            except BlockingIOError:
                written = 0
            if written < len(data):
                self._transport.write(b"".join([data[written:], *writes[number + 1 :]]))
                return

    def _emit(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_chunk(_event()))
            self._timer = self._loop.call_later(random.uniform(_SHORTEST_GAP, _LONGEST_GAP), self._emit)


def _event() -> bytes:
    return b"%b%019d%b" % (_BEFORE, time.monotonic_ns(), _AFTER)


def _content_length(head: bytes) -> int:
    found = _CONTENT_LENGTH.search(head)
    if found is None:
        raise RuntimeError("a request without content-length")
    return int(found.group(1))


async def serve() -> None:
    """Listen on one free port per behaviour at every pod's address, say which, and serve until cancelled."""
    loop = asyncio.get_running_loop()
    ports = {}
    listeners = []
    for behaviour in Behaviour:
        port = ports[behaviour.value] = free_port()
        factory = partial(ModelServer, behaviour=behaviour, loop=loop)
        listeners.append(await loop.create_server(factory, POD_ADDRESSES, port, backlog=2048))
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.gather(*(listener.serve_forever() for listener in listeners))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
