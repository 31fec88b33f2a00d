"""Backend, ClientTrafficPolicy, BackendTrafficPolicy of gateway.envoyproxy.io: what of them is implemented."""

from __future__ import annotations

from typing import Literal

import msgspec

from discovery.resources.meta import Model, PolicySpec, Resource


class FQDN(Model, frozen=True, kw_only=True):
    hostname: str
    port: int


class IP(Model, frozen=True, kw_only=True):
    address: str
    port: int


class Unix(Model, frozen=True, kw_only=True):
    path: str


class BackendEndpoint(Model, frozen=True, kw_only=True):
    """Exactly one of the three is set (checked when decoded)."""

    fqdn: FQDN | None = None
    ip: IP | None = None
    unix: Unix | None = None


class BackendSpec(Model, frozen=True, kw_only=True):
    type: str = "Endpoints"
    endpoints: tuple[BackendEndpoint, ...] = ()
    app_protocols: tuple[str, ...] = ()
    tls: dict[str, object] | None = None
    fallback: bool = False


class Backend(Resource, frozen=True, kw_only=True):
    spec: BackendSpec = BackendSpec()


class ClientConnection(Model, frozen=True, kw_only=True):
    buffer_limit: int | str | None = None


class ClientTrafficPolicySpec(PolicySpec, frozen=True, kw_only=True):
    connection: ClientConnection = ClientConnection()


class ClientTrafficPolicy(Resource, frozen=True, kw_only=True):
    spec: ClientTrafficPolicySpec
    # Fields that we do not implement and without which we would accept more than the policy says.
    restrictions: tuple[str, ...] = ()


class HTTPTimeout(Model, frozen=True, kw_only=True):
    request_timeout: str | None = None
    stream_idle_timeout: str | None = None


class TCPTimeout(Model, frozen=True, kw_only=True):
    connect_timeout: str | None = None


class Timeout(Model, frozen=True, kw_only=True):
    http: HTTPTimeout = HTTPTimeout()
    tcp: TCPTimeout = TCPTimeout()


class Fraction(Model, frozen=True, kw_only=True):
    numerator: int
    denominator: int = 100


class RetryBudget(Model, frozen=True, kw_only=True):
    percent: Fraction
    min_retry_concurrency: int | None = None


class CircuitBreaker(Model, frozen=True, kw_only=True):
    """None is what a file leaves out: no limit. An API server fills in 1024."""

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_parallel_requests: int | None = None
    max_parallel_retries: int | None = None
    retry_budget: RetryBudget | None = None


class RetryOn(Model, frozen=True, kw_only=True):
    triggers: tuple[str, ...] | None = None
    http_status_codes: tuple[int, ...] | None = None


class BackOff(Model, frozen=True, kw_only=True):
    base_interval: str | None = None
    max_interval: str | None = None


class PerRetry(Model, frozen=True, kw_only=True):
    timeout: str | None = None
    back_off: BackOff | None = None


class Retry(Model, frozen=True, kw_only=True):
    num_retries: int = 2
    num_attempts_per_priority: int | None = None
    retry_on: RetryOn | None = None
    per_retry: PerRetry = PerRetry()


class PassiveHealthCheck(Model, frozen=True, kw_only=True):
    consecutive_5xx_errors: int = msgspec.field(default=5, name="consecutive5XxErrors")
    consecutive_gateway_errors: int | None = None
    interval: str = "3s"
    base_ejection_time: str = "30s"
    max_ejection_percent: int | None = None


class HealthCheck(Model, frozen=True, kw_only=True):
    passive: PassiveHealthCheck | None = None
    panic_threshold: int | None = None


class HashName(Model, frozen=True, kw_only=True):
    name: str


class HashCookie(Model, frozen=True, kw_only=True):
    name: str
    ttl: str | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class ConsistentHash(Model, frozen=True, kw_only=True):
    """The field that ``type`` names is set (checked when decoded)."""

    type: Literal["SourceIP", "Header", "Headers", "Cookie", "QueryParams"]
    header: HashName | None = None
    headers: tuple[HashName, ...] = ()
    cookie: HashCookie | None = None
    query_params: tuple[HashName, ...] = ()


class LoadBalancer(Model, frozen=True, kw_only=True):
    type: Literal["ConsistentHash", "LeastRequest", "Random", "RoundRobin", "BackendUtilization", "DynamicModule"]
    consistent_hash: ConsistentHash | None = None


class BackendTrafficPolicySpec(PolicySpec, frozen=True, kw_only=True):
    timeout: Timeout = Timeout()
    circuit_breaker: CircuitBreaker | None = None
    retry: Retry | None = None
    health_check: HealthCheck | None = None
    load_balancer: LoadBalancer | None = None


class BackendTrafficPolicy(Resource, frozen=True, kw_only=True):
    spec: BackendTrafficPolicySpec
    # Fields that we do not implement and without which we would forward more than the policy says.
    restrictions: tuple[str, ...] = ()
