"""Which upstreams are there? Endpoints as this process experiences them; they outlive snapshots."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from discovery.backend import Endpoint, Membership
from discovery.rule_policy import ActiveHealth, PassiveHealth
from discovery.snapshot import BackendRef, Routing, Rule, Snapshot
from middleware.scheduling.load import Load
from middleware.upstream.absent_pods import AbsentPods
from middleware.upstream.breaker import Breaker, State
from middleware.upstream.transport import UpstreamTransport

if TYPE_CHECKING:
    from middleware.upstream.endpoint_health import EndpointHealth

logger = logging.getLogger(__name__)

DELETED_POD_SILENCE_SECONDS = 5.0


class Upstream:
    """One endpoint as we experience it: what is in flight there, how busy it is, its breakers and the connections
    open to it."""

    __slots__ = (
        "_breakers",
        "_clock",
        "_last_breaker",
        "_last_settings",
        "_on_change",
        "_on_refused",
        "_wanted",
        "checks",
        "ejections",
        "id",
        "in_flight",
        "label",
        "load",
        "on_idle",
        "transport",
    )

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        transport: UpstreamTransport,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Upstream, Breaker, State, State], None] = lambda upstream, breaker, old, new: None,
        on_refused: Callable[[str], None] = lambda endpoint_id: None,
    ) -> None:
        self.id = endpoint.id
        self.label = f"{endpoint.address}:{endpoint.port}"
        self.transport = transport
        self.in_flight = 0
        self.load = Load()
        self.ejections = 0  # how often one of its breakers has tripped
        self.on_idle: Callable[[Upstream], None] | None = None  # set once no snapshot names it any more
        self._clock = clock
        self._on_change = on_change
        self._on_refused = on_refused if endpoint.pod is not None else None
        self._breakers: dict[PassiveHealth, Breaker] = {}
        self._wanted: Set[PassiveHealth] | None = None  # settings that a rule has; None: not known yet
        self._last_settings: PassiveHealth | None = None
        self._last_breaker: Breaker
        self.checks: dict[ActiveHealth, EndpointHealth] = {}  # what they say of it; health_check.py keeps them

    def begin(self) -> None:
        """An attempt starts here."""
        self.in_flight += 1
        self.load.begin()

    def end(self) -> None:
        """An attempt is over."""
        self.in_flight -= 1
        self.load.end()
        if self.on_idle is not None and not self.in_flight:
            self.on_idle(self)

    def note_refused(self) -> None:
        """No connection could be made: a pod may be gone."""
        if self._on_refused is not None:
            self._on_refused(self.id)

    def breaker(self, settings: PassiveHealth) -> Breaker:
        """The breaker for these settings; rules with equal settings share it."""
        if settings is self._last_settings:  # hashing them costs more than all else here
            return self._last_breaker
        breaker = self._breakers.get(settings)
        if breaker is None and self._wanted is not None and settings not in self._wanted:
            breaker = Breaker(settings, clock=self._clock)  # for a request of an older snapshot, and known to nobody
        elif breaker is None:
            breaker = Breaker(
                settings,
                clock=self._clock,
                on_change=lambda breaker, old, new: self._on_change(self, breaker, old, new),
            )
            self._breakers[settings] = breaker
        self._last_settings, self._last_breaker = settings, breaker
        return breaker

    def known_breaker(self, settings: PassiveHealth) -> Breaker | None:
        """The breaker for these settings, if any attempt has needed it yet."""
        return self._breakers.get(settings)

    def keep_breakers(self, wanted: Set[PassiveHealth]) -> list[Breaker]:
        """Forget the breakers of settings that no rule has any more, and tell which these were."""
        self._wanted, self._last_settings = wanted, None
        return [self._breakers.pop(settings) for settings in self._breakers.keys() - wanted]

    @property
    def breakers(self) -> Iterable[Breaker]:
        """All of them."""
        return self._breakers.values()


@dataclass(slots=True, eq=False)
class Candidate:
    """An endpoint that may be picked now, with our experience of it."""

    endpoint: Endpoint
    upstream: Upstream


@dataclass(slots=True, eq=False)
class Pick:
    """Where the next attempt goes, and the backendRef that says what changes in the request on the way."""

    backend_ref: BackendRef
    endpoint: Endpoint
    upstream: Upstream


class UpstreamRegistry:
    """Keeps one Upstream per endpoint id, made at first sight and dropped when no snapshot names it and nothing runs
    there.

    Single-threaded: used from the event loop only.
    """

    def __init__(
        self,
        *,
        make_transport: Callable[[Endpoint], UpstreamTransport],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_transport = make_transport
        self._clock = clock
        # Breakers that are not closed, by their settings and the endpoint's id: nobody asks the others.
        self.tripped: dict[PassiveHealth, dict[str, Breaker]] = {}
        # Ids of the endpoints that active checks leave out, by what they are checked with: the same.
        self.failing: dict[ActiveHealth, set[str]] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._leaving: dict[str, Upstream] = {}  # no longer named, still with requests in flight
        self._membership: Membership | None = None  # of the newest snapshot
        self._routing: Routing | None = None  # of the newest snapshot
        self._ended_pods: set[str] = set()
        self.absent = AbsentPods(clock=clock)
        self._candidates: dict[str, tuple[tuple[Endpoint, ...], tuple[Candidate, ...]]] = {}
        self._levels: dict[str, tuple[Rule, Membership, tuple[frozenset[str], ...]]] = {}  # by the rule's id

    def __iter__(self) -> Iterator[Upstream]:
        yield from self._upstreams.values()
        yield from self._leaving.values()

    def candidates(self, backend_id: str, endpoints: tuple[Endpoint, ...]) -> tuple[Candidate, ...]:
        """The backend's endpoints with their upstreams. Kept for as long as the membership's tuple is the same."""
        cached = self._candidates.get(backend_id)
        if cached is not None and cached[0] is endpoints:
            return cached[1]
        candidates = tuple(Candidate(endpoint, self.upstream(endpoint)) for endpoint in endpoints)
        if self._membership is None or self._membership.get(backend_id) is endpoints:
            self._candidates[backend_id] = (
                endpoints,
                candidates,
            )  # a request of an older snapshot must not displace it
        return candidates

    def levels_of(self, rule: Rule, membership: Membership) -> tuple[frozenset[str], ...]:
        """The ids of the rule's endpoints by priority, without those of weight 0, which can take nothing over.

        Kept until the next snapshot, for rules that were asked for.
        """
        cached = self._levels.get(rule.id)
        if cached is not None and cached[0] is rule and cached[1] is membership:
            return cached[2]
        levels = tuple(
            frozenset(
                endpoint.id
                for ref in level
                if ref.backend is not None and ref.weight
                for endpoint in membership.get(ref.backend.id, ())
            )
            for level in rule.levels or (rule.backend_refs,)
        )
        if membership is self._membership:
            self._levels[rule.id] = (rule, membership, levels)
        return levels

    def upstream(self, endpoint: Endpoint) -> Upstream:
        """The experience of an endpoint, made at first sight."""
        upstream = self._upstreams.get(endpoint.id) or self._leaving.get(endpoint.id)
        if upstream is None:
            upstream = Upstream(
                endpoint=endpoint,
                transport=self._make_transport(endpoint),
                clock=self._clock,
                on_change=self._note_change,
                on_refused=self.absent.note,
            )
            self._upstreams[endpoint.id] = upstream
        return upstream

    def _note_change(self, upstream: Upstream, breaker: Breaker, old: State, new: State) -> None:
        if new is State.CLOSED:
            self._forget(upstream, breaker)
        else:
            self.tripped.setdefault(breaker.settings, {})[upstream.id] = breaker
        upstream.ejections += new is State.OPEN
        logger.info("breaker of %s: %s -> %s", upstream.label, old.value, new.value)

    def follow(self, snapshot: Snapshot) -> None:
        """Forget what this snapshot no longer names. Running requests keep their upstream until they end."""
        self._membership = snapshot.membership
        self._levels.clear()
        if snapshot.routing is not self._routing:
            self._routing = snapshot.routing
            self._drop_breakers(snapshot.routing)
        named = {endpoint.id for endpoints in snapshot.membership.values() for endpoint in endpoints}
        for backend_id, (endpoints, _) in list(self._candidates.items()):
            if snapshot.membership.get(backend_id) is not endpoints:
                del self._candidates[backend_id]
        for endpoint_id in [known for known in self._leaving if known in named]:
            upstream = self._upstreams[endpoint_id] = self._leaving.pop(endpoint_id)
            upstream.on_idle = None
            upstream.load.is_gone = False
        for endpoint_id in [known for known in self._upstreams if known not in named]:
            upstream = self._leaving[endpoint_id] = self._upstreams.pop(endpoint_id)
            upstream.load.is_gone = True
            upstream.transport.close_idle()
            upstream.on_idle = self._drop
            if not upstream.in_flight:
                self._drop(upstream)

    def _drop_breakers(self, routing: Routing) -> None:
        """An open breaker that nobody asks would never close, and make every request look at all endpoints' own."""
        policies = {id(rule.policy): rule.policy for rule in routing.rules}  # few: hashing settings is not cheap
        wanted = {policy.passive_health for policy in policies.values()}
        for upstream in self:
            for breaker in upstream.keep_breakers(wanted):
                self._forget(upstream, breaker)

    def _forget(self, upstream: Upstream, breaker: Breaker) -> None:
        """This breaker is closed, or gone."""
        tripped = self.tripped.get(breaker.settings, {})
        tripped.pop(upstream.id, None)
        if not tripped:
            self.tripped.pop(breaker.settings, None)

    def end_streams_of(self, pods: Collection[str]) -> None:
        """These pods (by uid, else namespace/name) were deleted: their answers end as broken after 5 s without a byte.

        Model servers leave their clients hanging for minutes when they are told to stop. Safe to call again.
        """
        if not pods:
            return
        for upstream in self:
            identity = upstream.id.rpartition("/")[0]
            if identity and identity in pods and identity not in self._ended_pods:
                self._ended_pods.add(identity)
                upstream.transport.limit_silence(DELETED_POD_SILENCE_SECONDS)
        self._ended_pods.intersection_update(pods)

    def _drop(self, upstream: Upstream) -> None:
        if self._leaving.pop(upstream.id, None) is not None:
            for breaker in upstream.breakers:
                self._forget(upstream, breaker)
            upstream.transport.close()

    def close(self) -> None:
        """Close every idle connection; connections in use close when their exchange ends."""
        for upstream in self:
            upstream.transport.close()
