"""How much memory does a server take, idle and per open stream? Opens streams that begin and then say nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

import uvloop

from bench.client import Connection, Run, connect
from bench.loads import MODELS_IN_USE, Behaviour, request_bytes
from bench.processes import BenchError, Server

_OPEN_SECONDS = 20.0
_SETTLE_SECONDS = 0.5

IDLE_LIMIT_BYTES = 60_000_000
STREAM_LIMIT_BYTES = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Resident memory in bytes."""

    idle: int
    """Right after the start, before any request."""
    per_stream: float
    """What each open stream adds; what the first requests ever add is in it too."""
    streams: int


class _HeldStream(Connection):
    """One client of a stream of which only the first event comes."""

    has_begun = False

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if self._missing >= 0 or self._read_head():
            self._missing = 0
            self.has_begun = self.has_begun or b"data: " in b"".join(self._parts)


def measure_memory(server: Server, *, port: int, streams: int) -> MemoryUse:
    """Measure a server that was just started. Raises BenchError when not all streams open."""
    idle = server.rss_bytes()
    requests = [request_bytes(Behaviour.HELD, number) for number in range(MODELS_IN_USE)]

    async def hold() -> int:
        run = Run(b"")
        factories = [partial(_HeldStream, run, requests[number % MODELS_IN_USE]) for number in range(streams)]
        connections = await connect(factories, port)
        try:
            for connection in connections:
                connection.send()
            deadline = time.monotonic() + _OPEN_SECONDS
            while not all(isinstance(c, _HeldStream) and c.has_begun for c in connections):
                if time.monotonic() > deadline:
                    raise BenchError(f"{server.name} did not open {streams} streams")
                await run.pass_time(0.05)
            await run.pass_time(_SETTLE_SECONDS)
            return server.rss_bytes()
        finally:
            run.is_over = True
            for connection in connections:
                connection.leave()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(hold())
    time.sleep(_SETTLE_SECONDS)  # the server ends a thousand requests before anything else is measured
    return MemoryUse(idle=idle, per_stream=(held - idle) / streams, streams=streams)
