"""Which model is a pool asked for? InferenceModels and InferenceModelRewrites, from YAML to the compiled rule."""

from __future__ import annotations

import pytest

from discovery.filters import ModelTargets
from discovery.load import Compiled
from discovery.snapshot import BackendRef
from tests.discovery.loading import LoadText, ask, condition_of

POOL = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  rules:
  - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: p}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {group: inference.networking.k8s.io, kind: InferencePool, name: q}}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec:
  selector: {matchLabels: {app: x}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: e, port: {number: 1}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: q}
spec: {selector: {app: y}, targetPortNumber: 8000, extensionRef: {name: e}}
"""


def model(name: str, targets: str, *, pool: str = "p", metadata: str = "", asked: str = "food") -> str:
    return f"""---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}{metadata}}}
spec: {{modelName: {asked}, poolRef: {{name: {pool}}}, targetModels: {targets}}}
"""


def rewrite(name: str, rules: str, *, pool: str = "name: p", metadata: str = "", group: str = "llm-d.ai") -> str:
    return f"""---
apiVersion: {group}/v1alpha2
kind: InferenceModelRewrite
metadata: {{name: {name}{metadata}}}
spec: {{poolRef: {{{pool}}}, rules: {rules}}}
"""


def exact(asked: str, target: str) -> str:
    return f"{{matches: [{{model: {{value: {asked}}}}}], targets: [{{modelRewrite: {target}}}]}}"


def ref_of(compiled: Compiled) -> BackendRef:
    rule = ask(compiled.routing, model="anything")
    assert rule is not None
    return rule.backend_refs[0]


def asked_for(compiled: Compiled, name: str) -> dict[str, int] | None:
    """The names that a client's name leads to, with their weights."""
    rewrites = ref_of(compiled).model_rewrites
    targets = rewrites.by_model.get(name, rewrites.generic) if rewrites is not None else None
    return None if targets is None else {target.name: target.weight for target in targets.targets}


def test_an_inference_models_targets_stand_for_its_name_at_its_pool_only(load_text: LoadText) -> None:
    compiled = load_text.compiled(POOL + model("m", "[{name: a, weight: 9}, {name: b, weight: 1}]"))
    assert asked_for(compiled, "food") == {"a": 9, "b": 1}
    assert asked_for(compiled, "other") is None
    rule = ask(compiled.routing, model="food")
    assert rule is not None
    assert rule.mirrors[0].model_rewrites is None
    assert {"food", "a", "b"} <= compiled.routing.model_names


def test_a_mirror_has_the_rewrites_of_its_own_pool(load_text: LoadText) -> None:
    compiled = load_text.compiled(POOL + model("m", "[{name: a}]", pool="q"))
    rule = ask(compiled.routing, model="food")
    assert rule is not None
    assert rule.backend_refs[0].model_rewrites is None
    assert rule.mirrors[0].model_rewrites is not None
    assert list(rule.mirrors[0].model_rewrites.by_model) == ["food"]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        pytest.param("[{name: a}, {name: b}]", {"a": 1, "b": 1}, id="all-alike"),
        pytest.param("[]", None, id="none"),
    ],
)
def test_weights_of_inference_models(load_text: LoadText, targets: str, expected: dict[str, int] | None) -> None:
    assert asked_for(load_text.compiled(POOL + model("m", targets)), "food") == expected


@pytest.mark.parametrize(
    ("targets", "expected", "total"),
    [
        pytest.param("[{modelRewrite: a}, {modelRewrite: b}]", {"a": 1, "b": 1}, 2, id="all-alike"),
        pytest.param("[{modelRewrite: a, weight: 3}, {modelRewrite: b}]", {"a": 3, "b": 0}, 3, id="mixed"),
    ],
)
def test_weights_of_rewrites(load_text: LoadText, targets: str, expected: dict[str, int], total: int) -> None:
    compiled = load_text.compiled(POOL + rewrite("r", f"[{{targets: {targets}}}]"))
    assert asked_for(compiled, "whatever") == expected
    rewrites = ref_of(compiled).model_rewrites
    assert rewrites is not None
    assert isinstance(rewrites.generic, ModelTargets)
    assert (rewrites.generic.total_weight, rewrites.generic.source) == (total, "InferenceModelRewrite default/r")


OLD, NEW = ", creationTimestamp: '2026-01-01T00:00:00Z'", ", creationTimestamp: '2026-02-01T00:00:00Z'"
GENERIC = "{targets: [{modelRewrite: generic}]}"


@pytest.mark.parametrize(
    ("objects", "name", "expected"),
    [
        pytest.param(rewrite("r", f"[{GENERIC}, {exact('food', 'a')}]"), "food", "a", id="exact-before-generic"),
        pytest.param(rewrite("r", f"[{GENERIC}, {exact('food', 'a')}]"), "drink", "generic", id="generic-for-the-rest"),
        pytest.param(
            rewrite("r", f"[{GENERIC}]", metadata=OLD) + rewrite("s", f"[{exact('food', 'a')}]", metadata=NEW),
            "food", "a", id="exact-of-a-younger-object",
        ),
        pytest.param(
            rewrite("a", f"[{exact('food', 'young')}]", metadata=NEW)
            + rewrite("b", f"[{exact('food', 'old')}]", metadata=OLD),
            "food", "old", id="oldest",
        ),
        pytest.param(
            rewrite("y", f"[{exact('food', 'b')}]", metadata=OLD)
            + rewrite("x", f"[{exact('food', 'a')}]", metadata=OLD),
            "food", "a", id="then-by-name",
        ),
        pytest.param(
            rewrite("r", f"[{exact('food', 'first')}, {exact('food', 'second')}]"), "food", "first", id="rule-order"
        ),
        pytest.param(
            rewrite("r", "[{matches: [{model: {value: x}}, {model: {value: food}}], targets: [{modelRewrite: a}]}]"),
            "food", "a", id="any-of-the-matches",
        ),
        pytest.param(
            model("m", "[{name: m}]") + rewrite("r", f"[{exact('food', 'a')}]"), "food", "a", id="exact-before-models"
        ),
        pytest.param(model("m", "[{name: m}]") + rewrite("r", f"[{GENERIC}]"), "food", "m", id="models-before-generic"),
        pytest.param(model("m", "[]") + rewrite("r", f"[{GENERIC}]"), "food", "generic", id="a-model-without-targets"),
        pytest.param(
            model("m", "[{name: a}]", metadata=NEW) + model("n", "[{name: b}]", metadata=OLD), "food", "b",
            id="the-older-model-has-the-name",
        ),
        pytest.param(
            rewrite("r", f"[{exact('food', 'a')}, {exact('a', 'b')}]"), "food", "a", id="a-target-is-not-looked-up"
        ),
        pytest.param(
            rewrite("r", f"[{exact('food', 'a')}]", group="inference.networking.x-k8s.io"), "food", "a",
            id="either-group",
        ),
    ],
)  # fmt: skip
def test_precedence(load_text: LoadText, objects: str, name: str, expected: str) -> None:
    assert asked_for(load_text.compiled(POOL + objects), name) == {expected: 1}


@pytest.mark.parametrize(
    ("objects", "kind", "name", "expected"),
    [
        pytest.param(
            rewrite("r", f"[{GENERIC}]"), "InferenceModelRewrite", "r", ("Accepted", "True", "Accepted"), id="good"
        ),
        pytest.param(
            rewrite("r", f"[{GENERIC}]", pool="name: none"), "InferenceModelRewrite", "r",
            ("ResolvedRefs", "False", "BackendNotFound"), id="no-pool",
        ),
        pytest.param(
            rewrite("r", f"[{GENERIC}]", pool="name: p, kind: Service, group: ''"), "InferenceModelRewrite", "r",
            ("ResolvedRefs", "False", "InvalidKind"), id="no-kind-of-pool",
        ),
        pytest.param(
            rewrite("r", "[{targets: [{modelRewrite: ''}]}]"), "InferenceModelRewrite", "r",
            ("Accepted", "False", "Invalid"), id="empty-name",
        ),
        pytest.param(
            rewrite("r", '[{targets: [{modelRewrite: "a\\r\\nx: y"}]}]'), "InferenceModelRewrite", "r",
            ("Accepted", "False", "Invalid"), id="control-characters",
        ),
        pytest.param(
            model("m", '[{name: "a\\n"}]'), "InferenceModel", "m", ("Accepted", "False", "Invalid"), id="model-target"
        ),
        pytest.param(
            model("m", "[]", metadata=OLD) + model("n", "[{name: b}]", metadata=NEW), "InferenceModel", "n",
            ("Accepted", "False", "ModelNameInUse"), id="name-in-use",
        ),
        pytest.param(
            model("m", "[]", pool="none"), "InferenceModel", "m", ("ResolvedRefs", "False", "BackendNotFound"),
            id="model-without-pool",
        ),
    ],
)  # fmt: skip
def test_conditions(load_text: LoadText, objects: str, kind: str, name: str, expected: tuple[str, str, str]) -> None:
    compiled = load_text(POOL + objects).compile()
    type_, status, reason = expected
    condition = condition_of(compiled.routing, kind, name, type_)
    assert (condition.status, condition.reason) == (status, reason)
    if status == "False":
        assert any(str(problem).count(f"{kind}/{name}") for problem in compiled.problems)
        targets = asked_for(compiled, "food")
        assert targets is None


def test_another_pools_objects_have_no_say(load_text: LoadText) -> None:
    assert asked_for(load_text.compiled(POOL + rewrite("r", f"[{GENERIC}]", pool="name: q")), "food") is None


# -- AIGatewayRoute -------------------------------------------------------------------------------------------------


def ai_route(ref: str, backend: str = "") -> str:
    return f"""\
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {{name: ai}}
spec:
  rules:
  - backendRefs: [{{name: b, {ref}}}]
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {{name: b}}
spec:
  schema: {{name: OpenAI}}
  backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: b}}
  {backend}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: 8000}}}}]}}
"""


def test_an_override_stands_for_every_name(load_text: LoadText) -> None:
    compiled = load_text.compiled(ai_route("modelNameOverride: big"))
    assert asked_for(compiled, "anything") == {"big": 1}
    assert compiled.problems == ()


def test_an_override_that_no_header_can_say_is_refused(load_text: LoadText) -> None:
    compiled = load_text(ai_route('modelNameOverride: "a\\n"')).compile()
    refusal = ref_of(compiled).refusal
    assert refusal is not None
    assert refusal.reason == "invalid_backend_ref"
    assert condition_of(compiled.routing, "AIGatewayRoute", "ai", "ResolvedRefs").reason == "UnsupportedValue"


@pytest.mark.parametrize(
    ("ref", "backend", "sets", "removes"),
    [
        pytest.param("bodyMutation: {remove: [user]}", "", {}, ("user",), id="route-removes"),
        pytest.param("weight: 1", "bodyMutation: {set: [{path: a, value: '1'}]}", {"a": b"1"}, (), id="backend-sets"),
        pytest.param(
            "bodyMutation: {set: [{path: a, value: '[1, 2]'}], remove: [b]}",
            "bodyMutation: {set: [{path: a, value: '1'}, {path: b, value: '2'}, {path: c, value: 'true'}],"
            " remove: [d]}",
            {"a": b"[1, 2]", "c": b"true"}, ("d", "b"), id="the-routes-word-counts",
        ),
        pytest.param(
            "bodyMutation: {set: [{path: a, value: x}, {path: b, value: '\"y\"'}, {path: c, value: '{'}]}", "",
            {"a": b'"x"', "b": b'"y"', "c": b'"{"'}, (), id="what-is-no-json-is-a-string",
        ),
        pytest.param(
            "bodyMutation: {set: [{path: a, value: '1'}], remove: [a]}", "", {"a": b"1"}, (), id="removing-comes-first"
        ),
    ],
)  # fmt: skip
def test_body_mutations_of_route_and_backend_are_one(
    load_text: LoadText, ref: str, backend: str, sets: dict[str, bytes], removes: tuple[str, ...]
) -> None:
    compiled = load_text.compiled(ai_route(ref, backend))
    mutation = ref_of(compiled).filters.body
    assert mutation is not None
    assert (dict(mutation.set), mutation.remove) == (sets, removes)
    assert compiled.problems == ()


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        pytest.param(
            "modelNameOverride: a, bodyMutation: {set: [{path: model, value: '\"b\"'}]}",
            {"b": 1},
            id="set-after-override",
        ),
        pytest.param("modelNameOverride: a, bodyMutation: {remove: [model]}", None, id="removed"),
        pytest.param("modelNameOverride: a, bodyMutation: {set: [{path: model, value: '7'}]}", {"a": 1}, id="no-name"),
    ],
)
def test_a_body_mutation_of_the_model_is_known_as_the_name_that_is_asked_for(
    load_text: LoadText, ref: str, expected: dict[str, int] | None
) -> None:
    assert asked_for(load_text.compiled(ai_route(ref)), "anything") == expected
