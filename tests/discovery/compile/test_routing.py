"""Rules, models and identity of the compiled routing; matches as they are written in routes."""

from __future__ import annotations

import pytest

from discovery.compile import compile_routing
from discovery.compile.matches import decode_unreserved
from discovery.compile.rules import CREATED_UNKNOWN
from discovery.snapshot import ModelCard
from tests.discovery.loading import LoadText, ask, condition_of

BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
---
"""
REFS = "backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]"


def route(rules: str, name: str = "r", metadata: str = "", spec: str = "") -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}{metadata}}}
spec:
  {spec}
  rules:
{rules}
---
"""


def rule(matches: str, rest: str = REFS) -> str:
    return f"  - matches: [{matches}]\n    {rest}\n"


def model(name: str, header: str = "X-Gateway-Model-Name") -> str:
    return f"{{headers: [{{name: {header}, value: '{name}'}}]}}"


@pytest.mark.parametrize("header", ["X-Gateway-Model-Name", "x-gateway-model-name", "x-ai-eg-model", "X-AI-EG-Model"])
def test_the_model_header_has_two_names_in_any_case(load_text: LoadText, header: str) -> None:
    routing = load_text.compiled(route(rule(model("qwen", header))) + BACKEND).routing
    assert ask(routing, model="qwen") is not None
    assert ask(routing, model="other") is None
    assert ask(routing) is None
    assert routing.model_names == {"qwen"}


def test_a_rule_without_a_model_match_is_the_default(load_text: LoadText) -> None:
    routing = load_text.compiled(route(rule("{}") + rule(model("qwen"))) + BACKEND).routing
    assert [ask(routing, model=name) for name in ("qwen", "other", None)] == [
        routing.rules[1],
        routing.rules[0],
        routing.rules[0],
    ]


@pytest.mark.parametrize(
    ("match", "asked", "holds"),
    [
        pytest.param("{method: GET}", {"method": "GET"}, True, id="method"),
        pytest.param("{method: GET}", {"method": "HEAD"}, False, id="other-method"),
        pytest.param("{path: {type: Exact, value: /a%41}}", {"path": "/aA"}, True, id="exact-path-decoded"),
        pytest.param("{path: {type: Exact, value: /a}}", {"path": "/a/"}, False, id="exact-path"),
        pytest.param("{path: {type: RegularExpression, value: '/v[12]/.*'}}", {"path": "/v2/x"}, True, id="regex"),
        pytest.param(
            "{path: {type: RegularExpression, value: '/v[12]'}}", {"path": "/v2/x"}, False, id="regex-in-full"
        ),
        pytest.param("{queryParams: [{name: a, value: '1'}]}", {"query": b"a=1"}, True, id="query"),
        pytest.param(
            "{queryParams: [{name: a, type: RegularExpression, value: '[0-9]'}]}",
            {"query": b"a=x"},
            False,
            id="query-re",
        ),
        pytest.param(
            "{headers: [{name: X-A, value: '1'}, {name: x-a, value: '2'}]}",
            {"headers": {b"x-a": b"1"}},
            True,
            id="of-two-matches-on-a-header-the-first-counts",
        ),
        pytest.param(
            "{headers: [{name: X-A, type: RegularExpression, value: 'a|b'}]}",
            {"headers": {b"x-a": b"ab"}},
            False,
            id="header-regex-in-full",
        ),
    ],
)
def test_matches_of_a_route(load_text: LoadText, match: str, asked: dict[str, object], *, holds: bool) -> None:
    routing = load_text.compiled(route(rule(match)) + BACKEND).routing
    assert (ask(routing, **asked) is not None) == holds  # type: ignore[arg-type]


def test_a_bad_regular_expression_drops_its_match_and_is_said(load_text: LoadText) -> None:
    bad = "{headers: [{name: x-a, type: RegularExpression, value: '('}]}"
    compiled = load_text.compiled(route(rule(f"{bad}, {model('qwen')}") + rule(bad)) + BACKEND)
    assert [r.id for r in compiled.routing.rules] == ["HTTPRoute/default/r/0"]
    assert ask(compiled.routing, model="qwen") is not None
    assert ask(compiled.routing) is None
    condition = condition_of(compiled.routing, "HTTPRoute", "r", "PartiallyInvalid")
    assert (condition.status, condition.reason) == ("True", "UnsupportedValue")
    assert "spec.rules[0].matches[0].headers[0].value: not a regular expression: missing )" in str(compiled.problems[0])
    only_bad = load_text.compiled(route(rule(bad)) + BACKEND).routing
    assert condition_of(only_bad, "HTTPRoute", "r", "Accepted").reason == "UnsupportedValue"
    for field in (
        "path: {type: RegularExpression, value: '['}",
        "queryParams: [{name: q, type: RegularExpression, value: '['}]",
    ):
        assert load_text.compiled(route(rule(f"{{{field}}}")) + BACKEND).routing.rules == ()


def test_precedence_over_routes_is_by_age_then_name(load_text: LoadText) -> None:
    old, new = (f', creationTimestamp: "202{year}-01-01T00:00:00Z"' for year in (4, 5))
    text = route(rule("{}"), "a", new) + route(rule("{}"), "b", old) + route(rule("{}"), "c")
    found = ask(load_text.compiled(text + BACKEND).routing)
    assert found is not None
    assert found.route == "default/b"
    text = route(rule("{}"), "b") + route(rule("{}"), "a")
    found = ask(load_text.compiled(text + BACKEND).routing)
    assert found is not None
    assert found.route == "default/a"


def test_rules_have_stable_ids_and_their_own_names(load_text: LoadText) -> None:
    routing = load_text.compiled(route("  - name: main\n    " + REFS + "\n" + rule("{}")) + BACKEND).routing
    assert [(r.id, r.name, r.route, r.route_kind) for r in routing.rules] == [
        ("HTTPRoute/default/r/0", "main", "default/r", "HTTPRoute"),
        ("HTTPRoute/default/r/1", "1", "default/r", "HTTPRoute"),
    ]


MODELS = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: pool}
spec: {selector: {app: x}, targetPortNumber: 8000}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, creationTimestamp: "2024-01-01T00:00:00Z"}
spec: {modelName: lora, poolRef: {name: pool}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: dangling}
spec: {modelName: unserved, poolRef: {name: nowhere}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: ai}
spec:
  hostnames: [ai.com]
  rules:
  - matches: [{headers: [{name: x-ai-eg-model, value: claude}]}]
    modelsOwnedBy: Anthropic
    modelsCreatedAt: "2025-06-01T00:00:00Z"
  - matches:
    - {headers: [{name: x-ai-eg-model, value: gpt}]}
    - {headers: [{name: x-ai-eg-model, type: RegularExpression, value: gpt.*}]}
---
"""


def test_models_are_exact_values_and_inference_models_of_used_pools(load_text: LoadText) -> None:
    pool = "backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]"
    dated = ', creationTimestamp: "2024-02-01T00:00:00Z"'
    text = route(rule(model("qwen"), pool), metadata=dated) + route(rule(model("plain")), "r2") + BACKEND + MODELS
    compiled = load_text.compiled(text)
    (listener,) = compiled.routing.listeners
    general = (
        ModelCard(id="lora", created=1704067200, owned_by="pointsman"),
        ModelCard(id="plain", created=CREATED_UNKNOWN, owned_by="pointsman"),
        ModelCard(id="qwen", created=1706745600, owned_by="pointsman"),
    )
    assert listener.table.models("api.example.com") == general
    assert listener.table.models("ai.com") == (
        ModelCard(id="claude", created=1748736000, owned_by="Anthropic"),
        ModelCard(id="gpt", created=CREATED_UNKNOWN, owned_by="Envoy AI Gateway"),
    )
    assert compiled.routing.model_names == {"claude", "gpt", "lora", "plain", "qwen", "unserved"}
    assert any("InferenceModel/dangling: there is no InferencePool" in str(p) for p in compiled.problems)


@pytest.mark.parametrize(
    ("match", "named"),
    [
        pytest.param("{path: {type: Exact, value: /v1/models}}", True, id="exact"),
        pytest.param("{path: {value: /v1/models}}", True, id="prefix"),
        pytest.param("{path: {value: /v1}}", False, id="shorter-prefix"),
        pytest.param("{}", False, id="default"),
    ],
)
def test_a_listener_says_whether_a_rule_names_the_models_path(load_text: LoadText, match: str, *, named: bool) -> None:
    (listener,) = load_text.compiled(route(rule(match)) + BACKEND).routing.listeners
    assert listener.models_path_rules == ({"HTTPRoute/default/r/0"} if named else frozenset())


def test_the_same_inputs_give_the_same_routing_whatever_pods_do(load_text: LoadText) -> None:
    text = route(rule("{}")) + BACKEND
    first = compile_routing(load_text(text).resources)
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: 10.0.0.1}\n---\n"
    assert compile_routing(load_text("# a comment\n" + pod + text).resources, previous=first) is first
    other = route(rule(model("new"))) + BACKEND
    assert compile_routing(load_text(other).resources, previous=first) is not first
    ignoring = compile_routing(load_text(text).resources, previous=first, ignored_policies=frozenset({"X"}))
    assert ignoring is not first


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        pytest.param("/a", "/a", id="plain"),
        pytest.param("/%61%2D%7e", "/a-~", id="unreserved"),
        pytest.param("/%20%2B", "/%20%2B", id="others-stay"),
        pytest.param("/%", "/%", id="lone-percent"),
        pytest.param("/%zz", "/%zz", id="not-hex"),
    ],
)
def test_only_unreserved_characters_are_decoded(path: str, decoded: str) -> None:
    assert decode_unreserved(path) == decoded


def test_a_pool_has_a_model_s_name_once_and_the_older_object_counts(load_text: LoadText) -> None:
    text = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: p}
spec: {selector: {app: x}, targetPortNumber: 8000}
---
"""
    for name, created in (("new", "2026-02-01"), ("old", "2026-01-01")):
        text += f"""\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}, creationTimestamp: "{created}T00:00:00Z"}}
spec: {{modelName: llama, poolRef: {{name: p}}}}
---
"""
    routing = load_text.compiled(text).routing
    assert condition_of(routing, "InferenceModel", "old", "Accepted").status == "True"
    condition = condition_of(routing, "InferenceModel", "new", "Accepted")
    assert (condition.status, condition.reason) == ("False", "ModelNameInUse")
    assert condition.message == "default/old has the name llama in default/p already"
