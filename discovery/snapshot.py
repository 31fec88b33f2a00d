"""What does a request route by? The compiled, immutable snapshot, and the store that swaps it.

A snapshot has two halves that change at different rates: *routing* (listeners, routes, rules, backends, policies: an
operator's edits) and *membership* (backend -> endpoints: every pod that comes and goes). Everything here is frozen and
prepared for the request path: header names are lower-case bytes, URLs are built, weights are summed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from discovery.backend import Backend, Membership
from discovery.filters import NO_FILTERS, Filters, ModelRewrites, Redirect
from discovery.hostnames import hostname_rank
from discovery.rule_policy import DEFAULT_POLICY, RulePolicy, SessionPersistence

if TYPE_CHECKING:
    from discovery.routing_table import RoutingTable
    from discovery.status import ObjectStatus

RefusalReason = Literal["invalid_backend_ref", "invalid_policy", "unsupported_filter", "unsupported_policy"]

MIB = 1024 * 1024
DEFAULT_BODY_LIMIT = 50 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a rule, or one backendRef's share of it, is answered with 500 instead of being served."""

    reason: RefusalReason
    message: str  # for the operator; names objects and fields, never a credential


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRef:
    """One backendRef of a rule: its share of the weight, and either a backend or the reason why there is none."""

    name: str  # "namespace/name", the value of the metric label `backend`
    weight: int  # 0..1,000,000
    backend: Backend | None = None
    refusal: Refusal | None = None
    filters: Filters = NO_FILTERS
    priority: int = 0  # a lower one is preferred; the next has its turn when none of its endpoints may be tried
    model_rewrites: ModelRewrites | None = None
    twin: int = 0  # how many of the rule's backendRefs before it have the same backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A RequestMirror filter: copies of so many of ``denominator`` requests go to the backend, answers are dropped."""

    name: str  # "namespace/name", the value of the metric label `backend`
    backend: Backend
    numerator: int = 100  # 0..denominator
    denominator: int = 100
    model_rewrites: ModelRewrites | None = None  # the mirror's own, whatever the primary's are


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a route, compiled."""

    id: str  # unique in a snapshot and stable over reloads: "HTTPRoute/default/llm/0"
    route: str  # "namespace/name"
    route_kind: str  # HTTPRoute or AIGatewayRoute
    name: str  # the rule's own name, else its index
    backend_refs: tuple[BackendRef, ...] = ()
    total_weight: int = 0  # of all priorities
    levels: tuple[tuple[BackendRef, ...], ...] = ()  # by priority; () where all have the same
    filters: Filters = NO_FILTERS
    redirect: Redirect | None = None
    mirrors: tuple[Mirror, ...] = ()  # those whose backend exists
    policy: RulePolicy = DEFAULT_POLICY
    session: SessionPersistence | None = None
    refusal: Refusal | None = None  # set: the whole rule is answered with it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """An entry of /v1/models."""

    id: str
    created: int  # unix seconds
    owned_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listener of a Gateway that we serve, or the one implicit listener where the files hold no Gateway."""

    name: str  # "namespace/gateway/listener"; "" for the implicit one
    hostname: str | None  # lower case; may start with "*."; None takes every host
    port: int | None  # as in the Gateway; None for the implicit one
    table: RoutingTable
    body_limit: int = DEFAULT_BODY_LIMIT  # bytes
    tells_rate_limits: bool = True  # in x-ratelimit-* headers
    models_path_rules: frozenset[str] = frozenset()  # ids of rules that name /v1/models exactly: they win over our list


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Listeners with their rules, and what became of each object."""

    listeners: tuple[Listener, ...] = ()
    backends: Mapping[str, Backend] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[Rule, ...] = ()
    model_names: frozenset[str] = frozenset()  # every name that a rule, an InferenceModel or an adapter map configures
    base_models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # of adapters and of bases
    statuses: tuple[ObjectStatus, ...] = ()
    inputs: object = field(default=None, compare=False, repr=False)  # what it was compiled from, to know it again

    def select_listener(self, host: str, port: int | None = None) -> Listener | None:
        """The most specific listener for a lower-case host without port (Gateway API listener isolation).

        ``port`` is the one that the request came in on, where each listener has its own
        (`--listen-on-gateway-ports`); None: all listeners share one port and are told apart by hostname.
        """
        best: Listener | None = None
        best_rank = -1
        for listener in self.listeners:
            if port is not None and listener.port is not None and listener.port != port:
                continue
            rank = hostname_rank(listener.hostname, host)
            if rank > best_rank:
                best, best_rank = listener, rank
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole world at one moment. A request reads it once and keeps it."""

    version: int
    routing: Routing
    membership: Membership


class SnapshotStore:
    """Holds the current snapshot. Publishing is one assignment; subscribers are told afterwards, in the same step.

    Single-threaded: used from the event loop only, so there is no lock.
    """

    def __init__(self) -> None:
        self._current = Snapshot(version=0, routing=Routing(), membership=MappingProxyType({}))
        self._published = asyncio.Event()
        self._subscribers: list[Callable[[Snapshot], None]] = []

    @property
    def current(self) -> Snapshot:
        """The last published snapshot; an empty one of version 0 before the first."""
        return self._current

    @property
    def is_ready(self) -> bool:
        """Whether a snapshot was ever published."""
        return self._published.is_set()

    def publish(self, routing: Routing, membership: Membership) -> Snapshot:
        """Make a new snapshot current and tell the subscribers."""
        snapshot = Snapshot(version=self._current.version + 1, routing=routing, membership=membership)
        self._current = snapshot
        self._published.set()
        for tell in self._subscribers:
            tell(snapshot)
        return snapshot

    def subscribe(self, tell: Callable[[Snapshot], None]) -> None:
        """Call ``tell`` with each snapshot published from here on. It must not raise and must not block."""
        self._subscribers.append(tell)

    async def wait_ready(self) -> Snapshot:
        """Wait until a snapshot was published."""
        await self._published.wait()
        return self._current
