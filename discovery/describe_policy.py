"""What does a rule's policy look like to an operator? Its JSON form for /config and explain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from discovery.rate_limit import ClientSelector, RateLimit
from discovery.route_entry import PathKind
from discovery.rule_policy import (
    ActiveHealth,
    ConcurrencyLimits,
    ConsistentHash,
    FaultInjection,
    LoadBalancer,
    RulePolicy,
)
from discovery.shown import MASK, as_text, is_credential

Json = dict[str, Any]


def describe_policy(policy: RulePolicy) -> Json:
    """All that a policy can say, with the defaults where it says nothing."""
    return {
        "requestTimeoutSeconds": policy.request_timeout_seconds,
        "backendRequestTimeoutSeconds": policy.backend_request_timeout_seconds,
        "firstByteTimeoutSeconds": policy.first_byte_timeout_seconds,
        "streamIdleTimeoutSeconds": policy.stream_idle_timeout_seconds,
        "connectTimeoutSeconds": policy.connect_timeout_seconds,
        "loadBalancer": _describe_balancer(policy.load_balancer),
        "retry": {
            "maxRetries": policy.retry.max_retries,
            "attemptsPerPriority": policy.retry.attempts_per_priority,
            "triggers": sorted(policy.retry.triggers),
            "statuses": sorted(policy.retry.statuses),
            "perTryTimeoutSeconds": policy.retry.per_try_timeout_seconds,
            "backOffSeconds": [policy.retry.backoff_base_seconds, policy.retry.backoff_max_seconds],
        },
        "limits": describe_limits(policy.limits),
        "passiveHealth": {
            "consecutiveFailures": policy.passive_health.consecutive_failures,
            "consecutiveGatewayErrors": policy.passive_health.consecutive_gateway_errors,
            "countsBusy": policy.passive_health.counts_busy,
            "baseEjectionSeconds": policy.passive_health.base_ejection_seconds,
            "maxEjectionPercent": policy.passive_health.max_ejection_percent,
            "panicThresholdPercent": policy.passive_health.panic_threshold_percent,
        },
        **({"activeHealth": _describe_check(policy.active_health)} if policy.active_health is not None else {}),
        **({"rateLimits": [describe_rate_limit(limit) for limit in policy.rate_limits]} if policy.rate_limits else {}),
        **({"faults": _describe_faults(policy.faults)} if policy.faults is not None else {}),
    }


def _describe_balancer(balancer: LoadBalancer | None) -> Json | str | None:
    if isinstance(balancer, ConsistentHash):
        return {"consistentHash": balancer.source, "names": [as_text(name) for name in balancer.names]}
    return balancer


def describe_rate_limit(limit: RateLimit) -> Json:
    """A limit, and in words which clients it is for. Values that may be credentials are masked."""
    return {
        "requests": limit.requests,
        "unit": limit.unit,
        "cost": limit.cost,
        "clients": " and ".join(words for selector in limit.selectors for words in _selector_words(selector)),
        "sharedBy": limit.shared_by or None,
        "isShadow": limit.is_shadow,
        "field": limit.field,
    }


def _selector_words(selector: ClientSelector) -> Iterator[str]:
    for noun, values in (("header", selector.headers), ("query parameter", selector.query)):
        for value in values:
            name, pattern = as_text(value.name), value.pattern
            if pattern is None:
                yield f"each value of {noun} {name}"
            else:
                is_secret = noun == "header" and is_credential(value.name)
                shown = MASK if is_secret else pattern.source if pattern.value is None else as_text(pattern.value)
                sign = ("!" if value.is_inverted else "") + ("~" if pattern.value is None else "=")
                yield f"{noun} {name} {sign} {shown}"
    if selector.methods:
        yield "method " + " or ".join(f"!= {name}" if inverted else name for name, inverted in selector.methods)
    if selector.path is not None:
        path = selector.path
        kinds = {PathKind.EXACT: "=", PathKind.PREFIX: "below", PathKind.REGULAR_EXPRESSION: "~"}
        yield f"path {'not ' if path.is_inverted else ''}{kinds[path.kind]} {path.value or '/'}"
    if selector.address is not None:
        address = selector.address
        where = f"{'outside of' if address.is_inverted else 'in'} {address.network}"
        yield f"each address {where}" if address.is_distinct else f"addresses {where}"


def _describe_check(check: ActiveHealth) -> Json:
    return {
        "request": f"{check.method} {as_text(check.path)}",
        "host": None if check.host is None else as_text(check.host),
        "port": check.port,
        "expectedStatuses": sorted(check.statuses),
        "retriableStatuses": sorted(check.retriable_statuses),
        "expectsContent": bool(check.expected),
        "timeoutSeconds": check.timeout_seconds,
        "intervalSeconds": check.interval_seconds,
        "unhealthyThreshold": check.unhealthy_threshold,
        "healthyThreshold": check.healthy_threshold,
    }


def _describe_faults(faults: FaultInjection) -> Json:
    described: Json = {}
    if faults.delay_seconds is not None:
        described["delay"] = {"seconds": faults.delay_seconds, "percent": faults.delay_percent}
    if faults.abort_status is not None:
        described["abort"] = {"status": faults.abort_status, "percent": faults.abort_percent}
    return described


def describe_limits(limits: ConcurrencyLimits) -> Json:
    """The limits that are set, in the words of BackendTrafficPolicy."""
    return {name: value for name, value in _limits(limits) if value is not None}


def _limits(limits: ConcurrencyLimits) -> Iterator[tuple[str, float | None]]:
    yield "maxParallelRequests", limits.max_parallel_requests
    yield "maxConnections", limits.max_connections
    yield "maxPendingRequests", None if limits.max_connections is None else limits.max_pending_requests
    yield "maxParallelRetries", limits.max_parallel_retries
    yield "retryBudgetShare", limits.retry_budget_share
