"""The corners of Gateway API: ports, conflicts, shared hostnames, counted routes, mirrors, overridden policies."""

from __future__ import annotations

import pytest

from discovery.compile import compile_routing
from discovery.snapshot import Mirror, Routing
from discovery.status import ObjectStatus
from tests.discovery.loading import LoadText, ask, condition_of

BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{endpoints: [{{ip: {{address: 10.0.0.1, port: 8000}}}}]}}
---
"""
REF = "group: gateway.envoyproxy.io, kind: Backend"


def backend(name: str = "b", namespace: str = "default") -> str:
    return BACKEND.format(name=name, namespace=namespace)


def gateway(name: str, *listeners: str) -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, generation: 7}}
spec:
  gatewayClassName: c
  listeners: [{", ".join(f"{{{listener}}}" for listener in listeners)}]
---
"""


def route(name: str, spec: str = "", path: str = "/", filters: str = "[]", metadata: str = "") -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, generation: 3{metadata}}}
spec:
  {spec}
  rules:
  - matches: [{{path: {{value: {path}}}}}]
    filters: {filters}
    backendRefs: [{{{REF}, name: b}}]
---
"""


def status_of(routing: Routing, kind: str, name: str, parent: str | None = None) -> ObjectStatus:
    (found,) = [s for s in routing.statuses if (s.kind, s.name, s.parent) == (kind, name, parent)]
    return found


def served(routing: Routing, host: str, port: int | None, path: str = "/") -> str | None:
    listener = routing.select_listener(host, port)
    rule = ask(routing, host=host, path=path, port=port)
    return None if listener is None or rule is None else f"{listener.name} {rule.route}"


PORTS = (
    gateway("gw", "name: one, port: 80, protocol: HTTP", "name: two, port: 81, protocol: HTTP")
    + route("a", "parentRefs: [{name: gw, port: 80}]")
    + route("b", "parentRefs: [{name: gw, port: 81}]")
    + backend()
)


def test_listeners_on_ports_of_their_own_do_not_meet(load_text: LoadText) -> None:
    routing = compile_routing(load_text(PORTS).resources, by_port=True)
    assert [(listener.name, listener.port) for listener in routing.listeners] == [
        ("default/gw/one", 80),
        ("default/gw/two", 81),
    ]
    assert served(routing, "x.com", 80) == "default/gw/one default/a"
    assert served(routing, "x.com", 81) == "default/gw/two default/b"
    assert served(routing, "x.com", 82) is None


def test_on_one_port_the_later_of_two_with_one_hostname_is_conflicted(load_text: LoadText) -> None:
    routing = load_text.compiled(PORTS).routing
    assert served(routing, "x.com", None) == "default/gw/one default/a"
    assert condition_of(routing, "Gateway", "gw", "Conflicted", "default/gw/two").reason == "HostnameConflict"
    assert condition_of(routing, "HTTPRoute", "b", "Accepted").status == "False"


def test_with_ports_two_gateways_can_still_conflict(load_text: LoadText) -> None:
    listener = "name: x, port: 80, protocol: HTTP, hostname: "
    text = gateway("one", listener + "a.com") + gateway("two", listener + "a.com", "name: y, port: 80, protocol: HTTP")
    routing = compile_routing(load_text(text).resources, by_port=True)
    condition = condition_of(routing, "Gateway", "two", "Conflicted", "default/two/x")
    assert (condition.status, condition.reason) == ("True", "HostnameConflict")
    assert condition.message == "port 80 is shared, and listener default/one/x has the same hostname"
    assert [listener.name for listener in routing.listeners] == ["default/one/x", "default/two/y"]


def test_the_same_inputs_by_port_are_other_inputs(load_text: LoadText) -> None:
    resources = load_text(PORTS).resources
    shared = compile_routing(resources)
    by_port = compile_routing(resources, previous=shared, by_port=True)
    assert by_port is not shared
    assert compile_routing(resources, previous=by_port, by_port=True) is by_port


def test_another_protocol_on_the_port_of_an_http_listener_conflicts(load_text: LoadText) -> None:
    text = gateway(
        "gw",
        "name: one, port: 80, protocol: HTTP",
        "name: two, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}",
        "name: three, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}",
    )
    routing = load_text.compiled(text).routing
    reasons = [
        condition_of(routing, "Gateway", "gw", "Conflicted", f"default/gw/{name}").reason
        for name in ("one", "two", "three")
    ]
    assert reasons == ["NoConflicts", "ProtocolConflict", "NoConflicts"]
    assert [listener.name for listener in routing.listeners] == ["default/gw/one"]


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        pytest.param("very.specific.com", "/s1", "default/gw/1 default/exact-on-exact", id="s1"),
        pytest.param("very.specific.com", "/s3", "default/gw/1 default/wildcard-on-exact", id="s3"),
        pytest.param("non.matching.com", "/s1", None, id="not-the-listener-s"),
        pytest.param("foo.specific.com", "/s3", None, id="the-route-s-but-not-the-listener-s"),
        pytest.param("foo.wildcard.io", "/s2", "default/gw/2 default/exact-on-wildcard", id="s2"),
        pytest.param("foo.bar.wildcard.io", "/s2", "default/gw/2 default/exact-on-wildcard", id="s2-two-labels"),
        pytest.param("foo.anotherwildcard.io", "/s4", "default/gw/3 default/wildcard-on-wildcard", id="s4"),
        pytest.param("foo.bar.anotherwildcard.io", "/s4", "default/gw/3 default/wildcard-on-wildcard", id="s4-two"),
        pytest.param("anotherwildcard.io", "/s4", None, id="the-apex"),
    ],
)
def test_intersecting_hostnames_as_the_conformance_suite_has_them(
    load_text: LoadText, host: str, path: str, expected: str | None
) -> None:
    text = (
        gateway(
            "gw",
            "name: '1', port: 80, protocol: HTTP, hostname: very.specific.com",
            "name: '2', port: 80, protocol: HTTP, hostname: '*.wildcard.io'",
            "name: '3', port: 80, protocol: HTTP, hostname: '*.anotherwildcard.io'",
        )
        + route("exact-on-exact", "hostnames: [non.matching.com, '*.non.io', very.specific.com]", "/s1")
        + route("exact-on-wildcard", "hostnames: [non.matching.com, foo.wildcard.io, foo.bar.wildcard.io]", "/s2")
        + route("wildcard-on-exact", "hostnames: [non.matching.com, wildcard.io, '*.specific.com']", "/s3")
        + route("wildcard-on-wildcard", "hostnames: [non.matching.com, '*.anotherwildcard.io']", "/s4")
        + route("none", "hostnames: [specific.but.wrong.com, wildcard.io]", "/s5")
        + backend()
    )
    routing = load_text.compiled(text).routing
    assert served(routing, host, None, path) == expected
    assert condition_of(routing, "HTTPRoute", "none", "Accepted").reason == "NoMatchingListenerHostname"


def test_a_listener_counts_the_routes_that_are_accepted_and_says_what_it_takes(load_text: LoadText) -> None:
    unsupported = "[{type: CORS, cors: {}}]"
    text = (
        gateway(
            "gw",
            "name: one, port: 80, protocol: HTTP",
            "name: two, port: 80, protocol: HTTP, hostname: a.com, "
            "allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: X}]}",
            "name: three, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}",
        )
        + route("good", "parentRefs: [{name: gw}]")
        + route("unresolved", "parentRefs: [{name: gw}]", filters=mirror("nowhere"))
        + route("unsupported", "parentRefs: [{name: gw}]", filters=unsupported)
        + backend()
    )
    routing = load_text.compiled(text).routing
    statuses = [status_of(routing, "Gateway", "gw", f"default/gw/{name}") for name in ("one", "two", "three")]
    assert [status.attached_routes for status in statuses] == [2, 2, 0]
    http, ai = ("gateway.networking.k8s.io", "HTTPRoute"), ("aigateway.envoyproxy.io", "AIGatewayRoute")
    assert [status.supported_kinds for status in statuses] == [(http, ai), (http,), ()]
    assert condition_of(routing, "Gateway", "gw", "ResolvedRefs", "default/gw/two").reason == "InvalidRouteKinds"
    assert {c.observed_generation for status in statuses for c in status.conditions} == {7}
    assert {c.observed_generation for s in routing.statuses if s.kind == "HTTPRoute" for c in s.conditions} == {3}


def test_a_dropped_rule_is_said_in_the_standard_s_words(load_text: LoadText) -> None:
    text = route("r") + backend()
    text = text.replace("- matches: [", "- matches: [{path: {type: RegularExpression, value: '('}}, ")
    condition = condition_of(load_text.compiled(text).routing, "HTTPRoute", "r", "PartiallyInvalid")
    assert (condition.status, condition.reason) == ("True", "UnsupportedValue")
    assert condition.message.startswith("Dropped Rule: spec.rules[0].matches[0].path.value: not a regular expression")


def test_each_parent_has_its_own_status(load_text: LoadText) -> None:
    refs = "parentRefs: [{name: gw, port: 80}, {name: gw, port: 81}]"
    text = gateway("gw", "name: one, port: 80, protocol: HTTP") + route("r", refs) + backend()
    routing = load_text.compiled(text).routing
    assert condition_of(routing, "HTTPRoute", "r", "Accepted", "default/gw:80").status == "True"
    assert condition_of(routing, "HTTPRoute", "r", "Accepted", "default/gw:81").reason == "NoMatchingParent"


def mirror(name: str, extra: str = "", namespace: str = "default") -> str:
    ref = f"backendRef: {{{REF}, name: {name}, namespace: {namespace}}}"
    return f"[{{type: RequestMirror, requestMirror: {{{ref}{extra}}}}}]"


@pytest.mark.parametrize(
    ("extra", "share"),
    [
        pytest.param("", [(100, 100)], id="all"),
        pytest.param(", percent: 5", [(5, 100)], id="percent"),
        pytest.param(", fraction: {numerator: 1, denominator: 1000}", [(1, 1000)], id="fraction"),
        pytest.param(", fraction: {numerator: 1}", [(1, 100)], id="fraction-of-100"),
        pytest.param(", percent: 0", [], id="none"),
    ],
)
def test_a_mirror_is_resolved(load_text: LoadText, extra: str, share: list[tuple[int, int]]) -> None:
    text = route("r", filters=mirror("copy", extra)) + backend() + backend("copy")
    routing = load_text.compiled(text).routing
    (rule,) = routing.rules
    assert [(m.name, m.backend.id, (m.numerator, m.denominator)) for m in rule.mirrors] == [
        ("default/copy", "Backend/default/copy", fraction) for fraction in share
    ]
    assert ("Backend/default/copy" in routing.backends) == bool(share)


def test_several_mirrors_are_kept_in_order(load_text: LoadText) -> None:
    filters = mirror("one")[:-1] + ", " + mirror("two")[1:]
    text = route("r", filters=filters) + backend() + backend("one") + backend("two")
    (rule,) = load_text.compiled(text).routing.rules
    assert [m.name for m in rule.mirrors] == ["default/one", "default/two"]
    assert isinstance(rule.mirrors[0], Mirror)


GRANT = """\
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: gateway.envoyproxy.io, kind: Backend}]
---
"""


@pytest.mark.parametrize(
    ("grant", "reason"),
    [pytest.param(GRANT, "ResolvedRefs", id="granted"), pytest.param("", "RefNotPermitted", id="not")],
)
def test_a_mirror_into_another_namespace_needs_a_grant(load_text: LoadText, grant: str, reason: str) -> None:
    text = route("r", filters=mirror("copy", namespace="other")) + backend() + backend("copy", "other") + grant
    routing = load_text.compiled(text).routing
    assert condition_of(routing, "HTTPRoute", "r", "ResolvedRefs").reason == reason
    assert len(routing.rules[0].mirrors) == (reason == "ResolvedRefs")
    assert routing.rules[0].refusal is None


def test_a_mirror_of_a_backend_ref_is_resolved_but_not_carried_out(load_text: LoadText) -> None:
    text = route("r").replace("name: b}]", f"name: b, filters: {mirror('nowhere')}}}]") + backend()
    routing = load_text.compiled(text).routing
    condition = condition_of(routing, "HTTPRoute", "r", "ResolvedRefs")
    assert [cause.field for cause in condition.causes] == [
        "spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef"
    ]
    assert routing.rules[0].backend_refs[0].refusal is None


def test_a_mirror_to_what_a_policy_closes_is_left_out(load_text: LoadText) -> None:
    policy = """\
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: copy}]
  validation: {hostname: a.b, wellKnownCACertificates: System}
---
"""
    text = route("r", filters=mirror("copy")) + backend() + backend("copy") + policy
    assert load_text.compiled(text).routing.rules[0].mirrors == ()


def policy(name: str, target: str, kind: str = "BackendTrafficPolicy") -> str:
    return f"""\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: {kind}
metadata: {{name: {name}, generation: 2}}
spec: {{targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]}}
---
"""


OF_GATEWAY = policy("wide", "kind: Gateway, name: gw")
OF_ROUTE = policy("route", "kind: HTTPRoute, name: r")


@pytest.mark.parametrize(
    ("policies", "name", "expected"),
    [
        pytest.param(OF_GATEWAY, "wide", None, id="alone"),
        pytest.param(OF_GATEWAY + OF_ROUTE, "wide", "HTTPRoute default/r", id="by-a-route"),
        pytest.param(OF_GATEWAY + OF_ROUTE, "route", None, id="not-the-route-itself"),
        pytest.param(
            OF_GATEWAY + policy("section", "kind: Gateway, name: gw, sectionName: one"),
            "wide",
            "Gateway default/gw/one",
            id="by-a-listener",
        ),
        pytest.param(
            policy("section", "kind: Gateway, name: gw, sectionName: one") + OF_ROUTE,
            "section",
            "HTTPRoute default/r",
            id="a-listener-by-a-route",
        ),
        pytest.param(
            OF_ROUTE + policy("rule", "kind: HTTPRoute, name: r, sectionName: first"),
            "route",
            "HTTPRoute default/r/first",
            id="by-a-rule",
        ),
        pytest.param(OF_GATEWAY + policy("far", "kind: HTTPRoute, name: far"), "wide", None, id="a-route-elsewhere"),
    ],
)
def test_a_policy_says_where_a_more_specific_one_stands_in_its_place(
    load_text: LoadText, policies: str, name: str, expected: str | None
) -> None:
    text = (
        gateway("gw", "name: one, port: 80, protocol: HTTP")
        + gateway("other", "name: one, port: 80, protocol: HTTP, hostname: far.com")
        + route("r", "parentRefs: [{name: gw}]").replace("- matches", "- name: first\n    matches")
        + route("far", "parentRefs: [{name: other}]")
        + backend()
        + policies
    )
    compiled = load_text.compiled(text)
    found = [
        condition
        for status in compiled.routing.statuses
        if (status.kind, status.name) == ("BackendTrafficPolicy", name)
        for condition in status.conditions
        if condition.type == "Overridden"
    ]
    assert [(c.status, c.message, c.observed_generation) for c in found] == (
        [] if expected is None else [("True", f"another BackendTrafficPolicy says it for {expected}", 2)]
    )
    assert compiled.problems == ()


def test_without_a_gateway_a_policy_for_the_named_parent_is_overridden_too(load_text: LoadText) -> None:
    text = route("r", "parentRefs: [{name: gw}]") + backend() + OF_GATEWAY + OF_ROUTE
    condition = condition_of(load_text.compiled(text).routing, "BackendTrafficPolicy", "wide", "Overridden")
    assert condition.message.endswith("HTTPRoute default/r")


def test_a_long_list_of_places_is_cut(load_text: LoadText) -> None:
    names = [f"r{number}" for number in range(12)]
    text = gateway("gw", "name: one, port: 80, protocol: HTTP") + backend() + OF_GATEWAY
    text += "".join(route(n, path=f"/{n}") + policy(n, f"kind: HTTPRoute, name: {n}") for n in names)
    condition = condition_of(load_text.compiled(text).routing, "BackendTrafficPolicy", "wide", "Overridden")
    assert condition.message.count("HTTPRoute") == 10
    assert condition.message.endswith(", …")


def test_a_match_that_another_rule_takes_first_is_a_warning(load_text: LoadText) -> None:
    older = ', creationTimestamp: "2026-01-01T00:00:00Z"'
    text = route("new", path="/a") + route("old", path="/a/", metadata=older) + route("other", path="/b") + backend()
    (line,) = load_text.lines(text)
    assert line == (
        "warning: routes.yaml:1: HTTPRoute/new: spec.rules[0].matches[0]: "
        "never gets a request: rule 0 of HTTPRoute default/old asks for the same and comes first"
    )


def test_a_match_that_is_there_twice_in_a_route_is_a_warning(load_text: LoadText) -> None:
    text = route("r").replace("- matches: [{path: {value: /}}]", "- matches: [{path: {value: /}}, {}]") + backend()
    (line,) = load_text.lines(text)
    assert line.endswith("spec.rules[0].matches[1]: never gets a request: rule 0 asks for the same and comes first")
