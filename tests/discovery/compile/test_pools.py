"""What do a pool's own fields, its annotation, objectives and models say of its endpoints and requests?"""

from __future__ import annotations

import pytest

from discovery.backend import PoolSettings
from tests.discovery.loading import LoadText

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec:
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]}]
---
"""


def pool(picker: str = "", annotations: str = "") -> str:
    return f"""\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: pool, annotations: {{{annotations}}}}}
spec:
  selector: {{matchLabels: {{app: x}}}}
  targetPorts: [{{number: 8000}}]
  {picker}
---
"""


def old_pool(picker: str = "") -> str:
    return f"""\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: pool}}
spec:
  selector: {{app: x}}
  targetPortNumber: 8000
  {picker}
---
"""


def objective(name: str, priority: int, *, group: str = "inference.networking.x-k8s.io", target: str = "pool") -> str:
    return f"""\
apiVersion: {group}/v1alpha2
kind: InferenceObjective
metadata: {{name: {name}}}
spec: {{priority: {priority}, poolRef: {{name: {target}}}}}
---
"""


def model(name: str, criticality: str = "", *, model_name: str = "qwen", created: str = "2026-01-01") -> str:
    given = f"criticality: {criticality}, " if criticality else ""
    return f"""\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}, creationTimestamp: "{created}T00:00:00Z"}}
spec: {{modelName: {model_name}, {given}poolRef: {{name: pool}}}}
---
"""


def settings(load_text: LoadText, text: str) -> PoolSettings:
    (backend,) = load_text.compiled(ROUTE + text).routing.backends.values()
    assert backend.pool is not None
    return backend.pool


PICKER = "endpointPickerRef: {name: epp, port: {number: 1}%s}"


@pytest.mark.parametrize(
    ("text", "fails_open"),
    [
        pytest.param(pool(), True, id="no-picker"),
        pytest.param(pool(PICKER % ""), True, id="unset-is-open-as-our-picker-always-answers"),
        pytest.param(pool(PICKER % ", failureMode: FailOpen"), True, id="open"),
        pytest.param(pool(PICKER % ", failureMode: FailClose"), False, id="close"),
        pytest.param(old_pool(), True, id="v1alpha2-without"),
        pytest.param(old_pool("extensionRef: {name: epp}"), True, id="v1alpha2-unset"),
        pytest.param(old_pool("extensionRef: {name: epp, failureMode: FailClose}"), False, id="v1alpha2-close"),
        pytest.param(old_pool("extensionRef: {name: epp, failureMode: FailOpen}"), True, id="v1alpha2-open"),
    ],
)
def test_the_failure_mode(load_text: LoadText, text: str, fails_open: bool) -> None:
    assert settings(load_text, text).fails_open is fails_open


@pytest.mark.parametrize(
    ("value", "by_load_alone", "warnings"),
    [("DEFAULT", True, 0), ("PREFIX_CACHE", False, 0), ("FASTEST", False, 1)],
)
def test_the_routing_strategy(load_text: LoadText, value: str, by_load_alone: bool, warnings: int) -> None:
    text = pool(annotations=f"inference.networking.x-k8s.io/routing-strategy: {value}")
    assert settings(load_text, text).by_load_alone is by_load_alone
    told = [problem for problem in load_text.compiled(ROUTE + text).problems if "routing-strategy" in problem.field]
    assert len(told) == warnings


def test_priorities_of_objectives_and_models(load_text: LoadText) -> None:
    text = (
        pool()
        + objective("batch", -1)
        + objective("both", 1)
        + objective("both", 2, group="llm-d.ai")
        + objective("elsewhere", 5, target="other")
        + model("a", "Critical", model_name="vip")
        + model("b", model_name="standard")
        + model("c", "Sheddable", created="2025-01-01")
        + model("d", "Critical", created="2026-01-01")
    )
    found = settings(load_text, text)
    assert dict(found.priorities) == {"batch": -1, "both": 2}
    assert dict(found.model_priorities) == {"vip": 1, "standard": 0, "qwen": -1}  # the older InferenceModel has qwen


def test_an_objective_of_no_pool_is_told(load_text: LoadText) -> None:
    problems = load_text.compiled(ROUTE + pool() + objective("lost", 1, target="nowhere")).problems
    (line,) = [str(problem) for problem in problems if problem.kind == "InferenceObjective"]
    assert "there is no InferencePool default/nowhere: the objective has no effect" in line
