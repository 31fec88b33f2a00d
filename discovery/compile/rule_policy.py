"""What do a route and the BackendTrafficPolicy that holds for it say about one rule? Merged into one frozen value."""

from __future__ import annotations

from typing import assert_never, cast, get_args

from discovery.rate_limit import RateLimit
from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.envoy_gateway import (
    BackendTrafficPolicy,
    CircuitBreaker,
    FaultInjection,
    HashCookie,
    HealthCheck,
    Retry,
)
from discovery.resources.envoy_gateway import LoadBalancer as LoadBalancerResource
from discovery.resources.gateway_api import RouteRetry, RouteRule
from discovery.resources.quantities import parse_duration
from discovery.rule_policy import (
    DEFAULT_POLICY,
    NO_LIMITS,
    ActiveHealth,
    ConcurrencyLimits,
    ConsistentHash,
    LoadBalancer,
    PassiveHealth,
    RetryPolicy,
    RetryTrigger,
    RulePolicy,
)
from discovery.rule_policy import FaultInjection as Faults

NEVER_SECONDS = 365 * 24 * 3600.0  # what "0s" means where there must be a number

# Envoy Gateway's, where a policy sets `retry` and not these.
_DEFAULT_TRIGGERS: frozenset[RetryTrigger] = frozenset({"connect-failure", "retriable-status-codes"})
_KNOWN_TRIGGERS = frozenset(get_args(RetryTrigger))


def compile_rule_policy(
    rule: RouteRule | AIRouteRule,
    policy: BackendTrafficPolicy | None,
    rate_limits: tuple[RateLimit, ...] = (),
    active_health: ActiveHealth | None = None,
) -> RulePolicy:
    """Times of the rule itself and of its policy; the rule's own request timeout wins. "0s" is no limit.

    ``rate_limits`` and ``active_health`` are the policy's: the same ones for all of its rules.
    """
    spec = policy.spec if policy is not None else None
    request_text = rule.timeouts.request or (spec.timeout.http.request_timeout if spec is not None else None)
    request = parse_duration(request_text) if request_text else 0.0
    backend_request = parse_duration(rule.timeouts.backend_request) if rule.timeouts.backend_request else 0.0
    idle_text = rule.stream_idle_timeout if isinstance(rule, AIRouteRule) else None
    if idle_text is None and spec is not None:
        idle_text = spec.timeout.http.stream_idle_timeout
    idle = (parse_duration(idle_text) or NEVER_SECONDS) if idle_text else None
    connect_text = spec.timeout.tcp.connect_timeout if spec is not None else None
    compiled = RulePolicy(
        request_timeout_seconds=request or None,
        backend_request_timeout_seconds=backend_request or None,
        first_byte_timeout_seconds=idle or request or DEFAULT_POLICY.first_byte_timeout_seconds,
        stream_idle_timeout_seconds=idle or DEFAULT_POLICY.stream_idle_timeout_seconds,
        connect_timeout_seconds=(parse_duration(connect_text) if connect_text else 0.0)
        or DEFAULT_POLICY.connect_timeout_seconds,
        retry=_retry_of(rule, spec.retry if spec is not None else None),
        limits=_limits(spec.circuit_breaker) if spec is not None else NO_LIMITS,
        passive_health=_passive_health(spec.health_check) if spec is not None else DEFAULT_POLICY.passive_health,
        load_balancer=_load_balancer(spec.load_balancer) if spec is not None and spec.load_balancer else None,
        active_health=active_health,
        rate_limits=rate_limits,
        faults=_faults(spec.fault_injection) if spec is not None else None,
    )
    return DEFAULT_POLICY if compiled == DEFAULT_POLICY else compiled


def _retry_of(rule: RouteRule | AIRouteRule, retry: Retry | None) -> RetryPolicy:
    """The rule's own `retry` before the policy's, as with timeouts."""
    if isinstance(rule, RouteRule) and rule.retry is not None:
        return _route_retry(rule.retry)
    return DEFAULT_POLICY.retry if retry is None else _retry(retry)


def _route_retry(retry: RouteRetry) -> RetryPolicy:
    """Gateway API's HTTPRouteRetry (GEP-1731): the codes, and connections that fail, break or time out. ``backoff`` is
    the least time between attempts."""
    default = RetryPolicy()
    least = parse_duration(retry.backoff) if retry.backoff else 0.0
    return RetryPolicy(
        max_retries=default.max_retries if retry.attempts is None else retry.attempts,
        triggers=frozenset({"connect-failure", "reset", "retriable-status-codes"}),
        statuses=frozenset(retry.codes),
        backoff_base_seconds=least or default.backoff_base_seconds,
        backoff_max_seconds=max(10 * least, default.backoff_max_seconds),
        backoff_min_seconds=least,
        backs_off_always=bool(least),
    )


def _retry(retry: Retry) -> RetryPolicy:
    """Where `retryOn` is there, its status codes replace the [503]; its triggers do only when it has some."""
    triggers, statuses = _DEFAULT_TRIGGERS, frozenset({503})
    if retry.retry_on is not None:
        statuses = frozenset(retry.retry_on.http_status_codes or ())
        if retry.retry_on.triggers is not None:
            known = _KNOWN_TRIGGERS & set(retry.retry_on.triggers)
            triggers = frozenset(cast(RetryTrigger, trigger) for trigger in known)
            if "reset-before-request" in retry.retry_on.triggers:
                triggers |= {"connect-failure"}  # what there can be before anything of the request was sent
    per_retry = retry.per_retry
    per_try = parse_duration(per_retry.timeout) if per_retry.timeout else 0.0
    default = RetryPolicy()
    base, longest = default.backoff_base_seconds, default.backoff_max_seconds
    if per_retry.back_off is not None:
        if per_retry.back_off.base_interval:
            base = parse_duration(per_retry.back_off.base_interval)
        longest = parse_duration(per_retry.back_off.max_interval) if per_retry.back_off.max_interval else 10 * base
    return RetryPolicy(
        max_retries=retry.num_retries,
        attempts_per_priority=retry.num_attempts_per_priority or None,
        triggers=triggers,
        statuses=statuses,
        per_try_timeout_seconds=per_try or None,
        backoff_base_seconds=base,
        backoff_max_seconds=max(base, longest),
        backs_off_always=per_retry.back_off is not None,
    )


def _faults(given: FaultInjection | None) -> Faults | None:
    """None where nothing would ever happen."""
    delay = given.delay if given is not None else None
    abort = given.abort if given is not None else None
    delay_seconds = parse_duration(delay.fixed_delay) if delay is not None and delay.percentage > 0 else 0.0
    abort_status = abort.http_status if abort is not None and abort.percentage > 0 else None
    if not delay_seconds and abort_status is None:
        return None
    return Faults(
        delay_seconds=delay_seconds or None,
        delay_percent=delay.percentage if delay is not None else 100.0,
        abort_status=abort_status,
        abort_percent=abort.percentage if abort is not None else 100.0,
    )


def _limits(breaker: CircuitBreaker | None) -> ConcurrencyLimits:
    if breaker is None:
        return NO_LIMITS
    budget = breaker.retry_budget
    default = NO_LIMITS
    return ConcurrencyLimits(
        max_parallel_requests=breaker.max_parallel_requests,
        # Envoy lets each endpoint have one whatever the limit; with 0 those who wait would never get a turn.
        max_connections=None if breaker.max_connections is None else max(1, breaker.max_connections),
        max_pending_requests=(
            default.max_pending_requests if breaker.max_pending_requests is None else breaker.max_pending_requests
        ),
        max_parallel_retries=breaker.max_parallel_retries,
        retry_budget_share=budget.percent.numerator / budget.percent.denominator if budget is not None else None,
        min_retry_concurrency=(
            default.min_retry_concurrency
            if budget is None or budget.min_retry_concurrency is None
            else budget.min_retry_concurrency
        ),
    )


def _passive_health(check: HealthCheck | None) -> PassiveHealth:
    """With `passive` its rules and Envoy's defaults hold, where 503 is a failure; without it our own."""
    default = DEFAULT_POLICY.passive_health
    if check is None:
        return default
    panic = default.panic_threshold_percent if check.panic_threshold is None else check.panic_threshold
    passive = check.passive
    if passive is None:
        return PassiveHealth(panic_threshold_percent=panic)
    return PassiveHealth(
        consecutive_failures=passive.consecutive_5xx_errors or None,
        consecutive_gateway_errors=passive.consecutive_gateway_errors or None,
        counts_busy=True,
        interval_seconds=parse_duration(passive.interval),
        base_ejection_seconds=parse_duration(passive.base_ejection_time),
        max_ejection_percent=100 if passive.max_ejection_percent is None else passive.max_ejection_percent,
        panic_threshold_percent=panic,
    )


def _load_balancer(given: LoadBalancerResource) -> LoadBalancer:
    """What is not implemented is warned of and balanced as without a policy."""
    hashed = given.consistent_hash
    if hashed is None:
        match given.type:
            case "RoundRobin" | "Random":
                return given.type
            case _:
                return "LeastRequest"
    match hashed.type:
        case "SourceIP":
            return ConsistentHash(source="SourceIP")
        case "Header" | "Headers":
            names = (hashed.header, *hashed.headers)
            headers = tuple(name.name.lower().encode("latin-1") for name in names if name is not None)
            return ConsistentHash(source="Headers", names=headers)
        case "QueryParams":
            return ConsistentHash(source="QueryParams", names=tuple(name.name.encode() for name in hashed.query_params))
        case "Cookie":
            assert hashed.cookie is not None
            return _hash_cookie(hashed.cookie)
        case _:
            assert_never(hashed.type)


def _hash_cookie(cookie: HashCookie) -> ConsistentHash:
    """As in Envoy a client without the cookie is given one only where the policy sets a `ttl`."""
    attributes = "".join(f"; {name}={value}" if value else f"; {name}" for name, value in cookie.attributes.items())
    return ConsistentHash(
        source="Cookie",
        names=(cookie.name.encode("latin-1"),),
        cookie_max_age_seconds=int(parse_duration(cookie.ttl)) if cookie.ttl is not None else None,
        cookie_attributes=attributes.encode("latin-1"),
    )
