"""What does rateLimit.local make of a rule, and what makes the policy invalid?"""

from __future__ import annotations

import ipaddress

import pytest

from discovery.rate_limit import AddressSelector, ClientSelector, PathSelector, RateLimit, ValueSelector
from discovery.route_entry import MODEL_HEADER, PathKind, Pattern
from discovery.rule_policy import FaultInjection, RulePolicy
from tests.discovery.loading import LoadText, condition_of

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec:
  rules:
  - backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]
  - matches: [{path: {value: /other}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 192.0.2.1, port: 80}}]}
---
"""


def policy(spec: str) -> str:
    return f"""\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: traffic}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}}]
  {spec}
"""


def local(*rules: str) -> str:
    return policy(f"rateLimit: {{type: Local, local: {{rules: [{', '.join(rules)}]}}}}")


def compiled(load_text: LoadText, text: str) -> RulePolicy:
    result = load_text.compiled(ROUTE + text)
    assert result.problems == ()
    return result.routing.rules[0].policy


TEN = "limit: {requests: 10, unit: Second}"


def test_a_rule_without_selectors_is_the_limit_for_all_others(load_text: LoadText) -> None:
    (limit,) = compiled(load_text, local(f"{{{TEN}}}")).rate_limits
    assert limit == RateLimit(requests=10, unit="Second", unit_seconds=1)
    assert limit.field == "spec.rateLimit.local.rules[0]"


def test_all_rules_of_a_policy_have_the_very_same_limits(load_text: LoadText) -> None:
    one, two = load_text.compiled(ROUTE + local(f"{{{TEN}}}")).routing.rules
    assert one.policy.rate_limits is two.policy.rate_limits


def test_a_limit_that_is_there_twice_counts_once(load_text: LoadText) -> None:
    selected = f"{{clientSelectors: [{{methods: [{{value: GET}}]}}], {TEN}}}"
    assert len(compiled(load_text, local(selected, selected)).rate_limits) == 1


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param(
            "headers: [{name: X-User, type: Distinct}, {name: X-Team, value: red, invert: true}]",
            ClientSelector(
                headers=(
                    ValueSelector(name=b"x-user"),
                    ValueSelector(name=b"x-team", pattern=Pattern(name=b"x-team", value=b"red"), is_inverted=True),
                )
            ),
            id="headers",
        ),
        pytest.param(
            "headers: [{name: x-ai-eg-model, type: RegularExpression, value: 'qwen.*'}]",
            ClientSelector(
                headers=(ValueSelector(name=MODEL_HEADER, pattern=Pattern(name=MODEL_HEADER, source="qwen.*")),)
            ),
            id="the-model-by-either-name",
        ),
        pytest.param(
            "queryParams: [{name: Key, type: Distinct}]",
            ClientSelector(query=(ValueSelector(name=b"Key"),)),
            id="query",
        ),
        pytest.param(
            "methods: [{value: GET}, {value: POST, invert: true}]",
            ClientSelector(methods=(("GET", False), ("POST", True))),
            id="methods",
        ),
        pytest.param(
            "path: {value: /v1/}", ClientSelector(path=PathSelector(kind=PathKind.PREFIX, value="/v1")), id="prefix"
        ),
        pytest.param(
            "path: {type: Exact, value: '/v1/%7e'}",
            ClientSelector(path=PathSelector(kind=PathKind.EXACT, value="/v1/~")),
            id="exact-path",
        ),
        pytest.param(
            "path: {type: RegularExpression, value: '/v./x', invert: true}",
            ClientSelector(path=PathSelector(kind=PathKind.REGULAR_EXPRESSION, value="/v./x", is_inverted=True)),
            id="path-by-expression",
        ),
        pytest.param(
            "sourceCIDR: {type: Distinct, value: 10.1.2.3/8}",
            ClientSelector(address=AddressSelector(network=ipaddress.ip_network("10.0.0.0/8"), is_distinct=True)),
            id="address",
        ),
    ],
)
def test_selectors(load_text: LoadText, selector: str, expected: ClientSelector) -> None:
    (limit,) = compiled(load_text, local(f"{{clientSelectors: [{{{selector}}}], {TEN}}}")).rate_limits
    assert limit.selectors == (expected,)


def test_everything_else_that_a_rule_may_say(load_text: LoadText) -> None:
    rule = (
        "{limit: {requests: 100, unit: Month}, cost: {request: {from: Number, number: 3}}, "
        "shared: true, shadowMode: true, xRateLimitHeaders: 'Off'}"
    )
    (limit,) = compiled(load_text, local(rule)).rate_limits
    assert limit == RateLimit(
        requests=100,
        unit="Month",
        unit_seconds=30 * 24 * 3600,
        cost=3,
        shared_by="default/traffic",
        is_shadow=True,
        tells=False,
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param(local(f"{{{TEN}}}", f"{{{TEN}}}"), "rules[1].clientSelectors: only one", id="two-defaults"),
        pytest.param(
            local(f"{{clientSelectors: [{{headers: [{{name: a}}]}}], {TEN}}}"),
            "rules[0].clientSelectors[0].headers[0].value: is required",
            id="no-value",
        ),
        pytest.param(
            local(f"{{clientSelectors: [{{headers: [{{name: a, type: Distinct, value: b}}]}}], {TEN}}}"),
            "headers[0].value: must not be there",
            id="distinct-with-a-value",
        ),
        pytest.param(
            local(f"{{clientSelectors: [{{headers: [{{name: a, type: Distinct, invert: true}}]}}], {TEN}}}"),
            "headers[0].invert: must not be true",
            id="distinct-inverted",
        ),
        pytest.param(
            local(f"{{clientSelectors: [{{queryParams: [{{name: a, type: RegularExpression, value: '('}}]}}], {TEN}}}"),
            "queryParams[0].value: not a regular expression",
            id="regex",
        ),
        pytest.param(
            local(f"{{clientSelectors: [{{path: {{type: RegularExpression, value: '('}}}}], {TEN}}}"),
            "path.value: not a regular expression",
            id="path-regex",
        ),
        pytest.param(
            local(f"{{clientSelectors: [{{sourceCIDR: {{value: nowhere}}}}], {TEN}}}"),
            "sourceCIDR.value: nowhere is not a range",
            id="cidr",
        ),
        pytest.param(
            local(f"{{{TEN}, cost: {{request: {{from: Number, number: 11}}}}}}"),
            "cost.request.number: must be between 0 and the limit of 10",
            id="cost-over-the-limit",
        ),
        pytest.param(
            local(f"{{{TEN}, cost: {{request: {{from: Metadata, metadata: {{namespace: a, key: b}}}}}}}}"),
            "cost.request.metadata: there is no such metadata",
            id="cost-from-metadata",
        ),
        pytest.param(policy("rateLimit: {type: Local}"), "spec.rateLimit.local: is required", id="nothing-local"),
        pytest.param(policy("rateLimit: {type: Global, local: {rules: []}}"), "type: Global is not", id="global-type"),
    ],
)
def test_what_cannot_be_followed_makes_the_policy_invalid(load_text: LoadText, text: str, field: str) -> None:
    result = load_text.compiled(ROUTE + text)
    for rule in result.routing.rules:
        assert rule.refusal is not None
        assert rule.refusal.reason == "invalid_policy"
        assert field in rule.refusal.message
    condition = condition_of(result.routing, "BackendTrafficPolicy", "traffic", "Accepted")
    assert (condition.status, condition.reason) == ("False", "Invalid")
    assert any(field in str(problem) for problem in result.problems)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            "delay: {fixedDelay: 2s, percentage: 12.5}",
            FaultInjection(delay_seconds=2, delay_percent=12.5),
            id="delay",
        ),
        pytest.param("abort: {httpStatus: 503}", FaultInjection(abort_status=503), id="abort"),
        pytest.param("abort: {httpStatus: 503, percentage: 0}", None, id="of-no-request"),
        pytest.param("delay: {fixedDelay: 0s}", None, id="no-time"),
    ],
)
def test_faults(load_text: LoadText, spec: str, expected: FaultInjection | None) -> None:
    assert compiled(load_text, policy(f"faultInjection: {{{spec}}}")).faults == expected


def test_a_grpc_status_is_a_warning_and_aborts_nothing(load_text: LoadText) -> None:
    result = load_text(ROUTE + policy("faultInjection: {abort: {grpcStatus: 14}}"))
    (problem,) = result.problems
    assert "spec.faultInjection.abort.grpcStatus" in str(problem)
    assert result.compile().routing.rules[0].policy.faults is None


def test_the_headers_are_told_unless_the_listener_says_otherwise(load_text: LoadText) -> None:
    gateway = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: x
  listeners:
  - {name: a, protocol: HTTP, port: 80, hostname: a.com}
  - {name: b, protocol: HTTP, port: 80, hostname: b.com}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: c}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: a}]
  headers: {disableRateLimitHeaders: true}
---
"""
    routing = load_text.compiled(gateway + ROUTE).routing
    assert {item.hostname: item.tells_rate_limits for item in routing.listeners} == {"a.com": False, "b.com": True}
