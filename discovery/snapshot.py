"""What does a request route by? The compiled, immutable snapshot, and the store that swaps it.

A snapshot has two halves that change at different rates: *routing* (listeners, routes, rules, backends, policies: an
operator's edits) and *membership* (backend -> endpoints: every pod that comes and goes). Everything here is frozen and
prepared for the request path: header names are lower-case bytes, URLs are built, weights are summed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import httpx

from discovery.rate_limit import RateLimit

if TYPE_CHECKING:
    from discovery.routing_table import RoutingTable
    from discovery.status import ObjectStatus

RefusalReason = Literal["invalid_backend_ref", "invalid_policy", "unsupported_filter", "unsupported_policy"]

MIB = 1024 * 1024
DEFAULT_BODY_LIMIT = 50 * MIB
EXACT_RANK = 1_000  # of a hostname without a wildcard: above the length of any


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a rule, or one backendRef's share of it, is answered with 500 instead of being served."""

    reason: RefusalReason
    message: str  # for the operator; names objects and fields, never a credential


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """A header modifier filter, applied as Gateway API orders it: set, then add, then remove.

    Names are lower case. ``add`` appends with a comma to what is there.
    """

    set: tuple[tuple[bytes, bytes], ...] = ()
    add: tuple[tuple[bytes, bytes], ...] = ()
    remove: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceFullPath:
    """The whole path becomes ``path``; the query stays."""

    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacePrefix:
    """The path's leading elements ``prefix`` become ``replacement``; neither ends with a slash, ``b""`` is the root."""

    prefix: bytes
    replacement: bytes


PathRewrite = ReplaceFullPath | ReplacePrefix


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyMutation:
    """Members of a JSON object's top level that change on the way to a backend (AIGatewayRoute's bodyMutation)."""

    set: tuple[tuple[str, bytes], ...] = ()  # name and value, the value as JSON text
    remove: tuple[str, ...] = ()  # none that is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a rule or a backendRef changes in the request it forwards and in the answer it relays."""

    request_headers: HeaderMutation | None = None
    response_headers: HeaderMutation | None = None
    host: bytes | None = None
    path: PathRewrite | None = None
    body: BodyMutation | None = None  # of a backendRef only


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """A RequestRedirect filter. ``None`` keeps the request's own part (Gateway API HTTPRequestRedirectFilter)."""

    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    port: int | None = None
    path: PathRewrite | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class PassiveHealth:
    """When an endpoint's own failures take it out for a while (Envoy: outlier detection). Times in seconds.

    The defaults are ours where no policy says otherwise. 503 is no failure then: model servers say "busy" with it.
    """

    consecutive_failures: int | None = 5  # connect, reset, timeout, broken answer, 5xx; None: not looked at
    consecutive_gateway_errors: int | None = None  # of those, not the 5xx other than 502, 503 and 504
    counts_busy: bool = False  # whether 503 is a failure
    interval_seconds: float = 3.0  # a healthy interval takes one from the multiplier of the next ejection
    base_ejection_seconds: float = 30.0  # times the number of ejections so far
    max_ejection_seconds: float = 300.0
    max_ejection_percent: int = 100  # of the rule's endpoints
    panic_threshold_percent: int = 50  # with fewer of the rule's endpoints left than this, all are used


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveHealth:
    """How the endpoints of a rule are asked over HTTP whether they are well. Times in seconds, above 0."""

    timeout_seconds: float = 1.0  # of one check, connecting included
    interval_seconds: float = 3.0  # from the end of one to the start of the next
    initial_jitter_seconds: float = 0.0  # the first comes within this time
    unhealthy_threshold: int = 3  # failures of the network, or retriable statuses, in a row
    healthy_threshold: int = 1
    method: str = "GET"
    path: bytes
    host: bytes | None = None  # None: the endpoint's own
    statuses: frozenset[int] = frozenset({200})
    retriable_statuses: frozenset[int] = frozenset()
    expected: bytes = b""  # what the answer's first 1,024 bytes must contain
    port: int | None = None  # None: the endpoint's own


RetryTrigger = Literal[
    "5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "retriable-status-codes"
]  # those of Envoy's that HTTP/1.1 knows


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which failures before an answer's first byte are tried again, how often, and after how long. Times in seconds."""

    max_retries: int = 2
    attempts_per_priority: int | None = None  # then the next priority has its turn
    triggers: frozenset[RetryTrigger] = frozenset({"connect-failure", "retriable-status-codes"})
    statuses: frozenset[int] = frozenset({503})
    per_try_timeout_seconds: float | None = None  # of one attempt, until its answer starts
    backoff_base_seconds: float = 0.025
    backoff_max_seconds: float = 0.25
    backoff_min_seconds: float = 0.0  # on top of which the random part comes
    backs_off_always: bool = False  # a policy that sets a back-off wants it before other endpoints, too


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimits:
    """What one rule may have under way at once. ``None`` means no limit (Envoy Gateway's circuitBreaker)."""

    max_parallel_requests: int | None = None  # above it a request is refused at once
    max_connections: int | None = None  # above it requests wait, in order
    max_pending_requests: int = 1024  # so many of them; the next is refused
    max_parallel_retries: int | None = None
    retry_budget_share: float | None = None  # of the rule's requests in flight; overrides max_parallel_retries
    min_retry_concurrency: int = 3  # that the budget never goes below


NO_LIMITS = ConcurrencyLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistentHash:
    """What of a request decides its endpoint: the client's address, headers, a cookie or query parameters.

    ``names`` are lower case for headers, as written for the others; the values of several are taken together.
    """

    source: Literal["SourceIP", "Headers", "Cookie", "QueryParams"]
    names: tuple[bytes, ...] = ()
    cookie_max_age_seconds: int | None = None  # None: a client without the cookie gets none; 0: one for its session
    cookie_attributes: bytes = b""  # such as b"; Secure"


LoadBalancer = Literal["LeastRequest", "RoundRobin", "Random"] | ConsistentHash


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPersistence:
    """How a client is kept on its arm (Gateway API sessionPersistence, GEP-1619)."""

    kind: Literal["Cookie", "Header"]
    name: bytes  # of the cookie, or of the header in lower case
    path: bytes = b"/"  # of the cookie
    is_permanent: bool = False  # the cookie outlives the browser's session, for the absolute timeout
    absolute_timeout_seconds: float | None = None  # then the arm is drawn again


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjection:
    """Faults made for drills: so many percent of a rule's requests wait, and so many are answered with a status."""

    delay_seconds: float | None = None
    delay_percent: float = 100.0
    abort_status: int | None = None
    abort_percent: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePolicy:
    """Everything that policies and the route itself say about one rule, merged at compile. Times are in seconds.

    ``None`` means no limit. The defaults are those of docs/policies.md where no policy says otherwise.
    """

    request_timeout_seconds: float | None = None  # the whole exchange
    backend_request_timeout_seconds: float | None = None  # one attempt, until its answer starts
    first_byte_timeout_seconds: float = 3600.0
    stream_idle_timeout_seconds: float = 300.0  # between bytes, and while a client takes none
    connect_timeout_seconds: float = 2.0
    retry: RetryPolicy = RetryPolicy()
    limits: ConcurrencyLimits = NO_LIMITS
    passive_health: PassiveHealth = PassiveHealth()
    active_health: ActiveHealth | None = None
    load_balancer: LoadBalancer | None = None  # None: no policy says, and the backend's kind decides
    rate_limits: tuple[RateLimit, ...] = ()
    faults: FaultInjection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTLS:
    """How an endpoint is spoken to in TLS."""

    server_name: str  # who its certificate must be of; a host name is also sent as SNI, an IP address is not
    authorities: str | None = None  # certificates in PEM; None: the system's
    verifies: bool = True
    min_version: Literal["1.2", "1.3"] = "1.2"
    max_version: Literal["1.2", "1.3"] = "1.3"

    @property
    def fingerprint(self) -> str:
        """Tells settings apart without showing them."""
        text = f"{self.server_name}\n{self.verifies}\n{self.min_version}\n{self.max_version}\n{self.authorities or ''}"
        return hashlib.blake2b(text.encode("utf-8"), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a backend, as we were told about it.

    ``id`` is its identity over snapshots: pod uid (or namespace/name) and ip:port, or the Backend's address. Two
    backends that name the same address share the id, and with it connections and breaker. Its TLS settings are a part
    of it: where they change, nothing that was made with the old ones is used for a new request.
    """

    id: str
    address: str  # an IP literal without brackets, or a host name that is resolved at connect
    port: int  # 1..65535
    url: httpx.URL = field(compare=False)  # "http://address:port/", built once: building one costs 35 µs
    pod: str | None = None  # "namespace/name"
    engine: str | None = None  # whose metrics it has, by the pod's label: a name of discovery/model_servers/engines.py
    host: bytes | None = None  # Host sent instead of the client's (a Backend given by fqdn)
    # An AIServiceBackend's schema puts the API below another prefix: the first one that matches is replaced.
    path_rewrites: tuple[ReplacePrefix, ...] = ()
    tls: UpstreamTLS | None = None
    check_host: bytes | None = None  # what active health checks ask it for
    is_confined: bool = False  # named by an object of a cluster: must not lead into the gateway's own pod or node


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How an InferencePool's endpoints are picked, and which requests it sheds first."""

    fails_open: bool = True  # when nothing is known of its endpoints, any of them is picked
    by_load_alone: bool = False  # prompts are not looked at
    priorities: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by InferenceObjective's name
    model_priorities: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by InferenceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a backendRef resolves to. ``id`` is the key into the membership, such as "InferencePool/default/qwen"."""

    id: str
    kind: str
    namespace: str
    name: str
    pool: PoolSettings | None = field(default=None, hash=False)  # of an InferencePool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTarget:
    """A name that a backend is asked for, and its share."""

    name: str  # 1..256 characters, none of them a control character
    weight: int = 1  # 0..1,000,000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTargets:
    """The names that one client's name stands for: one of them is drawn for each request."""

    targets: tuple[ModelTarget, ...]
    total_weight: int  # at least 1
    source: str  # the object that says so, for people: "InferenceModel default/food-review"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRewrites:
    """Which model a backend is asked for in place of the one that the client names. An exact name comes first."""

    by_model: Mapping[str, ModelTargets] = field(default_factory=lambda: MappingProxyType({}))
    generic: ModelTargets | None = None  # for every other name


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
    policy: RulePolicy = RulePolicy()
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


def hostname_rank(pattern: str | None, host: str) -> int:
    """How specifically a listener's or route's hostname matches a host: -1 not at all, else more is more specific.

    An exact name beats every wildcard; among wildcards the longer wins; None matches everything, least specifically.
    "*.example.com" stands for one or more labels, never for the apex.
    """
    if pattern is None:
        return 0
    if pattern.startswith("*."):
        return len(pattern) if host.endswith(pattern[1:]) and len(host) > len(pattern) - 1 else -1
    return EXACT_RANK if host == pattern else -1


Membership = Mapping[str, tuple[Endpoint, ...]]  # backend id -> endpoints that take new requests


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
