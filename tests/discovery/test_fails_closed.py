"""What must not be left out: header changes that hold a credential back, foreign guards, rules that serve nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.load import Compiled, load

AI_ROUTE = """
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: ai}
spec:
  rules:
  - backendRefs:
    - {name: service, REF}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: service}
spec:
  schema: {name: OpenAI}
  backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: b}
  BACKEND
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 192.0.2.1, port: 80}}]}
---
"""


def compiled(tmp_path: Path, text: str) -> Compiled:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    loaded = load([file])
    assert not loaded.is_refused, loaded.problems
    return loaded.compile()


def ai_route(ref: str = "weight: 1", backend: str = "") -> str:
    return AI_ROUTE.replace("REF", ref).replace("BACKEND", backend)


def test_header_mutations_of_route_and_backend_are_merged_and_the_routes_word_counts(tmp_path: Path) -> None:
    text = ai_route(
        "headerMutation: {set: [{name: X-A, value: route}], remove: [X-B, Authorization]}",
        "headerMutation: {set: [{name: x-a, value: backend}, {name: x-b, value: b}, {name: x-c, value: c}]}",
    )
    result = compiled(tmp_path, text)
    assert result.problems == ()
    (ref,) = result.routing.rules[0].backend_refs
    mutation = ref.filters.request_headers
    assert mutation is not None
    assert dict(mutation.set) == {b"x-a": b"route", b"x-c": b"c"}
    assert mutation.remove == {b"x-b", b"authorization"}


@pytest.mark.parametrize(
    ("api_version", "kind", "target"),
    [
        pytest.param(
            "networking.gke.io/v1",
            "GCPTrafficExtension",
            "{kind: AIGatewayRoute, name: ai}",
            id="another-vendors-guard",
        ),
        pytest.param(
            "gateway.networking.k8s.io/v1alpha3", "BackendTLSPolicy", "{kind: Backend, name: b}", id="an-older-version"
        ),
    ],
)
def test_whatever_attaches_to_what_we_serve_and_is_not_known_closes_it(
    tmp_path: Path, api_version: str, kind: str, target: str
) -> None:
    group = {"AIGatewayRoute": "aigateway.envoyproxy.io", "Backend": "gateway.envoyproxy.io"}
    name = "AIGatewayRoute" if "AIGatewayRoute" in target else "Backend"
    target = target.replace("{", f"{{group: {group[name]}, ")
    guard = f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: guard}}\nspec: {{targetRefs: [{target}]}}\n"
    result = compiled(tmp_path, ai_route() + guard)
    (rule,) = result.routing.rules
    refusal = rule.refusal or rule.backend_refs[0].refusal
    assert refusal is not None
    assert refusal.reason == "unsupported_policy"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        pytest.param("[{}]", "it has no backendRefs: every request is answered with 500", id="no-backend-refs"),
        pytest.param(
            "[{backendRefs: [{kind: Service, name: s, port: 80, weight: 0}]}]", "all its weights are 0", id="no-weight"
        ),
        pytest.param(
            "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: x}]}},"
            " {type: RequestRedirect, requestRedirect: {hostname: a.example}}]}]",
            "the header Host is the gateway's own",
            id="host",
        ),
    ],
)
def test_what_is_hardly_meant_is_a_warning(tmp_path: Path, rules: str, said: str) -> None:
    text = (
        f"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec: {{rules: {rules}}}\n"
    )
    problems = [str(problem) for problem in compiled(tmp_path, text).problems]
    assert any(line.startswith("warning: ") and said in line for line in problems), problems


@pytest.mark.parametrize(
    "value", [pytest.param('"\\ud800"', id="half-a-surrogate-pair"), pytest.param("NaN", id="not-a-number")]
)
def test_json_that_is_none_is_a_line_and_no_traceback(tmp_path: Path, value: str) -> None:
    file = tmp_path / "f.json"
    file.write_text(f'{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": {value}, "x": "\\ud83d\\ude00"}}}}')
    loaded = load([file])
    assert loaded.is_refused
    assert [problem.file for problem in loaded.problems] == [str(file)]
