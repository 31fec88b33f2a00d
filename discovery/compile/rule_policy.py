"""What do a route and the BackendTrafficPolicy that holds for it say about one rule? Merged into one frozen value."""

from __future__ import annotations

from typing import cast, get_args

from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.envoy_gateway import BackendTrafficPolicy, CircuitBreaker, HealthCheck, Retry
from discovery.resources.gateway_api import RouteRule
from discovery.resources.quantities import parse_duration
from discovery.snapshot import (
    NO_LIMITS,
    ConcurrencyLimits,
    PassiveHealth,
    RetryPolicy,
    RetryTrigger,
    RulePolicy,
)

DEFAULT_POLICY = RulePolicy()
NEVER_SECONDS = 365 * 24 * 3600.0  # what "0s" means where there must be a number

# Envoy Gateway's, where a policy sets `retry` and not these.
_DEFAULT_TRIGGERS: frozenset[RetryTrigger] = frozenset({"connect-failure", "retriable-status-codes"})
_KNOWN_TRIGGERS = frozenset(get_args(RetryTrigger))


def compile_rule_policy(rule: RouteRule | AIRouteRule, policy: BackendTrafficPolicy | None) -> RulePolicy:
    """Times of the rule itself and of its policy; the rule's own request timeout wins. "0s" is no limit."""
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
        retry=_retry(spec.retry) if spec is not None and spec.retry is not None else DEFAULT_POLICY.retry,
        limits=_limits(spec.circuit_breaker) if spec is not None else NO_LIMITS,
        passive_health=_passive_health(spec.health_check) if spec is not None else DEFAULT_POLICY.passive_health,
    )
    return DEFAULT_POLICY if compiled == DEFAULT_POLICY else compiled


def _retry(retry: Retry) -> RetryPolicy:
    """Where `retryOn` is there, its status codes replace the [503]; its triggers do only when it has some."""
    triggers, statuses = _DEFAULT_TRIGGERS, frozenset({503})
    if retry.retry_on is not None:
        statuses = frozenset(retry.retry_on.http_status_codes or ())
        if retry.retry_on.triggers is not None:
            known = _KNOWN_TRIGGERS & set(retry.retry_on.triggers)
            triggers = frozenset(cast(RetryTrigger, trigger) for trigger in known)
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
        triggers=triggers,
        statuses=statuses,
        per_try_timeout_seconds=per_try or None,
        backoff_base_seconds=base,
        backoff_max_seconds=max(base, longest),
        backs_off_always=per_retry.back_off is not None,
    )


def _limits(breaker: CircuitBreaker | None) -> ConcurrencyLimits:
    if breaker is None:
        return NO_LIMITS
    budget = breaker.retry_budget
    default = NO_LIMITS
    return ConcurrencyLimits(
        max_parallel_requests=breaker.max_parallel_requests,
        max_connections=breaker.max_connections,
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
