"""How does the gateway know how busy each pod is? Asks the endpoints of the pools in use for their metrics, for ever.

Every endpoint has its own rhythm, connection and time limit, so that one that hangs delays nobody: 50 ms apart while
its pool has traffic, 1 s while it has none, ±10 % so that pods are not asked in step. With many endpoints all are asked
less often, so that asking never takes more than a share of the core. What is known goes into the upstream's Load.

A reading is no task: what is due is asked on the connection that waits for it, and the answer is looked at as it comes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import random
import time
from collections.abc import Callable
from functools import partial

import httpx

from discovery.backend import Endpoint
from discovery.model_servers.exposition import Places
from discovery.model_servers.server_load import UnusableMetricsError
from discovery.snapshot import Routing, Snapshot
from middleware.scheduling.load import SILENCE_SECONDS, Knowledge
from middleware.upstream.agenda import PAUSE_SECONDS, Agenda
from middleware.upstream.connection import UpstreamConnection
from middleware.upstream.metrics_answer import MAX_METRICS_BYTES, UnreadableError, read_answer
from middleware.upstream.registry import Upstream, UpstreamRegistry
from middleware.upstream.transport import IDLE_EXPIRY_SECONDS, Answer, UpstreamTransport

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
# While nothing has traffic: looking at 1,000 endpoints twenty times a second takes 2 % of a core.
IDLE_TICK_SECONDS = 1.0
IDLE_PAUSE_SECONDS = 0.2  # while nothing has traffic several are asked together: waking up costs more than asking
BUSY_INTERVAL_SECONDS = 0.05
IDLE_INTERVAL_SECONDS = 1.0
BARE_INTERVAL_SECONDS = 10.0  # of an endpoint that answers and has no metrics: it will hardly get any
MAX_READINGS_PER_SECOND = 500  # of all endpoints together
MAX_IDLE_READINGS_PER_SECOND = 50  # while they are idle
MAX_IDLE_CONNECTIONS_PER_SECOND = 20  # the same of more than 200: no server keeps a connection until the next reading
BUSY_SECONDS = 2.0  # after its last request a pool still counts as busy
TIMEOUT_SECONDS = 1.0  # of one reading, connecting included
STALE_SECONDS = 2.0
PATIENT_FAILURES = 3  # from so many on, one after the other, an endpoint is asked less often
PATIENT_INTERVAL_SECONDS = 5.0
MAX_PATIENT_INTERVAL_SECONDS = 30.0  # while its pool has no traffic either


class _Target:
    """One endpoint that is asked."""

    __slots__ = (
        "asking",
        "engine",
        "failures",
        "head",
        "idle_at",
        "interval",
        "is_busy",
        "is_used",
        "jitter",
        "mark",
        "places",
        "pools",
        "started_at",
        "task",
        "transport",
        "upstream",
    )

    def __init__(self, endpoint: Endpoint, upstream: Upstream, transport: UpstreamTransport, now: float) -> None:
        self.upstream = upstream
        self.transport = transport
        self.engine = endpoint.engine
        self.places = Places()
        self.head = b" HTTP/1.1\r\nhost: %b\r\naccept: text/plain\r\naccept-encoding: identity\r\n\r\n" % (
            endpoint.url.netloc
        )
        self.pools: frozenset[str] = frozenset()  # ids of those that it is in
        self.is_used = False  # one of them has traffic
        self.is_busy = False  # it is asked often
        self.failures = 0  # one after the other
        self.idle_at = now  # when it last had nothing of ours to do; the loop's time
        # Of the last reading, or the one that is under way.
        self.started_at = -math.inf
        self.interval = 0.0  # from it to the next
        self.jitter = 1.0
        self.mark = 0
        self.task: asyncio.Task[None] | None = None  # while it is being connected to
        self.asking: UpstreamConnection | None = None  # while it is to answer


class MetricsScraper:
    """Keeps the Load of every endpoint of the pools in use up to date, from ``follow`` to ``close``.

    Single-threaded; its tasks are its own and end with it.
    """

    def __init__(
        self,
        *,
        registry: UpstreamRegistry,
        make_transport: Callable[[Endpoint], UpstreamTransport],
        silence_limit_seconds: float = SILENCE_SECONDS,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = b"/metrics"
        self._registry = registry
        self._make_transport = make_transport
        self.silence_limit_seconds = silence_limit_seconds
        self._draw = draw
        self._clock = clock
        self._targets: dict[str, _Target] = {}  # by the endpoint's id
        self._agenda = Agenda(self._start)
        self._routing: Routing | None = None
        self._pools: frozenset[str] = frozenset()  # that rules use
        self._members: dict[str, tuple[Endpoint, ...]] = {}  # of these pools
        self._used_at: dict[str, float] = {}  # pool -> when a request was last sent there
        self._ending: set[asyncio.Task[None]] = set()  # connecting to endpoints that are gone
        self._timer: asyncio.Handle | None = None
        self._is_resting = False  # nothing has traffic
        self._busy = 0  # how many endpoints were busy at the last look
        self._settled_at = -math.inf  # when each endpoint has been asked once
        self._is_closed = False

    def __len__(self) -> int:
        """How many endpoints are asked."""
        return len(self._targets)

    def follow(self, snapshot: Snapshot) -> None:
        """Ask the endpoints of the pools that this snapshot's rules use, from now on and no others."""
        if self._is_closed:
            return
        loop = asyncio.get_running_loop()
        if snapshot.routing is not self._routing:
            self._routing, self._pools = snapshot.routing, _pools_used(snapshot.routing)
        before = self._members
        # Most snapshots differ in some pods: pools whose endpoints are the same tuple are not looked at.
        self._members = {pool_id: snapshot.membership.get(pool_id, ()) for pool_id in self._pools}
        new: list[_Target] = []
        for pool_id, endpoints in self._members.items():
            if before.get(pool_id) is not endpoints:
                self._used_at.setdefault(pool_id, -math.inf)
                for endpoint in endpoints:
                    self._join(endpoint, pool_id, new)
        for pool_id, endpoints in before.items():
            after = self._members.get(pool_id)
            if after is not endpoints:
                named = {endpoint.id for endpoint in after or ()}
                for endpoint in endpoints:
                    if endpoint.id not in named:
                        self._leave(endpoint.id, pool_id)
                if after is None:
                    del self._used_at[pool_id]
        if new:  # a thousand at once would hold up the streams
            within = len(new) / MAX_READINGS_PER_SECOND
            self._agenda.pause_seconds = PAUSE_SECONDS
            for target in new:
                self._agenda.put(target, self._draw() * within)
            self._settled_at = self._clock() + within
        if self._targets and self._timer is None:
            self._timer = loop.call_later(TICK_SECONDS, self._look)

    def _join(self, endpoint: Endpoint, pool_id: str, new: list[_Target]) -> None:
        upstream = self._registry.upstream(endpoint)
        target = self._targets.get(endpoint.id)
        if target is None and not _is_ip_address(endpoint.address):
            # What a name in the DNS stands for may be several servers, and what one of them says is not true of the
            # next: it is not asked, and known by what is sent there.
            load = upstream.load
            load.read_nothing(mark=load.mark(), at=self._clock(), interval_seconds=0.0)
            return
        if target is None or target.upstream is not upstream:
            now = asyncio.get_running_loop().time()
            made = _Target(endpoint, upstream, self._make_transport(endpoint), now)
            if target is not None:
                made.pools = target.pools
                self._drop(target)
            target = self._targets[endpoint.id] = made
            new.append(target)
        elif endpoint.engine is not None:
            target.engine = endpoint.engine
        target.pools |= {pool_id}

    def _leave(self, endpoint_id: str, pool_id: str) -> None:
        target = self._targets.get(endpoint_id)
        if target is not None:
            target.pools -= {pool_id}
            if not target.pools:
                self._drop(self._targets.pop(endpoint_id))

    def touch(self, pool_id: str) -> None:
        """A request goes to this pool: its endpoints are asked more often for a while."""
        if pool_id in self._used_at:
            self._used_at[pool_id] = self._clock()
            if self._is_resting and self._timer is not None:
                self._is_resting = False
                self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_soon(self._look)

    async def close(self) -> None:
        """End every reading. Safe to call twice."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for target in self._targets.values():
            self._drop(target)
        self._targets.clear()
        self._agenda.clear()
        if self._ending:
            await asyncio.wait(self._ending)

    def _drop(self, target: _Target) -> None:
        self._agenda.remove(target)
        target.transport.close()
        if target.asking is not None:
            target.asking.abort()
        if target.task is not None:
            self._ending.add(target.task)
            target.task.add_done_callback(self._ending.discard)
            target.task.cancel()

    def _look(self) -> None:
        """Every 50 ms: who has become silent, stale or busy?"""
        loop = asyncio.get_running_loop()
        now, loop_now = self._clock(), loop.time()
        busy_since = now - BUSY_SECONDS
        busy_pools = {pool_id for pool_id, used_at in self._used_at.items() if used_at > busy_since}
        awakened: list[_Target] = []
        self._busy = 0
        for target in self._targets.values():
            load = target.upstream.load
            if load.in_flight:
                since = max(target.idle_at, target.upstream.transport.activity.last_byte_at)
                load.look_at_silence(loop_now - since, limit_seconds=self.silence_limit_seconds)
            else:
                target.idle_at = loop_now
                if load.is_silent:
                    load.look_at_silence(0.0)
            if now - load.read_at > STALE_SECONDS:
                load.look_at_age(now, limit_seconds=STALE_SECONDS)
            is_used = load.in_flight > 0 or not busy_pools.isdisjoint(target.pools)
            is_asked_often = target.failures < PATIENT_FAILURES and load.knowledge is not Knowledge.NONE
            is_busy = is_asked_often and (is_used or load.waiting + load.running > 0)
            if is_busy > target.is_busy or (is_used > target.is_used and load.knowledge is not Knowledge.NONE):
                awakened.append(target)
            target.is_used, target.is_busy = is_used, is_busy
            self._busy += is_busy
        self._is_resting = not self._busy and not busy_pools
        is_calm = self._is_resting and now > self._settled_at
        self._agenda.pause_seconds = IDLE_PAUSE_SECONDS if is_calm else PAUSE_SECONDS
        for target in awakened:  # not all at once: a pool of hundreds would hold up the loop
            self._agenda.hasten(target, self._draw() * self._interval(target))
        delay = IDLE_TICK_SECONDS if self._is_resting else TICK_SECONDS
        self._timer = loop.call_later(delay, self._look) if self._targets else None

    def _interval(self, target: _Target) -> float:
        if target.upstream.load.knowledge is Knowledge.NONE:
            return BARE_INTERVAL_SECONDS
        if target.is_busy:
            return max(BUSY_INTERVAL_SECONDS, self._busy / MAX_READINGS_PER_SECOND)
        return idle_interval(target.failures, has_traffic=target.is_used, endpoints=len(self._targets))

    def _start(self, target: _Target) -> None:
        """Ask it now: its time has come."""
        target.interval = self._interval(target)
        target.jitter = 0.9 + 0.2 * self._draw()
        if target.started_at == -math.inf and target.interval > IDLE_INTERVAL_SECONDS:
            # Hundreds were asked for the first time just now: they are not to be asked in waves from here on.
            target.jitter = self._draw()
        target.started_at = self._clock()
        target.mark = target.upstream.load.mark()
        if not self._ask(target, TIMEOUT_SECONDS):
            target.task = asyncio.get_running_loop().create_task(self._connect(target))

    def _ask(self, target: _Target, limit_seconds: float) -> bool:
        target.asking = target.transport.ask(
            b"GET " + self.path + target.head,
            limit_seconds=limit_seconds,
            limit_bytes=MAX_METRICS_BYTES,
            is_last=target.interval > IDLE_EXPIRY_SECONDS,
            on_answer=partial(self._answered, target),
        )
        return target.asking is not None

    async def _connect(self, target: _Target) -> None:
        error: Exception | None = None
        try:
            await target.transport.connect(timeout_seconds=TIMEOUT_SECONDS)
            if not self._ask(target, max(0.0, target.started_at + TIMEOUT_SECONDS - self._clock())):
                error = httpx.ConnectError("the connection ended before it was used")
        except Exception as raised:
            error = raised
        target.task = None
        if error is not None:
            self._answered(target, error)

    def _answered(self, target: _Target, answer: Answer | Exception) -> None:
        """Take in what came, and ask again an interval after it was asked; at once if that is over."""
        target.asking = None
        load = target.upstream.load
        before = load.knowledge
        try:
            if isinstance(answer, Exception):
                raise answer
            reading, target.engine = read_answer(answer, target.engine, target.places)
            if reading is None:
                load.read_nothing(mark=target.mark, at=target.started_at, interval_seconds=target.interval)
            else:
                load.read(reading, mark=target.mark, at=target.started_at, interval_seconds=target.interval)
            target.failures = 0
        except (UnreadableError, UnusableMetricsError, httpx.TransportError) as error:
            target.failures += 1
            is_unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            load.failed(str(error), interval_seconds=self._interval(target), is_unreachable=is_unreachable)
        except Exception:
            # A defect of ours must not end the asking for good.
            target.failures += 1
            load.failed("the gateway failed; its log has the details", interval_seconds=self._interval(target))
            logger.exception("reading the metrics of %s failed", target.upstream.label)
        self._agenda.put(target, self._until_due(target))
        _tell(target, before)

    def _until_due(self, target: _Target) -> float:
        return max(0.0, target.started_at + self._interval(target) * target.jitter - self._clock())


def idle_interval(failures: int, *, has_traffic: bool, endpoints: int) -> float:
    """Seconds between two readings of an endpoint that is not asked often. The last ``failures`` of them failed; one
    that comes back while its pool has traffic is known again after 5 s. All ``endpoints`` share what asking may take.
    """
    shared = endpoints / MAX_IDLE_READINGS_PER_SECOND
    if shared > IDLE_EXPIRY_SECONDS:
        shared = endpoints / MAX_IDLE_CONNECTIONS_PER_SECOND
    if failures < PATIENT_FAILURES:
        return max(shared, IDLE_INTERVAL_SECONDS)
    if has_traffic:
        return max(shared, PATIENT_INTERVAL_SECONDS)
    doubled = 1 << min(failures - PATIENT_FAILURES, 10)
    return max(shared, min(PATIENT_INTERVAL_SECONDS * doubled, MAX_PATIENT_INTERVAL_SECONDS))


def _pools_used(routing: Routing) -> frozenset[str]:
    """The ids of the pools that rules use."""
    return frozenset(
        ref.backend.id
        for rule in routing.rules
        for ref in rule.backend_refs
        if ref.backend is not None and ref.backend.kind == "InferencePool"
    )


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _tell(target: _Target, before: Knowledge) -> None:
    """Log what changed. That a reading grew stale is told with the failure that made it so."""
    load, label = target.upstream.load, target.upstream.label
    if load.last_failure:
        if target.failures == PATIENT_FAILURES:
            logger.warning("metrics of %s cannot be read: %s", label, load.last_failure)
    elif load.knowledge is Knowledge.NONE and before is not Knowledge.NONE:
        logger.info("%s has no metrics: it is picked by what this gateway sends there", label)
    elif before is Knowledge.STALE:
        logger.info("metrics of %s are read again", label)
