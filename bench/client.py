"""How fast does a server answer? A closed loop of keep-alive connections that checks every answer it counts.

Runs in the benchmark's own process, which serves nothing: raw asyncio.Protocol on uvloop, prebuilt requests, and
answers compared byte for byte, so that a broken gateway cannot look fast.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import uvloop

from bench.loads import (
    ANSWERED_NAME,
    MODELS_IN_USE,
    STAMP,
    Behaviour,
    Load,
    Place,
    burst_events,
    json_answer,
    request_bytes,
)
from bench.processes import BenchError

_CONNECT_SECONDS = 10.0
_STAMP = re.compile(STAMP)
_NO_HEAD, _UNTIL_LAST_CHUNK = -1, -2


@dataclass(slots=True, kw_only=True)
class Measurement:
    """What one run of one load showed. Latencies in seconds: of a whole answer, or of an event from its sending on."""

    count: int = 0  # answers, or events of paced streams
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the server that was measured
    latencies: list[float] = field(default_factory=list)

    @property
    def cpu_per_unit(self) -> float:
        """CPU seconds per answer or event."""
        return self.cpu_seconds / self.count

    def percentile(self, share: float) -> float:
        """The latency that this share of the answers stays under."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Run:
    """What the connections of one run share."""

    def __init__(self, expected: bytes) -> None:
        self.expected = expected
        self.is_counting = False
        self.is_over = False
        self.measured = Measurement()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        """Stop everything: what was measured is worth nothing."""
        if not self.is_over and not self._failed.done():
            self._failed.set_exception(BenchError(why))

    async def pass_time(self, seconds: float) -> None:
        """Let the connections work for so long. Raises BenchError when one of them fails."""
        done, _ = await asyncio.wait({self._failed}, timeout=seconds)
        if done:
            self._failed.result()


class Connection(asyncio.Protocol):
    """One client: sends its request again as soon as the answer is whole."""

    def __init__(self, run: Run, request: bytes) -> None:
        self._run = run
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._missing = _NO_HEAD  # bytes to the end of the answer, or one of the two words
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(f"the connection ended: {exc or 'closed by the server'}")

    def send(self) -> None:
        """Send the request."""
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def leave(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if self._missing >= 0:
            self._missing -= len(data)
        elif self._missing == _NO_HEAD and not self._read_head():
            return
        if self._missing == 0 or (self._missing == _UNTIL_LAST_CHUNK and data.endswith(b"0\r\n\r\n")):
            self._answered()

    def _read_head(self) -> bool:
        data = b"".join(self._parts)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            self._run.fail(f"not 200: {data[:400]!r}")
            self.leave()
            return False
        self._parts = [data[end + 4 :]]
        start = head.find(b"content-length:")
        if start < 0:
            self._missing = _UNTIL_LAST_CHUNK
        else:
            self._missing = int(head[start + 15 :].split(b"\r\n", 1)[0]) - (len(data) - end - 4)
        return True

    def _answered(self) -> None:
        now = time.perf_counter()
        body = b"".join(self._parts)
        if self._missing == _UNTIL_LAST_CHUNK:
            body = unchunked(body)
        run = self._run
        if body != run.expected:
            run.fail(f"a wrong answer of {len(body)} bytes: {body[:200]!r}")
            return
        if run.is_counting:
            run.measured.count += 1
            run.measured.latencies.append(now - self._sent_at)
        self._parts = []
        self._missing = _NO_HEAD
        if not run.is_over:
            self.send()


class EndlessStream(Connection):
    """One client of a stream without end: counts events, and notes how old each is when it comes."""

    def data_received(self, data: bytes) -> None:
        if self._missing == _NO_HEAD:
            self._parts.append(data)
            self._read_head()
            return
        run = self._run
        if run.is_counting:
            now = time.monotonic_ns()
            for stamp in _STAMP.findall(data):
                run.measured.count += 1
                run.measured.latencies.append((now - int(stamp)) / 1e9)


def unchunked(data: bytes) -> bytes:
    """The body inside chunked framing."""
    parts: list[bytes] = []
    position = 0
    while True:
        line_end = data.index(b"\r\n", position)
        size = int(data[position:line_end], 16)
        if not size:
            return b"".join(parts)
        start = line_end + 2
        parts.append(data[start : start + size])
        position = start + size + 2


def drive(
    load: Load,
    *,
    port: int,
    seconds: float,
    cpu_seconds: Callable[[], float],
    place: Place = Place.END,
    concurrency: int | None = None,
    name: str | None = None,
    is_renamed: bool = False,
) -> Measurement:
    """Run a load against a port for so long. Raises BenchError when any answer is not the one expected.

    ``name`` is a model that is asked for in place of the usual ones, ``is_renamed`` whether answers must name it.
    """
    requests = [
        request_bytes(load.behaviour, number, prompt_bytes=load.prompt_bytes, place=place, name=name)
        for number in range(MODELS_IN_USE)
    ]
    expected = json_answer() if load.behaviour is Behaviour.JSON else b"".join(burst_events())
    if name is not None and is_renamed:
        expected = expected.replace(json.dumps(ANSWERED_NAME).encode(), json.dumps(name).encode())

    async def measure() -> Measurement:
        run = Run(expected)
        kind = EndlessStream if load.behaviour is Behaviour.PACED else Connection
        connections = await connect(
            [partial(kind, run, requests[n % MODELS_IN_USE]) for n in range(concurrency or load.concurrency)], port
        )
        try:
            for connection in connections:
                connection.send()
            await run.pass_time(load.settle_seconds)
            run.is_counting = True
            cpu_before, started = cpu_seconds(), time.perf_counter()
            await run.pass_time(seconds)
            run.is_counting = False
            run.measured.cpu_seconds = cpu_seconds() - cpu_before
            run.measured.seconds = time.perf_counter() - started
        finally:
            run.is_over = True
            for connection in connections:
                connection.leave()
        await asyncio.sleep(0.01)  # the server sees that its clients left before the next run begins
        if not run.measured.count:
            raise BenchError(f"no answer in {seconds} s")
        return run.measured

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


async def connect(factories: Sequence[Callable[[], Connection]], port: int) -> list[Connection]:
    """A connection for each factory. Raises BenchError when they are not all there in time."""
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            for factory in factories:
                _, connection = await loop.create_connection(factory, "127.0.0.1", port)
                connections.append(connection)
    except (OSError, TimeoutError) as error:
        raise BenchError(f"{len(connections)} of {len(factories)} connections were taken: {error}") from None
    return connections
