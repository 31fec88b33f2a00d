"""What does a BackendTrafficPolicy make of a rule?"""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.load import load
from discovery.rule_policy import (
    ConcurrencyLimits,
    ConsistentHash,
    LoadBalancer,
    PassiveHealth,
    RetryPolicy,
    RulePolicy,
)


def compiled(tmp_path: Path, spec: str, *, rule: str = "") -> RulePolicy:
    """The policy of the one rule, under a BackendTrafficPolicy with this spec."""
    file = tmp_path / "routes.yaml"
    file.write_text(f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm}}
spec:
  rules:
  - backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b}}]
    {rule}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec: {{endpoints: [{{ip: {{address: 192.0.2.1, port: 80}}}}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: traffic}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}}]
  {spec}
""")
    result = load([file]).compile()
    assert result.problems == ()
    (found,) = result.routing.rules
    return found.policy


def test_a_rules_own_retry_wins_over_its_policys(tmp_path: Path) -> None:
    policy = compiled(
        tmp_path, "retry: {numRetries: 7}", rule="retry: {codes: [500, 502], attempts: 3, backoff: 100ms}"
    )
    assert policy.retry == RetryPolicy(
        max_retries=3,
        triggers=frozenset({"connect-failure", "reset", "retriable-status-codes"}),
        statuses=frozenset({500, 502}),
        backoff_base_seconds=0.1,
        backoff_max_seconds=1.0,
        backoff_min_seconds=0.1,
        backs_off_always=True,
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("{type: RoundRobin}", "RoundRobin", id="round-robin"),
        pytest.param("{type: LeastRequest}", "LeastRequest", id="least-request"),
        pytest.param(
            "{type: ConsistentHash, consistentHash: {type: Headers, headers: [{name: X-A}, {name: X-B}]}}",
            ConsistentHash(source="Headers", names=(b"x-a", b"x-b")),
            id="headers",
        ),
        pytest.param(
            "{type: ConsistentHash, consistentHash: {type: Cookie,"
            " cookie: {name: u, ttl: 1h, attributes: {Secure: ''}}}}",
            ConsistentHash(source="Cookie", names=(b"u",), cookie_max_age_seconds=3600, cookie_attributes=b"; Secure"),
            id="cookie",
        ),
    ],
)
def test_a_load_balancer_is_taken_over(tmp_path: Path, spec: str, expected: LoadBalancer) -> None:
    assert compiled(tmp_path, f"loadBalancer: {spec}").load_balancer == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("retry: {}", RetryPolicy(), id="envoy-gateways-defaults-are-ours"),
        pytest.param("retry: {numRetries: 5}", RetryPolicy(max_retries=5), id="number"),
        pytest.param(
            "retry: {retryOn: {triggers: [5xx, reset]}}",
            RetryPolicy(triggers=frozenset({"5xx", "reset"}), statuses=frozenset()),
            id="retry-on-replaces-both",
        ),
        pytest.param(
            "retry: {retryOn: {httpStatusCodes: [500, 502]}}",
            RetryPolicy(statuses=frozenset({500, 502})),
            id="without-triggers-the-default-ones-stay",
        ),
        pytest.param(
            "retry: {retryOn: {triggers: [cancelled, connect-failure]}}",
            RetryPolicy(triggers=frozenset({"connect-failure"}), statuses=frozenset()),
            id="triggers-of-grpc-say-nothing-here",
        ),
        pytest.param(
            "retry: {retryOn: {triggers: [reset-before-request]}}",
            RetryPolicy(triggers=frozenset({"connect-failure"}), statuses=frozenset()),
            id="before-the-request-there-is-only-connecting",
        ),
        pytest.param(
            "retry: {perRetry: {timeout: 30s, backOff: {baseInterval: 100ms}}}",
            RetryPolicy(
                per_try_timeout_seconds=30,
                backoff_base_seconds=0.1,
                backoff_max_seconds=1.0,
                backs_off_always=True,
            ),
            id="times",
        ),
    ],
)
def test_retry(tmp_path: Path, spec: str, expected: RetryPolicy) -> None:
    assert compiled(tmp_path, spec).retry == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("circuitBreaker: {}", ConcurrencyLimits(), id="what-is-not-set-does-not-limit"),
        pytest.param(
            "circuitBreaker: {maxParallelRequests: 10}", ConcurrencyLimits(max_parallel_requests=10), id="parallel"
        ),
        pytest.param(
            "circuitBreaker: {maxParallelRequests: 1024}",
            ConcurrencyLimits(max_parallel_requests=1024),
            id="a-limit-that-is-set-holds-even-when-it-is-the-default",
        ),
        pytest.param(
            "circuitBreaker: {maxConnections: 3}",
            ConcurrencyLimits(max_connections=3, max_pending_requests=1024),
            id="a-queue-of-1024-behind-max-connections",
        ),
        pytest.param(
            "circuitBreaker: {maxConnections: 3, maxPendingRequests: 0}",
            ConcurrencyLimits(max_connections=3, max_pending_requests=0),
            id="no-queue",
        ),
        pytest.param(
            "circuitBreaker: {maxParallelRetries: 2, retryBudget: {percent: {numerator: 1, denominator: 4}}}",
            ConcurrencyLimits(max_parallel_retries=2, retry_budget_share=0.25),
            id="retries",
        ),
    ],
)
def test_circuit_breaker(tmp_path: Path, spec: str, expected: ConcurrencyLimits) -> None:
    assert compiled(tmp_path, spec).limits == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            "healthCheck: {passive: {}}", PassiveHealth(counts_busy=True), id="envoys-defaults-but-any-share-is-ejected"
        ),
        pytest.param(
            "healthCheck: {passive: {consecutiveGatewayErrors: 2, baseEjectionTime: 10s, maxEjectionPercent: 10}}",
            PassiveHealth(
                counts_busy=True, consecutive_gateway_errors=2, base_ejection_seconds=10, max_ejection_percent=10
            ),
            id="passive",
        ),
        pytest.param(
            "healthCheck: {panicThreshold: 0}", PassiveHealth(panic_threshold_percent=0), id="panic-threshold-alone"
        ),
    ],
)
def test_passive_health(tmp_path: Path, spec: str, expected: PassiveHealth) -> None:
    assert compiled(tmp_path, spec).passive_health == expected


def test_times_of_the_policy_hold_where_the_rule_has_none(tmp_path: Path) -> None:
    spec = "timeout: {tcp: {connectTimeout: 5s}, http: {requestTimeout: 60s, streamIdleTimeout: 20s}}"
    policy = compiled(tmp_path, spec)
    assert policy.connect_timeout_seconds == 5
    assert policy.request_timeout_seconds == 60
    assert policy.stream_idle_timeout_seconds == policy.first_byte_timeout_seconds == 20
    policy = compiled(tmp_path, spec, rule="timeouts: {request: 30s}")
    assert policy.request_timeout_seconds == 30
