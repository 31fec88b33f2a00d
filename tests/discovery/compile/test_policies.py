"""Timeouts, body limits, precedence and conflicts of policies; and policies that must not be passed over."""

from __future__ import annotations

import pytest

from discovery.rule_policy import RulePolicy
from discovery.snapshot import DEFAULT_BODY_LIMIT, MIB
from tests.discovery.loading import LoadText, ask, condition_of

BASE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, labels: {tier: edge}}
spec:
  gatewayClassName: c
  listeners:
  - {name: a, protocol: HTTP, port: 80, hostname: a.com}
  - {name: b, protocol: HTTP, port: 80, hostname: b.com}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, labels: {team: red}}
spec:
  rules:
  - name: first
    matches: [{path: {value: /first}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]
  - matches: [{path: {value: /second}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]
    timeouts: {request: 5s, backendRequest: 2s}
  - matches: [{path: {value: /third}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]
    timeouts: {request: 0s, backendRequest: 0s}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
---
"""
GROUP = "group: gateway.networking.k8s.io"


def policy(name: str, target: str, spec: str, kind: str = "BackendTrafficPolicy", metadata: str = "") -> str:
    return f"""\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: {kind}
metadata: {{name: {name}{metadata}}}
spec: {{{target}, {spec}}}
---
"""


def timeout(text: str) -> str:
    return f"timeout: {{http: {{requestTimeout: {text}}}}}"


GATEWAY = f"targetRefs: [{{{GROUP}, kind: Gateway, name: gw}}]"
LISTENER = f"targetRefs: [{{{GROUP}, kind: Gateway, name: gw, sectionName: a}}]"
ROUTE = f"targetRefs: [{{{GROUP}, kind: HTTPRoute, name: r}}]"
RULE = f"targetRefs: [{{{GROUP}, kind: HTTPRoute, name: r, sectionName: first}}]"
OLD_FORM = f"targetRef: {{{GROUP}, kind: HTTPRoute, name: r}}"
BY_LABEL = f"targetSelectors: [{{{GROUP}, kind: HTTPRoute, matchLabels: {{team: red}}}}]"
BY_OTHER_LABEL = f"targetSelectors: [{{{GROUP}, kind: HTTPRoute, matchLabels: {{team: blue}}}}]"


def request_timeout(load_text: LoadText, text: str, host: str = "a.com", path: str = "/first") -> float | None:
    rule = ask(load_text.compiled(BASE + text).routing, host=host, path=path)
    assert rule is not None
    assert rule.refusal is None
    return rule.policy.request_timeout_seconds


def test_without_a_policy_there_is_no_request_timeout(load_text: LoadText) -> None:
    routing = load_text.compiled(BASE).routing
    rule = ask(routing, host="a.com", path="/first")
    assert rule is not None
    assert rule.policy == RulePolicy()


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param([GATEWAY], 1, id="gateway"),
        pytest.param([GATEWAY, LISTENER], 2, id="listener-before-gateway"),
        pytest.param([GATEWAY, LISTENER, ROUTE], 3, id="route-before-listener"),
        pytest.param([GATEWAY, LISTENER, ROUTE, RULE], 4, id="rule-before-route"),
        pytest.param([OLD_FORM], 1, id="target-ref"),
        pytest.param([BY_LABEL], 1, id="selector"),
        pytest.param([BY_OTHER_LABEL], None, id="selector-of-others"),
    ],
)
def test_the_most_specific_policy_wins(load_text: LoadText, policies: list[str], expected: float | None) -> None:
    text = "".join(policy(f"p{n}", target, timeout(f"{n}s")) for n, target in enumerate(policies, 1))
    assert request_timeout(load_text, text) == expected


def test_a_listener_s_policy_is_for_that_listener_only_and_rules_there_are_variants(load_text: LoadText) -> None:
    routing = load_text.compiled(BASE + policy("p", LISTENER, timeout("7s"))).routing
    on_a, on_b = (ask(routing, host=host, path="/first") for host in ("a.com", "b.com"))
    assert on_a is not None
    assert on_b is not None
    assert (on_a.policy.request_timeout_seconds, on_b.policy.request_timeout_seconds) == (7, None)
    assert (on_a.id, on_b.id) == ("HTTPRoute/default/r/0", "HTTPRoute/default/r/0@default/gw/b")
    second = [ask(routing, host=host, path="/second") for host in ("a.com", "b.com")]
    assert second[0] is second[1]
    assert len({rule.id for rule in routing.rules}) == len(routing.rules)


def test_the_route_s_own_timeouts_win_and_0s_is_none(load_text: LoadText) -> None:
    text = policy("p", GATEWAY, timeout("24h"))
    routing = load_text.compiled(BASE + text).routing
    second, third = (ask(routing, host="a.com", path=path) for path in ("/second", "/third"))
    assert second is not None
    assert third is not None
    assert second.policy.request_timeout_seconds == 5
    assert second.policy.backend_request_timeout_seconds == 2
    assert second.policy.first_byte_timeout_seconds == 5
    assert third.policy == RulePolicy()
    assert request_timeout(load_text, text) == 24 * 3600
    assert request_timeout(load_text, policy("p", GATEWAY, timeout("0s"))) is None


def test_of_two_policies_for_one_target_the_older_wins_then_the_name(load_text: LoadText) -> None:
    old = ', creationTimestamp: "2024-01-01T00:00:00Z"'
    text = policy("b", ROUTE, timeout("2s")) + policy("a", ROUTE, timeout("1s"))
    assert request_timeout(load_text, text) == 1
    text = policy("b", ROUTE, timeout("2s"), metadata=old) + policy("a", ROUTE, timeout("1s"))
    assert request_timeout(load_text, text) == 2
    condition = condition_of(load_text.compiled(BASE + text).routing, "BackendTrafficPolicy", "a", "Accepted")
    assert (condition.status, condition.reason) == ("False", "Conflicted")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(f"targetRefs: [{{{GROUP}, kind: HTTPRoute, name: nowhere}}]", id="route"),
        pytest.param(f"targetRefs: [{{{GROUP}, kind: HTTPRoute, name: r, sectionName: nowhere}}]", id="rule"),
        pytest.param(f"targetRefs: [{{{GROUP}, kind: Gateway, name: gw, sectionName: nowhere}}]", id="listener"),
    ],
)
def test_a_policy_for_nothing_says_so(load_text: LoadText, target: str) -> None:
    compiled = load_text.compiled(BASE + policy("p", target, timeout("1s")))
    assert condition_of(compiled.routing, "BackendTrafficPolicy", "p", "Accepted").reason == "TargetNotFound"
    assert "(TargetNotFound)" in str(compiled.problems[0])


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("rateLimit: {global: {rules: []}}", id="global-rate-limit"),
        pytest.param("requestBuffer: {limit: 1Mi}", id="request-buffer"),
        pytest.param("mergeType: StrategicMerge", id="merge-type"),
        pytest.param("bandwidthLimit: {request: {limit: {value: 1Mi, unit: Second}}}", id="bandwidth-limit"),
    ],
)
def test_a_policy_that_restricts_in_a_way_we_cannot_makes_its_rules_500(load_text: LoadText, field: str) -> None:
    compiled = load_text.compiled(BASE + policy("p", RULE, field))
    first, second = (ask(compiled.routing, host="a.com", path=path) for path in ("/first", "/second"))
    assert first is not None
    assert second is not None
    assert first.refusal is not None
    assert first.refusal.reason == "invalid_policy"
    assert second.refusal is None
    condition = condition_of(compiled.routing, "BackendTrafficPolicy", "p", "Accepted")
    assert (condition.status, condition.reason) == ("False", "Invalid")
    line = next(str(p) for p in compiled.problems if "(Invalid)" in str(p))
    assert f"BackendTrafficPolicy/p: spec.{field.partition(':')[0]}" in line
    assert ": not implemented, and without it Pointsman would forward more" in line


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param("20Mi", 20 * MIB, id="binary"),
        pytest.param("1G", 10**9, id="decimal"),
        pytest.param("32768", 32768, id="plain"),
        pytest.param("'32768'", 32768, id="string"),
    ],
)
def test_buffer_limit_is_the_listener_s_body_limit(load_text: LoadText, limit: str, expected: int) -> None:
    text = policy("p", LISTENER, f"connection: {{bufferLimit: {limit}}}", "ClientTrafficPolicy")
    listeners = {x.hostname: x.body_limit for x in load_text.compiled(BASE + text).routing.listeners}
    assert listeners == {"a.com": expected, "b.com": DEFAULT_BODY_LIMIT}


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("proxyProtocol: {}", id="proxy-protocol"),
        pytest.param("enableProxyProtocol: true", id="enable-proxy-protocol"),
        pytest.param("headers: {withUnderscoresAction: RejectRequest}", id="underscores"),
        pytest.param("connection: {connectionLimit: {value: 1}}", id="connection-limit"),
        pytest.param("connection: {bufferLimit: -1}", id="negative-limit"),
    ],
)
def test_a_client_policy_that_we_cannot_follow_closes_its_listener(load_text: LoadText, field: str) -> None:
    compiled = load_text.compiled(BASE + policy("p", LISTENER, field, "ClientTrafficPolicy"))
    on_a, on_b = (ask(compiled.routing, host=host, path="/first") for host in ("a.com", "b.com"))
    assert on_a is not None
    assert on_b is not None
    assert on_a.refusal is not None
    assert on_a.refusal.reason == "invalid_policy"
    assert on_b.refusal is None
    assert condition_of(compiled.routing, "ClientTrafficPolicy", "p", "Accepted").reason == "Invalid"


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("enableProxyProtocol: false", id="disabled"),
        pytest.param("headers: {withUnderscoresAction: Allow}", id="underscores-allowed"),
    ],
)
def test_a_client_policy_that_restricts_nothing_closes_nothing(load_text: LoadText, field: str) -> None:
    assert request_timeout(load_text, policy("p", LISTENER, field, "ClientTrafficPolicy")) is None


def unimplemented(kind: str, target: str, group: str = "gateway.envoyproxy.io/v1alpha1") -> str:
    return f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: s}}\nspec: {{{target}}}\n---\n"


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        pytest.param(unimplemented("SecurityPolicy", GATEWAY), True, True, id="gateway"),
        pytest.param(unimplemented("SecurityPolicy", ROUTE), True, True, id="route"),
        pytest.param(unimplemented("SecurityPolicy", RULE), True, False, id="rule"),
        pytest.param(unimplemented("SecurityPolicy", BY_LABEL), True, True, id="label"),
        pytest.param(
            unimplemented("SecurityPolicy", BY_LABEL).replace("{name: s}", "{name: s, namespace: other}"),
            False,
            False,
            id="label-in-another-namespace",
        ),
        pytest.param(
            unimplemented(
                "SecurityPolicy", BY_LABEL.replace("matchLabels", "namespaces: {from: All}, matchLabels")
            ).replace("{name: s}", "{name: s, namespace: other}"),
            True,
            True,
            id="label-in-all-namespaces",
        ),
        pytest.param(unimplemented("EnvoyExtensionPolicy", ROUTE), True, True, id="without-a-schema"),
        pytest.param(unimplemented("SomeonesPolicy", ROUTE, "example.com/v1"), True, True, id="anyone-s-policy"),
        pytest.param(
            unimplemented("SecurityPolicy", f"targetRefs: [{{{GROUP}, kind: HTTPRoute, name: other}}]"),
            False,
            False,
            id="of-another-route",
        ),
        pytest.param(
            unimplemented("SecurityPolicy", f"targetRefs: [{{{GROUP}, kind: GRPCRoute, name: r}}]"),
            False,
            False,
            id="of-a-kind-that-is-not-served",
        ),
    ],
)
def test_a_policy_kind_that_is_not_implemented_closes_its_target(
    load_text: LoadText, text: str, *, first: bool, second: bool
) -> None:
    routing = load_text.compiled(BASE + text).routing
    for path, closed in (("/first", first), ("/second", second)):
        rule = ask(routing, host="a.com", path=path)
        assert rule is not None
        assert (rule.refusal is not None and rule.refusal.reason == "unsupported_policy") == closed


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            unimplemented(
                "BackendTLSPolicy",
                "targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}], "
                "validation: {hostname: a.com, wellKnownCACertificates: System}",
                "gateway.networking.k8s.io/v1",
            ),
            id="backend-tls",
        ),
        pytest.param(
            unimplemented("HealthPolicy", "targetRef: {kind: Backend, name: b, sectionName: '80'}", "example.com/v1"),
            id="section-of-a-backend",
        ),
    ],
)
def test_a_policy_on_a_backend_closes_that_backend(load_text: LoadText, text: str) -> None:
    compiled = load_text.compiled(BASE + text)
    (ref,) = compiled.routing.rules[0].backend_refs
    assert ref.backend is None
    assert ref.refusal is not None
    assert ref.refusal.reason == "unsupported_policy"
    assert any("answers 500 (--ignore-policy" in str(p) for p in compiled.problems)


def test_ignored_policy_kinds_are_passed_over_with_a_warning(load_text: LoadText) -> None:
    text = BASE + unimplemented("SecurityPolicy", GATEWAY)
    compiled = load_text.compiled(text, ignored_policies=frozenset({"SecurityPolicy"}))
    rule = ask(compiled.routing, host="a.com", path="/first")
    assert rule is not None
    assert rule.refusal is None
    assert [str(p).partition("SecurityPolicy")[2] for p in compiled.problems] == [
        "/s: not implemented, ignored as --ignore-policy says"
    ]


IMPLICIT = BASE.partition("---\n")[2].replace(
    "spec:\n  rules", "spec:\n  parentRefs: [{name: gw, sectionName: a}]\n  rules", 1
)


@pytest.mark.parametrize("target", [pytest.param(GATEWAY, id="gateway"), pytest.param(LISTENER, id="listener")])
def test_without_gateways_policies_for_the_named_parent_still_hold(load_text: LoadText, target: str) -> None:
    text = policy("p", target, timeout("7s")) + policy(
        "c", target, "connection: {bufferLimit: 1Mi}", "ClientTrafficPolicy"
    )
    routing = load_text.compiled(IMPLICIT + text).routing
    rule = ask(routing, path="/first")
    assert rule is not None
    assert rule.policy.request_timeout_seconds == 7
    assert routing.listeners[0].body_limit == MIB
    closed = load_text.compiled(IMPLICIT + unimplemented("SecurityPolicy", target)).routing
    assert {rule.refusal.reason if rule.refusal else None for rule in closed.rules} == {"unsupported_policy"}


def test_a_policy_for_an_http_route_reaches_the_ai_gateway_route_of_that_name(load_text: LoadText) -> None:
    route = """\
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {name: r}
spec: {rules: [{streamIdleTimeout: 30s}, {streamIdleTimeout: 0s, timeouts: {request: 9s}}]}
---
"""
    routing = load_text.compiled(route + policy("p", ROUTE, timeout("7s"))).routing
    assert [
        (p.request_timeout_seconds, p.first_byte_timeout_seconds, p.stream_idle_timeout_seconds)
        for p in (rule.policy for rule in routing.rules)
    ] == [(7, 30, 30), (9, 365 * 24 * 3600, 365 * 24 * 3600)]
