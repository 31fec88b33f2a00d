"""Why a request gets its rule: the winner is the table's, and every other entry lost by something."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings

from discovery.explain import Loss, RouteExplanation, explain_route, explain_route_in_slices
from discovery.route_entry import MODEL_HEADER, RouteEntry, RouteRequest
from discovery.routing_table import RoutingTable
from discovery.snapshot import Listener, Routing
from tests.discovery.loading import LoadText
from tests.discovery.test_routing_table import entry_lists, requests

BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
---
"""


def route(name: str, *matches: str, hostnames: str = "[]", metadata: str = "") -> str:
    rules = "".join(
        f"  - matches: [{match}]\n    backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b}}]\n"
        for match in matches
    )
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}{metadata}}}
spec:
  hostnames: {hostnames}
  rules:
{rules}---
"""


def gateway(*listeners: str) -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec: {{gatewayClassName: c, listeners: [{", ".join(listeners)}]}}
---
"""


def model(name: str) -> str:
    return f"{{headers: [{{name: x-gateway-model-name, value: {name}}}]}}"


def asked(
    model: str | None = None,
    *,
    host: str = "api.example.com",
    path: str = "/v1/chat/completions",
    method: str = "POST",
    query: bytes = b"",
    headers: dict[bytes, bytes] | None = None,
) -> RouteRequest:
    sent = dict(headers or {}) | ({MODEL_HEADER: model.encode()} if model is not None else {})
    return RouteRequest(method=method, host=host, path=path, headers=sent, query=query)


def losses(explanation: RouteExplanation) -> dict[str, list[Loss]]:
    return {other.entry.rule.id.removeprefix("HTTPRoute/default/"): [*other.losses] for other in explanation.others}


def only(explanation: RouteExplanation) -> Loss:
    ((loss,),) = losses(explanation).values()
    return loss


@pytest.mark.parametrize(
    ("match", "request_", "expected"),
    [
        pytest.param(model("llama"), asked("qwen"), "model: the model is not llama", id="model"),
        pytest.param(model("llama"), asked(), "model: the model is not llama", id="no-model"),
        pytest.param(
            "{path: {value: /v2}}", asked(path="/v1"), "path: the path /v1 is not that of prefix /v2", id="prefix"
        ),
        pytest.param(
            "{path: {type: Exact, value: /v1}}", asked(path="/v1/"), "path: the path /v1/ is not that of exact /v1",
            id="exact",
        ),
        pytest.param(
            "{path: {type: RegularExpression, value: /v2.*}}",
            asked(path="/v1"),
            "path: the path /v1 is not that of regular expression /v2.*",
            id="regex",
        ),
        pytest.param("{method: GET}", asked(), "method: the method is POST, not GET", id="method"),
        pytest.param(
            "{headers: [{name: X-Team, value: red}]}", asked(), "header: there is no header x-team", id="no-header"
        ),
        pytest.param(
            "{headers: [{name: X-Team, value: red}]}",
            asked(headers={b"x-team": b"blue"}),
            "header: the header x-team is not red",
            id="header",
        ),
        pytest.param(
            "{headers: [{name: Authorization, value: Bearer sk}]}",
            asked(headers={b"authorization": b"Bearer other"}),
            "header: the header authorization is not ***",
            id="credential",
        ),
        pytest.param(
            "{headers: [{type: RegularExpression, name: X-Team, value: r.d}]}",
            asked(headers={b"x-team": b"blue"}),
            "header: the header x-team is not as the expression r.d describes it",
            id="header-regex",
        ),
        pytest.param(
            "{queryParams: [{name: v, value: '1'}]}", asked(query=b"v=2"), "query: the query parameter v is not 1",
            id="query",
        ),
    ],
)  # fmt: skip
def test_a_condition_that_does_not_hold_is_named(
    load_text: LoadText, match: str, request_: RouteRequest, expected: str
) -> None:
    explanation = explain_route(load_text.compiled(route("r", match) + BACKEND).routing, request_)
    assert explanation.rule is None
    loss = only(explanation)
    assert f"{loss.criterion}: {loss.reason}" == expected


OLDER = ', creationTimestamp: "2025-01-01T00:00:00Z"'


@pytest.mark.parametrize(
    ("winner", "loser", "expected"),
    [
        pytest.param("{path: {type: Exact, value: /v1}}", "{path: {value: /v1}}", "its path is of a kind", id="kind"),
        pytest.param("{path: {value: /v1}}", "{path: {value: /}}", "its path is longer", id="length"),
        pytest.param("{method: POST}", "{}", "it asks for a method", id="method"),
        pytest.param("{headers: [{name: a, value: b}]}", "{}", "it asks for more headers", id="headers"),
        pytest.param("{queryParams: [{name: a, value: b}]}", "{}", "it asks for more query parameters", id="query"),
        pytest.param("{}", "{path: {value: /}}", "its route comes first by name", id="name"),
    ],
)
def test_what_matched_too_lost_by_precedence(load_text: LoadText, winner: str, loser: str, expected: str) -> None:
    text = route("a", winner) + route("b", loser) + BACKEND
    request = asked(path="/v1", headers={b"a": b"b"}, query=b"a=b")
    explanation = explain_route(load_text.compiled(text).routing, request)
    assert explanation.rule is not None
    assert explanation.rule.route == "default/a"
    loss = only(explanation)
    assert loss.criterion == "precedence"
    assert loss.reason.startswith(f"rule HTTPRoute/default/a/0 comes first: {expected}")


def test_ties_are_broken_by_age_name_and_order(load_text: LoadText) -> None:
    text = route("z", "{}", "{}", metadata=OLDER) + route("y", "{}") + route("x", "{}") + BACKEND
    explanation = explain_route(load_text.compiled(text).routing, asked())
    assert {rule: [loss.reason for loss in found] for rule, found in losses(explanation).items()} == {
        "z/1": ["rule HTTPRoute/default/z/0 comes first: it comes first in the route"],
        "x/0": ["rule HTTPRoute/default/z/0 comes first: its route is older"],
        "y/0": ["rule HTTPRoute/default/z/0 comes first: its route is older"],
    }


def test_hostnames_and_listeners_are_explained(load_text: LoadText) -> None:
    text = (
        gateway(
            "{name: a, port: 80, protocol: HTTP, hostname: '*.example.com'}",
            "{name: b, port: 80, protocol: HTTP}",
            "{name: c, port: 80, protocol: HTTP, hostname: c.com}",
        )
        + route("exact", "{}", hostnames="[api.example.com]")
        + route("wild", "{}", hostnames="['*.example.com']")
        + route("other", "{}", hostnames="[other.example.com]")
        + route("far", "{}", hostnames="[c.com]")
        + BACKEND
    )
    explanation = explain_route(load_text.compiled(text).routing, asked())
    assert explanation.listener is not None
    assert (explanation.listener.name, explanation.hostname) == ("default/gw/a", "api.example.com")
    told = {
        (other.listener, other.entry.rule.route.removeprefix("default/")): other.losses[0]
        for other in explanation.others
    }
    assert told["default/gw/a", "wild"].reason == (
        "the host belongs to the more specific hostname api.example.com, and its routes alone are asked"
    )
    assert told["default/gw/a", "other"].reason == "the host api.example.com is not one of other.example.com"
    assert told["default/gw/b", "wild"].reason == (
        "the host belongs to listener default/gw/a, which is more specific than default/gw/b"
    )
    assert told["default/gw/c", "far"].reason == "listener default/gw/c takes c.com, not api.example.com"
    assert ("default/gw/b", "exact") not in told  # the rule that won


def test_a_listener_on_another_port_and_a_host_that_none_takes(load_text: LoadText) -> None:
    text = gateway("{name: a, port: 80, protocol: HTTP}") + route("r", "{}") + BACKEND
    explanation = explain_route(load_text.compiled(text).routing, asked(), port=81)
    assert (explanation.listener, explanation.rule) == (None, None)
    assert only(explanation).reason == "listener default/gw/a has port 80, not 81"
    assert explain_route(Routing(), asked()) == RouteExplanation()


def test_the_nearest_come_first_and_the_rest_is_counted(load_text: LoadText) -> None:
    wrong_host = route("host", model("m"), hostnames="[elsewhere.com]")
    text = (
        wrong_host
        + route("both", "{method: GET, headers: [{name: x-gateway-model-name, value: other}]}")
        + route("one", *(model(f"m{n}") for n in range(3)))
        + route("default", "{}")
        + route("best", model("m"))
        + BACKEND
    )
    routing = load_text.compiled(text).routing
    explanation = explain_route(routing, asked("m"), limit=5)
    assert explanation.rule is not None
    assert explanation.rule.route == "default/best"
    assert [*losses(explanation)] == ["default/0", "one/0", "one/1", "one/2", "host/0"]
    assert explanation.left_out == 1
    assert asyncio.run(explain_route_in_slices(routing, asked("m"), limit=5)) == explanation


def test_the_json_form_masks_credentials(load_text: LoadText) -> None:
    text = route("r", "{headers: [{name: Authorization, value: Bearer sk}]}") + route("s", "{}") + BACKEND
    described = explain_route(load_text.compiled(text).routing, asked()).as_dict()
    assert "sk" not in str(described)
    assert described == {
        "listener": "",
        "hostname": None,
        "match": {"rule": "HTTPRoute/default/s/0", "path": {"type": "PathPrefix", "value": "/"}},
        "rule": "HTTPRoute/default/s/0",
        "others": [
            {
                "listener": "",
                "match": {
                    "rule": "HTTPRoute/default/r/0",
                    "path": {"type": "PathPrefix", "value": "/"},
                    "headers": [{"name": "authorization", "type": "Exact", "value": "***"}],
                },
                "because": [{"criterion": "header", "reason": "there is no header authorization"}],
            }
        ],
        "othersLeftOut": 0,
    }
    assert explain_route(Routing(), asked()).as_dict()["rule"] is None


@settings(max_examples=100, deadline=None)
@given(entries=entry_lists(), request=requests())
def test_the_explanation_agrees_with_the_table(entries: list[RouteEntry], request: RouteRequest) -> None:
    table = RoutingTable(entries)
    routing = Routing(listeners=(Listener(name="", hostname=None, port=None, table=table),))
    explanation = explain_route(routing, request)
    assert explanation.rule == table.match(request)
    assert all(other.losses for other in explanation.others)
    if explanation.entry is None:
        assert len(explanation.others) == len(entries)
