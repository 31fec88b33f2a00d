"""Would an API server take what `k8s/` builds? Every overlay and component, by the schemas of old and new Kubernetes
and by those of the CRDs that we ship."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

from app.tracing.settings import read_tracing_settings
from tests.k8s.kustomize import COMPONENTS, K8S, PARTS, ROOTS, build, build_over, find
from tests.k8s.schemas import OLDEST, refusals

every_root = pytest.mark.parametrize("root", [pytest.param(root, id=root or "k8s") for root in ROOTS])


def test_every_kustomization_is_known_to_the_tests() -> None:
    known = {K8S / name for name in (*ROOTS, *PARTS)} | {K8S / "components" / name for name in COMPONENTS}
    for file in K8S.rglob("kustomization.yaml"):
        assert file.parent in known or file.parent.parent == K8S / "overlays" / "demo", file


@every_root
@pytest.mark.parametrize("version", [OLDEST, str(kubernetes_validate.latest_version())])
def test_an_overlay_builds_to_what_kubernetes_would_store(root: str, version: str, tmp_path: Path) -> None:
    assert refusals(build(K8S / root), version, tmp_path) == []


@pytest.mark.parametrize(
    ("component", "root"),
    [
        pytest.param(component, root, id=f"{component}-{root or 'k8s'}")
        for component in COMPONENTS
        for root in ROOTS
        # Jaeger is in its own overlay already; the demo's gateways have names of their own.
        if (component, root) not in {("jaeger", "overlays/jaeger"), ("prometheus-operator", "overlays/demo")}
    ],
)
def test_a_component_goes_with_every_overlay(component: str, root: str, tmp_path: Path) -> None:
    text = f"resources: [$K8S/{root}]\ncomponents: [$K8S/components/{component}]\n"
    assert refusals(build_over(tmp_path, text), OLDEST, tmp_path) == []


def test_the_base_needs_no_crd_and_no_operator() -> None:
    kinds = {manifest["kind"] for manifest in build(K8S)}
    assert kinds == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Role",
        "RoleBinding", "Service", "ServiceAccount",
    }  # fmt: skip


CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "GatewayClass"}


@every_root
def test_what_is_in_no_namespace_names_none(root: str) -> None:
    for manifest in build(K8S / root):
        assert ("namespace" in manifest["metadata"]) is (manifest["kind"] not in CLUSTER_WIDE), manifest["metadata"]


@every_root
def test_everything_is_in_one_namespace_that_an_overlay_can_change(root: str, tmp_path: Path) -> None:
    objects = build_over(tmp_path, f"namespace: models\nresources: [$K8S/{root}]\n")
    for manifest in objects:
        if manifest["kind"] not in CLUSTER_WIDE:
            assert manifest["metadata"]["namespace"] == "models", manifest["metadata"]
        for subject in manifest.get("subjects", ()):
            assert subject["namespace"] == "models", manifest["metadata"]


def test_prometheus_finds_the_gateways_by_annotations_or_by_its_operator_and_never_by_both(tmp_path: Path) -> None:
    deployment = find(build(K8S), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(ports["admin"]),
        "prometheus.io/path": "/metrics",
    }
    operated = build_over(tmp_path, "resources: [$K8S]\ncomponents: [$K8S/components/prometheus-operator]\n")
    template = find(operated, "Deployment")["spec"]["template"]
    assert not template["metadata"].get("annotations")
    monitor = find(operated, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert [(each["port"], each["path"]) for each in monitor["podMetricsEndpoints"]] == [("admin", "/metrics")]


def test_jaeger_takes_what_the_gateway_and_vllm_send() -> None:
    objects = build(K8S / "overlays/jaeger")
    (container,) = find(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    settings = read_tracing_settings({each["name"]: each.get("value", "") for each in container["env"]})
    assert settings is not None
    assert settings.endpoint == "http://jaeger:4318/v1/traces"
    (jaeger,) = find(objects, "Deployment", "jaeger")["spec"]["template"]["spec"]["containers"]
    listening = {port["name"]: port["containerPort"] for port in jaeger["ports"]}
    service = find(objects, "Service", "jaeger")["spec"]["ports"]
    assert {port["port"]: listening[port["targetPort"]] for port in service} == {4318: 4318, 4317: 4317, 16686: 16686}
