"""One call from paths to what is served, and all that is wrong in one run."""

from __future__ import annotations

from pathlib import Path

from discovery.load import load
from discovery.resources.problem import Severity
from tests.discovery.loading import LoadText, ask

TEXT = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: anything}]
  rules:
  - backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: nowhere}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoint: []}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm}
"""


def test_all_kinds_of_wrong_come_out_in_one_run_sorted_by_place(load_text: LoadText) -> None:
    assert load_text.lines(TEXT) == [
        "routes.yaml:1: HTTPRoute/r: spec.rules[0].backendRefs[0]: "
        "there is no Backend default/nowhere (BackendNotFound)",
        "warning: routes.yaml:1: HTTPRoute/r: spec.parentRefs: there is no Gateway anything: "
        "the route is attached to the one listener that is served",
        'routes.yaml:12: Backend/b: spec.endpoint: unknown field, did you mean "endpoints"?',
        "warning: routes.yaml:14: Deployment/vllm: skipped: Deployment of apps is not read",
    ]


def test_only_what_is_refused_keeps_serve_from_starting(load_text: LoadText) -> None:
    assert load_text(TEXT).is_refused
    invalid = load_text(TEXT.partition("---")[0])
    assert not invalid.is_refused
    compiled = invalid.compile()
    rule = ask(compiled.routing)
    assert rule is not None
    assert rule.backend_refs[0].refusal is not None
    assert Severity.INVALID in {p.severity for p in compiled.problems}


def test_what_has_not_changed_stays_the_same_object(load_text: LoadText) -> None:
    first = load_text(TEXT.partition("---")[0]).compile()
    again = load_text("# moved\n" + TEXT.partition("---")[0]).compile(previous=first)
    assert again.routing is first.routing
    assert again.membership is first.membership


def test_files_and_models_come_together(tmp_path: Path) -> None:
    (tmp_path / "ns.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n", "utf-8")
    resources = load([tmp_path], models=["a=http://b"]).resources
    assert resources.count() == 3
    assert [origin.file for origin in resources.origins.values()] == [
        str(tmp_path / "ns.yaml"),
        "--model a",
        "--model a",
    ]


def test_a_line_is_there_once_though_a_route_has_two_parents(load_text: LoadText) -> None:
    gateways = "".join(
        f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec: {{gatewayClassName: c, listeners: [{{name: http, port: 80, protocol: HTTP, hostname: {name}.com}}]}}
---
"""
        for name in ("one", "two")
    )
    route = TEXT.partition("---")[0].replace("[{name: anything}]", "[{name: one}, {name: two}]")
    assert len(load_text.lines(gateways + route)) == 1


def test_a_pool_without_endpoints_is_a_warning(load_text: LoadText) -> None:
    text = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: p}
spec: {selector: {app: x}, targetPortNumber: 8000}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m}
spec: {modelName: m, poolRef: {name: p}, targetModels: [{name: %s}]}
"""
    pool = (
        "warning: routes.yaml:1: InferencePool/p: no ready pods have its labels: requests to it are answered with 503"
    )
    assert load_text.lines(text % "m") == [pool]
    assert load_text.lines(text.replace(", targetPortNumber: 8000", "") % "m") == [
        pool.replace("no ready pods", "it names no port, and no AIServiceBackends")
    ]
