"""Who else gets a copy of the request? RequestMirror filters: copies whose answers nobody waits for.

A copy starts with the primary's first attempt, so a request that no endpoint can take has no copies. It carries what
the rule changes in the request; the model that it asks for is what the mirror's own pool makes of the client's, as for
every request to that pool. From there on the two know nothing of each other: a mirror that is silent, slow, broken or
absent is never noticed by the primary, and a client that leaves ends the primary only. Copies are bounded in number and
memory; what is over the bound is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import BackendRef, Mirror, Rule
from middleware.errors import InvalidBodyError
from middleware.exchange import Exchange
from middleware.headers import RawHeaders, upstream_headers
from middleware.load_balancing import least_of_two
from middleware.model_rewriting import mirrored
from middleware.targets import upstream_target
from middleware.upstream.registry import Pick, UpstreamRegistry
from middleware.upstream.transport import Timeouts, UpstreamStream

MAX_COPIES = 256
MAX_COPY_BYTES = 64 * 1024 * 1024
COPY_LIMIT_SECONDS = 600.0  # where the rule sets no request timeout


@dataclass(slots=True, kw_only=True)
class MirrorRecord:
    """What became of one copy. Times are those of time.perf_counter, in seconds."""

    rule: Rule
    backend: str
    started_at: float
    status: int | None = None  # None: no answer
    first_byte_at: float | None = None
    ended_at: float | None = None
    is_dropped: bool = False  # over the bound: it was never sent
    span: object = None  # by which an observer that traces knows it again


class MirrorObserver(Protocol):
    """Is told of every copy. Must not raise and must not block."""

    def mirrored(self, record: MirrorRecord) -> None:
        """A copy is over, or was dropped."""


def decide(mirrors: tuple[Mirror, ...], draw: Callable[[], float]) -> list[Mirror]:
    """The mirrors that get a copy of this request, each by its own share."""
    return [
        mirror
        for mirror in mirrors
        if mirror.numerator >= mirror.denominator or draw() * mirror.denominator < mirror.numerator
    ]


class MirrorCopies:
    """The copies that are under way; they outlive their requests and end with the process."""

    def __init__(
        self,
        *,
        observers: Sequence[MirrorObserver],
        max_copies: int = MAX_COPIES,
        max_bytes: int = MAX_COPY_BYTES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._observers = observers
        self._max_copies = max_copies
        self._max_bytes = max_bytes
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self,
        pick: Pick,
        rule: Rule,
        *,
        method: str,
        target: bytes,
        headers: RawHeaders,
        body: bytes,
        exchange: Exchange,
    ) -> None:
        """Send a copy in a task of its own, or drop it when there are too many."""
        record = MirrorRecord(rule=rule, backend=pick.backend_ref.name, started_at=self._clock())
        if len(self._tasks) >= self._max_copies or self.held_bytes + len(body) > self._max_bytes:
            record.is_dropped = True
            self._tell(record)
            return
        if exchange.trace is not None:
            headers = exchange.trace.copy_headers(exchange, record, headers)
        self.held_bytes += len(body)
        timeouts = Timeouts(
            connect=rule.policy.connect_timeout_seconds,
            first_byte=rule.policy.first_byte_timeout_seconds,
            idle=rule.policy.stream_idle_timeout_seconds,
            remaining=rule.policy.request_timeout_seconds or COPY_LIMIT_SECONDS,
        )
        transport = pick.upstream.transport
        sending = partial(transport.send, method=method, target=target, headers=headers, body=body, timeouts=timeouts)
        task = asyncio.get_running_loop().create_task(self._run(pick, sending, record, len(body)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(
        self, pick: Pick, sending: Callable[[], Awaitable[UpstreamStream]], record: MirrorRecord, size: int
    ) -> None:
        pick.upstream.begin()
        try:
            stream = await sending()
            record.status = stream.status
            try:
                while await stream.read():
                    if record.first_byte_at is None:
                        record.first_byte_at = self._clock()
            finally:
                stream.release()
        except httpx.TransportError:
            pass  # the record says how far it came
        finally:
            pick.upstream.end()
            self.held_bytes -= size
            record.ended_at = self._clock()
            self._tell(record)

    def _tell(self, record: MirrorRecord) -> None:
        for observer in self._observers:
            observer.mirrored(record)

    async def close(self) -> None:
        """End the copies that are under way."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _can_be_tried(exchange: Exchange) -> bool:
    assert exchange.candidates is not None
    return any(map(exchange.candidates, exchange.arms))


class TrafficMirroringMiddleware:
    """Starts the copies, and goes on with the primary."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: UpstreamRegistry,
        copies: MirrorCopies,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.app = app
        self.registry = registry
        self.copies = copies
        self.draw = draw

    # Not a coroutine function, see RouteMatchingMiddleware.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope["pointsman.exchange"]
        assert exchange.rule is not None
        if exchange.rule.mirrors and _can_be_tried(exchange):
            self._mirror(exchange, exchange.rule)
        return self.app(scope, receive, send)

    def _mirror(self, exchange: Exchange, rule: Rule) -> None:
        assert exchange.snapshot is not None
        for mirror in decide(rule.mirrors, self.draw):
            endpoints = exchange.snapshot.membership.get(mirror.backend.id, ())
            candidates = self.registry.candidates(mirror.backend.id, endpoints)
            if not candidates:
                continue
            chosen = least_of_two(candidates, self.draw)
            ref = BackendRef(name=mirror.name, weight=0, backend=mirror.backend, model_rewrites=mirror.model_rewrites)
            pick = Pick(ref, chosen.endpoint, chosen.upstream)
            try:
                sent = mirrored(exchange, ref)
            except InvalidBodyError:  # the primary may well serve it
                continue
            self.copies.start(
                pick,
                rule,
                method=exchange.method,
                target=upstream_target(exchange, pick),
                headers=upstream_headers(exchange, pick, sent),
                body=sent.body,
                exchange=exchange,
            )
