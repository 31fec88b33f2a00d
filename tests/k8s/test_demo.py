"""Do the demo's gateways serve users' manifests, unchanged, over the demo's own model servers?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.backend import Endpoint
from discovery.load import Compiled, load
from tests.discovery.loading import ask
from tests.k8s.kustomize import K8S, build, containers_of, find, flag, gateways, of_kind

MANIFESTS = Path(__file__).parent.parent / "manifests"
DEMO = K8S / "overlays/demo"
FOLDERS = ("ack", "envoy-ai-gateway", "gke")


def pods() -> list[Any]:
    """The model servers' pods as a cluster would run them: Deployment by Deployment, with addresses 10.1.0.1 and up."""
    made: list[Any] = []
    for deployment in of_kind(build(DEMO), "Deployment"):
        template = deployment["spec"]["template"]
        if deployment["spec"]["selector"]["matchLabels"].keys() != {"app"}:
            continue
        for number in range(deployment["spec"]["replicas"]):
            name = f"{deployment['metadata']['name']}-{number}"
            metadata = {"name": name, "namespace": "default", "labels": template["metadata"]["labels"]}
            status = {"podIP": f"10.1.0.{len(made) + 1}", "conditions": [{"type": "Ready", "status": "True"}]}
            made.append(
                {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": status}
            )
    return made


def compiled(folder: str, tmp_path: Path) -> Compiled:
    """What the gateway ``folder`` of the demo makes of its ConfigMap and the pods."""
    for name, text in find(build(DEMO), "ConfigMap", f"pointsman-routes-{folder}")["data"].items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(pods()))
    result = load([tmp_path]).compile()
    assert not [str(problem) for problem in result.problems if "warning" not in str(problem)]
    return result


def who_takes(result: Compiled, model: str, headers: dict[bytes, bytes] | None = None) -> list[Endpoint]:
    """The endpoints behind the rule for a model."""
    rule = ask(result.routing, model=model, headers=headers)
    assert rule is not None
    backends = [ref.backend for ref in rule.backend_refs if ref.backend is not None]
    return [endpoint for backend in backends for endpoint in result.membership[backend.id]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_manifests_are_the_users_own(folder: str) -> None:
    data = find(build(DEMO), "ConfigMap", f"pointsman-routes-{folder}")["data"]
    for file in (MANIFESTS / folder).iterdir():
        assert data[file.name] == file.read_text(), file


@pytest.mark.parametrize(
    ("folder", "model", "served_by"),
    [
        pytest.param("gke", "chatbot", {"gemma-0"}, id="gke-chatbot"),
        pytest.param("gke", "sentiment", {"llama-0"}, id="gke-sentiment"),
        pytest.param("ack", "qwen", {"qwen-0", "qwen-1"}, id="ack-qwen"),
        pytest.param("ack", "deepseek-r1", {"deepseek-r1-0"}, id="ack-deepseek"),
    ],
)
def test_a_model_goes_to_the_pods_that_serve_it(folder: str, model: str, served_by: set[str], tmp_path: Path) -> None:
    endpoints = who_takes(compiled(folder, tmp_path), model)
    assert {(endpoint.pod or "").removeprefix("default/") for endpoint in endpoints} == served_by
    by_name = {pod["metadata"]["name"]: pod for pod in pods()}
    for endpoint in endpoints:
        (container,) = by_name[(endpoint.pod or "").removeprefix("default/")]["spec"]["containers"]
        assert flag(container, "model") == model
        assert flag(container, "port") == str(endpoint.port)
        assert flag(container, "host") == "0.0.0.0"
        assert container["ports"] == [{"name": "http", "containerPort": endpoint.port}]


def test_the_backends_at_the_pods_own_address_are_its_sidecars(tmp_path: Path) -> None:
    (sidecars,) = [
        [each for each in containers_of(deployment) if each["args"][0] == "simulate"]
        for deployment, _ in gateways(build(DEMO))
        if deployment["metadata"]["name"] == "pointsman-envoy-ai-gateway"
    ]
    assert all(each["restartPolicy"] == "Always" for each in sidecars)
    ports = {flag(each, "name"): int(flag(each, "port")) for each in sidecars}
    result = compiled("envoy-ai-gateway", tmp_path)
    reached = {
        (endpoint.address, endpoint.port)
        for value in (b"yes", b"no")
        for endpoint in who_takes(result, "qwen", {b"x-target-inference-extension": value})
    }
    assert {port for _, port in reached} == set(ports.values())
    assert {address for address, _ in reached} == {"127.0.0.1", "localhost"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_gateway_reads_its_whole_folder(folder: str) -> None:
    (container,) = [
        container
        for deployment, container in gateways(build(DEMO))
        if deployment["metadata"]["name"] == f"pointsman-{folder}"
    ]
    assert container["args"][1] == container["volumeMounts"][0]["mountPath"] == "/etc/pointsman"
