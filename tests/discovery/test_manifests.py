"""The manifests of three systems load, compile and route without a character changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.load import load
from discovery.resources.problem import Severity
from discovery.snapshot import MIB
from tests.discovery.loading import MANIFESTS, ask

PODS = {
    "gke": """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: gemma}
spec: {selector: {matchLabels: {app: gemma}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama}
spec: {selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gemma-0, labels: {app: gemma}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: llama-0, labels: {app: llama}}
status: {podIP: 10.0.0.2}
""",
    "ack": """\
apiVersion: v1
kind: Pod
metadata: {name: qwen-0, labels: {app: qwen}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: deepseek-0, labels: {app: deepseek-r1}}
status: {podIP: 10.0.0.2}
""",
    "envoy-ai-gateway": "",
}


@pytest.mark.parametrize("system", [pytest.param(name, id=name) for name in PODS])
def test_every_system_s_manifests_pass_check_together_with_their_pods(system: str, tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(PODS[system] or "# no pods\n", "utf-8")
    compiled = load([MANIFESTS / system, tmp_path / "pods.yaml"]).compile()
    assert [str(p) for p in compiled.problems if p.severity is not Severity.WARNING] == []
    assert all(compiled.membership[backend] for backend in compiled.routing.backends)


@pytest.mark.parametrize(
    ("system", "model", "endpoint"),
    [
        pytest.param("gke", "chatbot", "default/gemma-0/10.0.0.1:8000", id="gke-chatbot"),
        pytest.param("gke", "sentiment", "default/llama-0/10.0.0.2:8000", id="gke-sentiment"),
        pytest.param("ack", "qwen", "default/qwen-0/10.0.0.1:8000", id="ack-qwen"),
        pytest.param("ack", "deepseek-r1", "default/deepseek-0/10.0.0.2:8000", id="ack-deepseek"),
    ],
)
def test_a_model_gets_the_pods_of_its_own_pool(system: str, model: str, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(PODS[system], "utf-8")
    compiled = load([MANIFESTS / system, tmp_path]).compile()
    rule = ask(compiled.routing, model=model)
    assert rule is not None
    backend = rule.backend_refs[0].backend
    assert backend is not None
    assert [e.id for e in compiled.membership[backend.id]] == [endpoint]
    assert ask(compiled.routing, model="unknown") is None


def test_ack_s_policies_set_the_body_limit_and_the_day_long_timeout() -> None:
    routing = load([MANIFESTS / "ack"]).compile().routing
    (listener,) = routing.listeners
    assert listener.name == "default/inference-gateway/llm-gw"
    assert listener.body_limit == 20 * MIB
    assert {rule.policy.request_timeout_seconds for rule in routing.rules} == {24 * 3600.0}
    assert {rule.policy.first_byte_timeout_seconds for rule in routing.rules} == {24 * 3600.0}


@pytest.mark.parametrize(
    ("value", "endpoints"),
    [
        pytest.param(b"yes", ["127.0.0.1:8001", "127.0.0.1:8002"], id="yes-to-the-labelled-backends"),
        pytest.param(b"no", ["localhost:8003"], id="no-to-the-ai-service-backend"),
    ],
)
def test_an_ai_gateway_route_splits_by_an_ordinary_header(value: bytes, endpoints: list[str]) -> None:
    compiled = load([MANIFESTS / "envoy-ai-gateway"]).compile()
    rule = ask(compiled.routing, headers={b"x-target-inference-extension": value})
    assert rule is not None
    backend = rule.backend_refs[0].backend
    assert backend is not None
    assert [e.id for e in compiled.membership[backend.id]] == endpoints


def test_the_old_schema_field_of_an_ai_gateway_route_is_a_warning_only() -> None:
    loaded = load([MANIFESTS / "envoy-ai-gateway"])
    assert not loaded.is_refused
    assert [(p.severity, p.field) for p in loaded.problems] == [(Severity.WARNING, "spec.schema")]
