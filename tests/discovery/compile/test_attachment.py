"""Gateways, listeners, parentRefs: what is served where, and what is said of the rest."""

from __future__ import annotations

import msgspec
import pytest

from discovery.compile.attachment import ListenerPlan, intersect
from discovery.compile.index import Index
from discovery.resources.collection import Resources
from discovery.resources.gateway_api import HTTPRoute
from discovery.snapshot import Routing
from tests.discovery.loading import LoadText, ask, condition_of

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  gatewayClassName: c
  listeners: {listeners}
---
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {spec}
  rules: [{{backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b}}]}}]
---
"""
BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
---
"""


def gateway(listeners: str, name: str = "gw", namespace: str = "default") -> str:
    return GATEWAY.format(name=name, namespace=namespace, listeners=listeners)


def route(spec: str = "", name: str = "r", namespace: str = "default") -> str:
    return ROUTE.format(name=name, namespace=namespace, spec=spec) + BACKEND


HTTP = "[{name: http, protocol: HTTP, port: 80}]"


def test_without_a_gateway_every_route_attaches_to_one_listener_and_a_parent_ref_is_a_warning(
    load_text: LoadText,
) -> None:
    compiled = load_text.compiled(route("parentRefs: [{name: GATEWAY_NAME}]"))
    (listener,) = compiled.routing.listeners
    assert (listener.name, listener.hostname, listener.port) == ("", None, None)
    assert ask(compiled.routing) is not None
    assert [str(p).partition(": HTTPRoute")[2] for p in compiled.problems] == [
        "/r: spec.parentRefs: there is no Gateway GATEWAY_NAME: "
        "the route is attached to the one listener that is served"
    ]


def test_a_route_without_parents_attaches_to_every_gateway(load_text: LoadText) -> None:
    text = gateway("[{name: a, protocol: HTTP, port: 80, hostname: a.com}]") + gateway(
        "[{name: b, protocol: HTTP, port: 80, hostname: b.com}]", name="other"
    )
    routing = load_text.compiled(text + route()).routing
    assert ask(routing, host="a.com") is not None
    assert ask(routing, host="b.com") is not None
    assert ask(routing, host="c.com") is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param("parentRefs: [{name: gw}]", "Accepted", id="gateway"),
        pytest.param("parentRefs: [{name: gw, sectionName: http}]", "Accepted", id="section"),
        pytest.param("parentRefs: [{name: gw, port: 80}]", "Accepted", id="port"),
        pytest.param("parentRefs: [{name: gw, sectionName: http, port: 80}]", "Accepted", id="section-and-port"),
        pytest.param("parentRefs: [{name: other}]", "NoMatchingParent", id="no-such-gateway"),
        pytest.param("parentRefs: [{name: gw, namespace: x}]", "NoMatchingParent", id="no-such-namespace"),
        pytest.param("parentRefs: [{name: gw, sectionName: x}]", "NoMatchingParent", id="no-such-section"),
        pytest.param("parentRefs: [{name: gw, port: 81}]", "NoMatchingParent", id="no-such-port"),
        pytest.param("parentRefs: [{name: gw, sectionName: http, port: 81}]", "NoMatchingParent", id="both-must-hold"),
    ],
)
def test_a_parent_ref_names_a_gateway_and_perhaps_a_listener(load_text: LoadText, spec: str, reason: str) -> None:
    routing = load_text.compiled(gateway(HTTP) + route(spec)).routing
    assert condition_of(routing, "HTTPRoute", "r", "Accepted").reason == reason
    assert (ask(routing) is not None) == (reason == "Accepted")


def test_a_route_whose_parents_are_no_gateways_is_not_served_beside_a_gateway(load_text: LoadText) -> None:
    text = gateway(HTTP) + route("parentRefs: [{name: s, kind: Service, group: ''}]")
    compiled = load_text.compiled(text)
    assert ask(compiled.routing) is None
    assert "a parent of kind Service is not a Gateway, ignored" in str(compiled.problems[0])


NAMESPACES = """\
apiVersion: v1
kind: Namespace
metadata: {name: red, labels: {team: red}}
---
"""


@pytest.mark.parametrize(
    ("allowed", "namespace", "accepted"),
    [
        pytest.param("{}", "default", True, id="same-by-default"),
        pytest.param("{}", "red", False, id="another-by-default"),
        pytest.param("{namespaces: {from: All}}", "red", True, id="all"),
        pytest.param("{namespaces: {from: Selector, selector: {matchLabels: {team: red}}}}", "red", True, id="label"),
        pytest.param("{namespaces: {from: Selector, selector: {matchLabels: {team: red}}}}", "blue", False, id="none"),
        pytest.param(
            "{namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: blue}}}}",
            "blue",
            True,
            id="name-of-the-namespace",
        ),
        pytest.param(
            "{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: In, values: [red]}]}}}",
            "red",
            True,
            id="expression-in",
        ),
        pytest.param(
            "{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}}}",  # noqa: E501
            "red",
            False,
            id="expression-not-in",
        ),
        pytest.param(
            "{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: Exists}]}}}",
            "blue",
            False,
            id="expression-exists",
        ),
        pytest.param(
            "{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}}",
            "blue",
            True,
            id="expression-does-not-exist",
        ),
        pytest.param(
            "{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: Odd}]}}}",
            "red",
            False,
            id="unknown-operator",
        ),
        pytest.param("{namespaces: {from: Selector}}", "red", False, id="selector-left-out"),
        pytest.param("{kinds: [{kind: HTTPRoute}]}", "default", True, id="kind"),
        pytest.param("{kinds: [{kind: GRPCRoute}]}", "default", False, id="other-kind"),
    ],
)
def test_a_listener_takes_the_routes_that_it_allows(
    load_text: LoadText, allowed: str, namespace: str, *, accepted: bool
) -> None:
    listeners = f"[{{name: http, protocol: HTTP, port: 80, allowedRoutes: {allowed}}}]"
    text = NAMESPACES + gateway(listeners) + route("parentRefs: [{name: gw, namespace: default}]", namespace=namespace)
    condition = condition_of(load_text.compiled(text).routing, "HTTPRoute", "r", "Accepted")
    assert condition.reason == ("Accepted" if accepted else "NotAllowedByListeners")


def test_a_kind_that_no_listener_can_serve_is_said_on_the_listener(load_text: LoadText) -> None:
    listeners = "[{name: http, protocol: HTTP, port: 80, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]"
    routing = load_text.compiled(gateway(listeners)).routing
    condition = condition_of(routing, "Gateway", "gw", "ResolvedRefs", "default/gw/http")
    assert (condition.status, condition.reason) == ("False", "InvalidRouteKinds")


@pytest.mark.parametrize(
    ("listener", "hostnames", "expected"),
    [
        pytest.param(None, (), (), id="neither-has-one"),
        pytest.param("a.com", (), (), id="route-has-none"),
        pytest.param(None, ("a.com",), ("a.com",), id="listener-has-none"),
        pytest.param("a.com", ("a.com", "b.com"), ("a.com",), id="only-the-common-ones"),
        pytest.param("*.a.com", ("x.a.com", "a.com"), ("x.a.com",), id="wildcard-listener"),
        pytest.param("x.a.com", ("*.a.com",), ("*.a.com",), id="wildcard-route"),
        pytest.param("*.a.com", ("*.com",), ("*.com",), id="two-wildcards"),
        pytest.param("*.com", ("*.a.com",), ("*.a.com",), id="two-wildcards-the-other-way"),
        pytest.param("*.a.com", ("*.b.com",), None, id="two-that-do-not-meet"),
        pytest.param("a.com", ("b.com",), None, id="nothing-in-common"),
        pytest.param(None, ("A.com",), ("a.com",), id="case-is-nothing"),
    ],
)
def test_hostnames_of_listener_and_route_must_meet(
    listener: str | None, hostnames: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    assert intersect(listener, hostnames) == expected


def test_a_route_without_a_common_hostname_is_not_accepted(load_text: LoadText) -> None:
    listeners = "[{name: http, protocol: HTTP, port: 80, hostname: a.com}]"
    for parent in ("", "parentRefs: [{name: gw}]\n  "):
        routing = load_text.compiled(gateway(listeners) + route(f"{parent}hostnames: [b.com]")).routing
        assert condition_of(routing, "HTTPRoute", "r", "Accepted").reason == "NoMatchingListenerHostname"
        assert routing.rules == ()


def test_a_request_belongs_to_the_most_specific_listener_only(load_text: LoadText) -> None:
    text = gateway(
        "[{name: any, protocol: HTTP, port: 80}, {name: one, protocol: HTTP, port: 80, hostname: a.com}]"
    ) + route("parentRefs: [{name: gw, sectionName: any}]")
    routing = load_text.compiled(text).routing
    assert ask(routing, host="b.com") is not None
    assert ask(routing, host="a.com") is None


def test_https_and_tls_listeners_are_not_served_in_clear(load_text: LoadText) -> None:
    tls = "tls: {certificateRefs: [{name: cert}]}"
    listeners = f"[{{name: s, protocol: HTTPS, port: 443, {tls}}}, {{name: t, protocol: TLS, port: 444, {tls}}}]"
    text = gateway(listeners) + route("parentRefs: [{name: gw}]")
    compiled = load_text.compiled(text)
    assert compiled.routing.listeners == ()
    for name in ("s", "t"):
        condition = condition_of(compiled.routing, "Gateway", "gw", "Accepted", f"default/gw/{name}")
        assert (condition.status, condition.reason) == ("False", "UnsupportedProtocol")
    assert condition_of(compiled.routing, "Gateway", "gw", "Accepted").reason == "ListenersNotValid"
    assert condition_of(compiled.routing, "Gateway", "gw", "Programmed").status == "False"
    assert condition_of(compiled.routing, "HTTPRoute", "r", "Accepted").status == "False"
    assert "Gateway/gw: listener s: protocol HTTPS is not supported" in str(compiled.problems[0])


def test_a_second_listener_that_differs_only_in_port_is_conflicted(load_text: LoadText) -> None:
    listeners = "[{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTP, port: 8080}]"
    routing = load_text.compiled(gateway(listeners) + route("parentRefs: [{name: gw, sectionName: b}]")).routing
    assert [listener.name for listener in routing.listeners] == ["default/gw/a"]
    condition = condition_of(routing, "Gateway", "gw", "Conflicted", "default/gw/b")
    assert (condition.status, condition.reason) == ("True", "HostnameConflict")
    assert ask(routing) is None
    assert condition_of(routing, "Gateway", "gw", "Accepted").status == "True"


def test_attached_routes_are_counted_once_for_each_listener(load_text: LoadText) -> None:
    again = route("parentRefs: [{name: gw}]", name="two").replace(BACKEND, "")
    routing = load_text.compiled(gateway(HTTP) + route("parentRefs: [{name: gw}]") + again).routing
    assert [s.attached_routes for s in routing.statuses if s.parent == "default/gw/http" and s.kind == "Gateway"] == [2]


def test_a_route_without_parents_says_why_no_listener_takes_it(load_text: LoadText) -> None:
    far = gateway(HTTP, namespace="far")
    https = gateway("[{name: s, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: c}]}}]")
    for text, reason in ((far, "NotAllowedByListeners"), (https, "NoMatchingParent")):
        routing = load_text.compiled(text + route()).routing
        assert condition_of(routing, "HTTPRoute", "r", "Accepted").reason == reason
        assert routing.rules == ()


def test_the_implicit_listener_takes_every_route() -> None:
    assert ListenerPlan().allows(msgspec.convert(ROUTE_DATA, HTTPRoute), Index(Resources()))
    assert ListenerPlan().name == ""


ROUTE_DATA = {"group": "g", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {}}


def test_classes_and_pools_have_conditions_pools_for_each_gateway_that_uses_them(load_text: LoadText) -> None:
    pool = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: example.com/x}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: b}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}
---
"""
    gateways = "".join(
        gateway(f"[{{name: http, protocol: HTTP, port: 80, hostname: {name}.com}}]", name) for name in ("one", "two")
    )
    kinds = ("group: gateway.envoyproxy.io, kind: Backend", "group: inference.networking.k8s.io, kind: InferencePool")
    to_pool = route().replace(*kinds)
    routing = load_text.compiled(pool + gateways + to_pool.replace(BACKEND, "")).routing
    assert condition_of(routing, "GatewayClass", "c", "Accepted").status == "True"
    assert [s.parent for s in routing.statuses if s.kind == "InferencePool"] == ["default/one", "default/two"]


def test_a_pool_is_told_of_gateways_that_accept_none_of_its_routes(load_text: LoadText) -> None:
    pool = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: b}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}
---
"""
    named = "[{name: http, protocol: HTTP, port: 80, hostname: %s.com}]"
    gateways = gateway(named % "one", "one") + gateway(named % "two", "two")
    kinds = ("group: gateway.envoyproxy.io, kind: Backend", "group: inference.networking.k8s.io, kind: InferencePool")
    parents = "parentRefs: [{name: one}, {name: two, sectionName: nope}, {name: three}]"
    to_pool = route(parents).replace(*kinds).replace(BACKEND, "")

    def accepted(routing: Routing) -> dict[str | None, tuple[str, str]]:
        found = [s for s in routing.statuses if s.kind == "InferencePool"]
        return {s.parent: (c.status, c.reason) for s in found for c in s.conditions if c.type == "Accepted"}

    refused = {"default/one": ("True", "Accepted"), "default/two": ("False", "HTTPRouteNotAccepted")}
    assert accepted(load_text.compiled(pool + gateways + to_pool).routing) == refused
    more = route("parentRefs: [{name: two}]", name="two").replace(*kinds).replace(BACKEND, "")
    taken = {"default/one": ("True", "Accepted"), "default/two": ("True", "Accepted")}
    assert accepted(load_text.compiled(pool + gateways + to_pool + more).routing) == taken
