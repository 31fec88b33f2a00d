"""Who is asked whether it is well, and when? HTTP checks of the endpoints of those rules whose policy wants them.

The rules are Envoy's. An endpoint that is new is not used before its first check is passed, and one that has answered
goes on as it was. A failure of the network counts towards the threshold, an answer that is not as expected is enough.
When too few endpoints are left, all are used (circuit_breaking.py): so it is at the start, before the first checks.

Each endpoint is checked once for all rules that want the same. A check is a timer and, while it runs, a task.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from discovery.backend import Endpoint, Membership
from discovery.rule_policy import ActiveHealth, PassiveHealth
from discovery.snapshot import Routing, Snapshot
from middleware.upstream.endpoint_health import EndpointHealth, Finding, Result
from middleware.upstream.health_probe import check
from middleware.upstream.registry import Upstream, UpstreamRegistry
from middleware.upstream.transport import UpstreamTransport

logger = logging.getLogger(__name__)

MAX_CONCURRENT_CHECKS = 256  # what is due beyond waits for its turn


class _Check:
    """The checking of one endpoint with one setting, for as long as a rule wants it."""

    __slots__ = ("endpoint", "health", "is_stopped", "task", "timer", "transport", "upstream")

    def __init__(
        self, *, endpoint: Endpoint, upstream: Upstream, health: EndpointHealth, transport: UpstreamTransport
    ) -> None:
        self.endpoint = endpoint
        self.upstream = upstream
        self.health = health
        self.transport = transport  # its own, so that checks and requests do not wait for each other
        self.is_stopped = False
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def host(self) -> bytes:
        """What is asked for: the most specific that anybody says."""
        endpoint = self.endpoint
        return endpoint.check_host or self.health.settings.host or endpoint.host or self.upstream.label.encode("ascii")


class HealthChecks:
    """All checks: follows snapshots, and ends with `close`. Single-threaded: used from the event loop only."""

    def __init__(
        self,
        *,
        registry: UpstreamRegistry,
        make_transport: Callable[[Endpoint], UpstreamTransport],
        draw: Callable[[], float] = random.random,
        max_concurrent: int = MAX_CONCURRENT_CHECKS,
    ) -> None:
        self._registry = registry
        self._make_transport = make_transport
        self._draw = draw
        self._max_concurrent = max_concurrent
        self._checks: dict[ActiveHealth, dict[str, _Check]] = {}  # by the endpoint's id
        self._wanted: dict[ActiveHealth, _Wanted] = {}
        self._routing: Routing | None = None
        self._membership: Membership = {}  # those parts of the newest that are checked
        self._due: deque[_Check] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.done: dict[Finding, int] = dict.fromkeys(Finding, 0)

    @property
    def running(self) -> int:
        """How many checks are under way."""
        return len(self._tasks)

    def states(self) -> Iterator[tuple[Upstream, EndpointHealth]]:
        """What is known of each endpoint that is checked."""
        for checks in self._checks.values():
            for item in checks.values():
                yield item.upstream, item.health

    def follow(self, snapshot: Snapshot) -> None:
        """Check what the rules of this snapshot want checked, and nothing else. The registry follows it before."""
        if self._is_closed:
            return
        is_same = snapshot.routing is self._routing
        if not is_same:
            self._routing = snapshot.routing
            self._wanted = _wanted(snapshot.routing)
        if not self._wanted and not self._checks:
            return
        before = self._membership
        self._membership = {
            backend_id: snapshot.membership.get(backend_id, ())
            for wanted in self._wanted.values()
            for backend_id in wanted.backends
        }
        if is_same and all(before.get(key) is endpoints for key, endpoints in self._membership.items()):
            return
        # What is new begins before what is over ends: its health may be known from there.
        kept = {settings: self._begin(settings, wanted.backends) for settings, wanted in self._wanted.items()}
        for settings, checks in list(self._checks.items()):
            for endpoint_id in [known for known in checks if known not in kept.get(settings, ())]:
                self._stop(checks.pop(endpoint_id))
            if not checks:
                del self._checks[settings]

    def _begin(self, settings: ActiveHealth, backends: Iterable[str]) -> set[str]:
        checks = self._checks.setdefault(settings, {})
        kept: set[str] = set()
        for backend_id in backends:
            for candidate in self._registry.candidates(backend_id, self._membership[backend_id]):
                endpoint, upstream = candidate.endpoint, candidate.upstream
                kept.add(endpoint.id)
                item = checks.get(endpoint.id)
                if item is not None:
                    item.endpoint = endpoint
                else:
                    checks[endpoint.id] = self._start(settings, endpoint, upstream)
        return kept

    def _start(self, settings: ActiveHealth, endpoint: Endpoint, upstream: Upstream) -> _Check:
        others = list(upstream.checks.values())
        has_answered = upstream.transport.activity.last_byte_at > 0
        is_healthy = all(other.is_healthy for other in others) if others else has_answered
        health = EndpointHealth(settings, is_healthy=is_healthy)
        asked = endpoint if settings.port is None else replace(endpoint, port=settings.port)
        item = _Check(endpoint=endpoint, upstream=upstream, health=health, transport=self._make_transport(asked))
        upstream.checks[settings] = health
        self._tell(item)
        delay = self._draw() * settings.initial_jitter_seconds
        item.timer = asyncio.get_running_loop().call_later(delay, self._ring, item)
        return item

    def _stop(self, item: _Check) -> None:
        item.is_stopped = True
        del item.upstream.checks[item.health.settings]
        self._tell(item)
        item.transport.close()
        if item.timer is not None:
            item.timer.cancel()
        if item.task is not None:
            item.task.cancel()

    def _ring(self, item: _Check) -> None:
        item.timer = None
        self._due.append(item)
        self._pump()

    def _pump(self) -> None:
        while self._due and len(self._tasks) < self._max_concurrent:
            item = self._due.popleft()
            if not item.is_stopped:
                item.task = asyncio.get_running_loop().create_task(self._run(item))
                self._tasks.add(item.task)
                item.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._is_closed:
            self._pump()

    async def _run(self, item: _Check) -> None:
        settings = item.health.settings
        try:
            self._note(item, await check(item.transport, settings, item.host))
        except Exception:
            # A defect must not end the checking of an endpoint for good.
            logger.exception("checking %s failed on a defect of the gateway", item.upstream.label)
        item.task = None
        if not item.is_stopped:
            item.timer = asyncio.get_running_loop().call_later(settings.interval_seconds, self._ring, item)

    def _note(self, item: _Check, result: Result) -> None:
        health, upstream = item.health, item.upstream
        self.done[result.finding] += 1
        was_pending = health.is_pending
        has_changed = health.note(result)
        if has_changed:
            self._tell(item)
        if has_changed or (was_pending and not health.is_healthy):
            logger.info("endpoint %s is %s", upstream.label, str(health))  # as it is now
        if result.finding is Finding.WELL and self._registry.tripped:
            for passive in self._wanted[health.settings].passive if health.settings in self._wanted else ():
                breaker = upstream.known_breaker(passive)
                if breaker is not None:
                    breaker.close()  # as in Envoy: who passes a check is not left out any longer

    def _tell(self, item: _Check) -> None:
        """Let the candidates be chosen without this endpoint, or with it again."""
        settings, failing = item.health.settings, self._registry.failing
        if not item.health.is_healthy and not item.is_stopped:
            failing.setdefault(settings, set()).add(item.upstream.id)
        elif settings in failing:
            failing[settings].discard(item.upstream.id)
            if not failing[settings]:
                del failing[settings]  # while it is empty nobody asks

    async def close(self) -> None:
        """End all checks, and wait for those that are under way. Safe to call twice."""
        self._is_closed = True
        for checks in self._checks.values():
            for item in checks.values():
                self._stop(item)
        self._checks.clear()
        self._due.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)


class _Wanted(NamedTuple):
    """What one setting is wanted for: backends, and the breakers beside it."""

    backends: dict[str, None]
    passive: set[PassiveHealth]


def _wanted(routing: Routing) -> dict[ActiveHealth, _Wanted]:
    found: dict[ActiveHealth, _Wanted] = {}
    for rule in routing.rules:
        settings = rule.policy.active_health
        if settings is None or rule.refusal is not None:
            continue
        wanted = found.setdefault(settings, _Wanted({}, set()))
        wanted.passive.add(rule.policy.passive_health)
        wanted.backends.update((ref.backend.id, None) for ref in rule.backend_refs if ref.backend is not None)
    return found
