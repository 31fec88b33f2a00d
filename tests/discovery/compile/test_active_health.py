"""What does healthCheck.active make of a rule and of an endpoint, and what makes the policy invalid?"""

from __future__ import annotations

import pytest

from discovery.rule_policy import ActiveHealth, RulePolicy
from tests.discovery.loading import LoadText, condition_of


def manifests(check: str, *, hostnames: str = "", endpoint: str = "ip: {address: 192.0.2.1, port: 80}") -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm}}
spec:
  hostnames: [{hostnames}]
  rules:
  - backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b}}]
  - matches: [{{path: {{value: /other}}}}]
    backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec: {{endpoints: [{{{endpoint}}}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: traffic}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}}]
  healthCheck: {{active: {{{check}}}}}
"""


def compiled(load_text: LoadText, text: str) -> RulePolicy:
    result = load_text.compiled(text)
    assert result.problems == ()
    one, two = result.routing.rules
    assert one.policy.active_health is two.policy.active_health
    return one.policy


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        pytest.param("type: HTTP, http: {path: /health}", ActiveHealth(path=b"/health"), id="envoy-gateways-defaults"),
        pytest.param(
            "type: HTTP, timeout: 500ms, interval: 10s, initialJitter: 2s, unhealthyThreshold: 5, healthyThreshold: 2, "
            "overrides: {port: 9000}, http: {path: '/h?x=1', method: head, hostname: h.example, "
            "expectedStatuses: [200, 204], retriableStatuses: [503]}",
            ActiveHealth(
                timeout_seconds=0.5,
                interval_seconds=10,
                initial_jitter_seconds=2,
                unhealthy_threshold=5,
                healthy_threshold=2,
                method="HEAD",
                path=b"/h?x=1",
                host=b"h.example",
                statuses=frozenset({200, 204}),
                retriable_statuses=frozenset({503}),
                port=9000,
            ),
            id="everything",
        ),
        pytest.param(
            "type: HTTP, http: {path: /, expectedResponse: {type: Text, text: ok}}",
            ActiveHealth(path=b"/", expected=b"ok"),
            id="text",
        ),
        pytest.param(
            "type: HTTP, http: {path: /, expectedResponse: {type: Binary, binary: b2s=}}",
            ActiveHealth(path=b"/", expected=b"ok"),
            id="binary",
        ),
    ],
)
def test_settings(load_text: LoadText, check: str, expected: ActiveHealth) -> None:
    assert compiled(load_text, manifests(check)).active_health == expected


def test_the_host_is_the_check_s_else_the_route_s(load_text: LoadText) -> None:
    text = manifests("type: HTTP, http: {path: /}", hostnames="'*.example', api.example")
    health = compiled(load_text, text).active_health
    assert health is not None
    assert health.host == b"api.example"


def test_an_endpoint_s_own_host_for_checks(load_text: LoadText) -> None:
    endpoint = "ip: {address: 192.0.2.1, port: 80}, hostname: pod-0.example"
    result = load_text.compiled(manifests("type: HTTP, http: {path: /}", endpoint=endpoint))
    (found,) = result.membership["Backend/default/b"]
    assert found.check_host == b"pod-0.example"
    assert found.host is None  # requests keep the client's


@pytest.mark.parametrize(
    ("check", "message"),
    [
        pytest.param("type: HTTP, http: {path: health}", "http.path: must start with /", id="path"),
        pytest.param('type: HTTP, http: {path: "/a b"}', "http.path: must start with /", id="space"),
        pytest.param("type: HTTP, http: {path: /, method: FETCH}", "http.method: FETCH is not", id="method"),
        pytest.param("type: HTTP, interval: 0s, http: {path: /}", "interval: must be more", id="interval"),
        pytest.param("type: HTTP, timeout: 0s, http: {path: /}", "timeout: must be more", id="timeout"),
        pytest.param(
            f"type: HTTP, http: {{path: /, expectedResponse: {{type: Text, text: {'x' * 1025}}}}}",
            "http.expectedResponse: must have at most",
            id="more-than-is-looked-at",
        ),
    ],
)
def test_what_cannot_be_followed_makes_the_policy_invalid(load_text: LoadText, check: str, message: str) -> None:
    result = load_text.compiled(manifests(check))
    assert {rule.refusal.reason if rule.refusal else None for rule in result.routing.rules} == {"invalid_policy"}
    found = condition_of(result.routing, "BackendTrafficPolicy", "traffic", "Accepted")
    assert f"spec.healthCheck.active.{message}" in found.message


@pytest.mark.parametrize("check", ["type: TCP, tcp: {}", "type: GRPC, grpc: {service: s}"])
def test_other_types_are_a_warning_and_check_nothing(load_text: LoadText, check: str) -> None:
    result = load_text(manifests(check))
    assert result.problems
    assert all("only HTTP checks are made" in str(problem) for problem in result.problems)
    assert result.compile().routing.rules[0].policy.active_health is None
