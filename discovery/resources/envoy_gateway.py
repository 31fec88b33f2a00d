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
    hostname: str | None = None


class CACertificateRef(Model, frozen=True, kw_only=True):
    group: str
    kind: str
    name: str


class BackendTLS(Model, frozen=True, kw_only=True):
    """Of authorities there is one kind at most (checked when decoded)."""

    ca_certificate_refs: tuple[CACertificateRef, ...] = ()
    well_known_ca_certificates: str | None = msgspec.field(default=None, name="wellKnownCACertificates")
    insecure_skip_verify: bool = False
    sni: str | None = None
    min_version: str | None = None
    max_version: str | None = None
    # Not implemented; a Backend with one of them is not used.
    ciphers: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = msgspec.field(default=(), name="ecdhCurves")
    signature_algorithms: tuple[str, ...] = ()
    client_certificate_ref: dict[str, object] | None = None


class BackendSpec(Model, frozen=True, kw_only=True):
    type: str = "Endpoints"
    endpoints: tuple[BackendEndpoint, ...] = ()
    app_protocols: tuple[str, ...] = ()
    tls: BackendTLS | None = None
    fallback: bool = False


class Backend(Resource, frozen=True, kw_only=True):
    spec: BackendSpec = BackendSpec()
    # Whoever may write to a namespace wrote it, and not who runs the gateway: it must not lead into the gateway's pod.
    is_from_api: bool = False


class ClientConnection(Model, frozen=True, kw_only=True):
    buffer_limit: int | str | None = None


class ClientHeaders(Model, frozen=True, kw_only=True):
    disable_rate_limit_headers: bool = False


class ClientTrafficPolicySpec(PolicySpec, frozen=True, kw_only=True):
    connection: ClientConnection = ClientConnection()
    headers: ClientHeaders = ClientHeaders()


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


class CheckPayload(Model, frozen=True, kw_only=True):
    """The field that ``type`` names is set (checked when decoded)."""

    type: str
    text: str | None = None
    binary: str | None = None  # base64


class HTTPHealthCheck(Model, frozen=True, kw_only=True):
    path: str
    hostname: str | None = None
    method: str | None = None
    expected_statuses: tuple[int, ...] = ()
    retriable_statuses: tuple[int, ...] = ()
    expected_response: CheckPayload | None = None


class CheckOverrides(Model, frozen=True, kw_only=True):
    port: int | None = None


class ActiveHealthCheck(Model, frozen=True, kw_only=True):
    """Of type HTTP only: another has no effect."""

    type: str
    http: HTTPHealthCheck | None = None
    timeout: str = "1s"
    interval: str = "3s"
    initial_jitter: str | None = None
    unhealthy_threshold: int = 3
    healthy_threshold: int = 1
    overrides: CheckOverrides = CheckOverrides()


class HealthCheck(Model, frozen=True, kw_only=True):
    active: ActiveHealthCheck | None = None
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


class ValueSelector(Model, frozen=True, kw_only=True):
    """A header or a query parameter. A Distinct one has no value: each that comes has a limit of its own."""

    name: str
    type: Literal["Exact", "RegularExpression", "Distinct"] = "Exact"
    value: str | None = None
    invert: bool = False


class MethodSelector(Model, frozen=True, kw_only=True):
    value: str
    invert: bool = False


class PathSelector(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"
    invert: bool = False


class SourceSelector(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "Distinct"] = "Exact"
    value: str
    invert: bool = False


class ClientSelector(Model, frozen=True, kw_only=True):
    headers: tuple[ValueSelector, ...] = ()
    methods: tuple[MethodSelector, ...] = ()
    path: PathSelector | None = None
    query_params: tuple[ValueSelector, ...] = ()
    source_cidr: SourceSelector | None = msgspec.field(default=None, name="sourceCIDR")


class RequestCost(Model, frozen=True, kw_only=True):
    source: str = msgspec.field(name="from")
    number: int | None = None


class RateLimitCost(Model, frozen=True, kw_only=True):
    request: RequestCost | None = None


class RateLimitValue(Model, frozen=True, kw_only=True):
    requests: int
    unit: Literal["Second", "Minute", "Hour", "Day", "Month", "Year"]


class RateLimitRule(Model, frozen=True, kw_only=True):
    client_selectors: tuple[ClientSelector, ...] = ()
    cost: RateLimitCost = RateLimitCost()
    limit: RateLimitValue
    shadow_mode: bool = False
    shared: bool = False
    x_rate_limit_headers: Literal["Off", "DraftVersion03"] = "DraftVersion03"


class LocalRateLimit(Model, frozen=True, kw_only=True):
    rules: tuple[RateLimitRule, ...] = ()


class RateLimit(Model, frozen=True, kw_only=True):
    """Only the local one: a global one makes the policy invalid."""

    type: str | None = None
    local: LocalRateLimit | None = None


class FaultDelay(Model, frozen=True, kw_only=True):
    fixed_delay: str
    percentage: float = 100.0


class FaultAbort(Model, frozen=True, kw_only=True):
    http_status: int | None = None
    percentage: float = 100.0


class FaultInjection(Model, frozen=True, kw_only=True):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class BackendTrafficPolicySpec(PolicySpec, frozen=True, kw_only=True):
    rate_limit: RateLimit | None = None
    fault_injection: FaultInjection | None = None
    timeout: Timeout = Timeout()
    circuit_breaker: CircuitBreaker | None = None
    retry: Retry | None = None
    health_check: HealthCheck | None = None
    load_balancer: LoadBalancer | None = None


class BackendTrafficPolicy(Resource, frozen=True, kw_only=True):
    spec: BackendTrafficPolicySpec
    # Fields that we do not implement and without which we would forward more than the policy says.
    restrictions: tuple[str, ...] = ()
