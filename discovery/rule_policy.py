"""What do policies, and the route itself, say about the requests of one rule? Merged into one value at compile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from discovery.rate_limit import RateLimit


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


DEFAULT_POLICY = RulePolicy()
