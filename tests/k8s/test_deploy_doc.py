"""Is docs/deploy.md true? Its manifests are stored by an API server, its patches do what it says, its paths exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml

from app.cli import cli
from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from discovery.load import Compiled, load
from discovery.resources.problem import Severity
from middleware.upstream.outcome import Outcome
from tests.discovery.loading import ask
from tests.k8s.kustomize import K8S, ROOTS, Manifest, build, build_over, find, flag, gateways, kubectl
from tests.k8s.schemas import OLDEST, refusals
from tests.support.gateway import route_to, running_gateway
from tests.support.processes import PROJECT

DOC = (PROJECT / "docs" / "deploy.md").read_text()
BLOCKS = [
    (DOC[: found.start()].count("\n") + 2, tuple(yaml.safe_load_all(found[1])))
    for found in re.finditer(r"^```yaml\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
]
ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mine, namespace: models}
spec: {rules: [{backendRefs: [{name: qwen, port: 8000}]}]}
"""


def patches() -> list[list[str]]:
    """The arguments of each `kubectl patch` in the text."""
    found = re.findall(r"^    kubectl (patch (?:[^\n']|'[^']*')*)$", DOC, re.MULTILINE)
    return [shlex.split(command) for command in found]


def manifests_with(kind: str, name: str, *, mentioning: str) -> tuple[Manifest, ...]:
    """The block of the page that has the object and the word."""
    for _, block in BLOCKS:
        if mentioning in str(block) and any(
            (each["kind"], each["metadata"]["name"]) == (kind, name) for each in block if "metadata" in each
        ):
            return block
    raise AssertionError(f"{kind}/{name} with {mentioning} is not in the text")


def patched(manifest: Manifest, patch: list[str], folder: Path) -> Any:
    """The object as kubectl leaves it, without a cluster."""
    file = folder / "before.yaml"
    file.write_text(yaml.safe_dump(dict(manifest)))
    _, kind, name, *rest = patch
    assert (manifest["kind"].lower(), manifest["metadata"]["name"]) == (kind, name)
    return yaml.safe_load(kubectl("patch", "--local", "-f", str(file), *rest, "-o", "yaml"))


def compiled(objects: tuple[Manifest, ...], folder: Path) -> Compiled:
    """What the gateway makes of them, with the Gateway of the overlay cluster-routes."""
    built = build(K8S / "overlays/cluster-routes")
    file = folder / "served.yaml"
    everything = [*objects, find(built, "Gateway"), find(built, "GatewayClass")]
    file.write_text(yaml.safe_dump_all([dict(each) for each in everything]))
    result = load([file]).compile()
    assert not [str(problem) for problem in result.problems if problem.severity is not Severity.WARNING]
    return result


def shares(result: Compiled, model: str) -> dict[str, int]:
    """How the rule of a model splits its requests."""
    rule = ask(result.routing, model=model)
    assert rule is not None
    return {ref.name: ref.weight for ref in rule.backend_refs}


def overlay_with(part: str, folder: Path) -> tuple[Manifest, ...]:
    """What the page's kustomization that has ``part`` in it builds to."""
    (own,) = [block[0] for _, block in BLOCKS if block[0]["kind"] == "Kustomization" and part in str(block)]
    return build_doc(own, folder)


def build_doc(kustomization: Manifest, folder: Path) -> tuple[Manifest, ...]:
    """A kustomization of the page, with a checkout of ours where it says and routes of a user."""
    (folder / "routes.yaml").write_text(ROUTES)
    return build_over(folder, yaml.safe_dump(dict(kustomization)).replace("../pointsman/k8s", "$K8S"))


def service(name: str) -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 8000}]}}


@pytest.mark.parametrize("block", [pytest.param(block, id=f"line-{line}") for line, block in BLOCKS])
def test_a_manifest_is_one_that_an_api_server_stores(block: tuple[Manifest, ...], tmp_path: Path) -> None:
    for each in block:
        if each["kind"] == "Kustomization":
            assert refusals(build_doc(each, tmp_path), OLDEST, tmp_path) == []
            return
    assert refusals(block, OLDEST, tmp_path) == []


def test_the_pods_of_a_rollout_are_those_of_a_deployment(tmp_path: Path) -> None:
    rollout = find(manifests_with("Rollout", "qwen", mentioning="gatewayAPI"), "Rollout", "qwen")
    spec = {key: rollout["spec"][key] for key in ("replicas", "selector", "template")}
    deployment = {**rollout, "apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
    assert refusals((deployment,), OLDEST, tmp_path) == []


def test_the_overlay_of_your_own_is_in_its_namespace_with_its_image_and_leaves_scaling_alone(tmp_path: Path) -> None:
    built = overlay_with("registry.example.com", tmp_path)
    ((deployment, container),) = gateways(built)
    assert deployment["metadata"]["namespace"] == "models"
    assert container["image"] == "registry.example.com/pointsman:0.1.0"
    assert "replicas" not in deployment["spec"]
    assert find(built, "ConfigMap", "pointsman-routes")["data"] == {"routes.yaml": ROUTES}


def test_another_namespace_is_opened_to_the_gateway_of_the_base(tmp_path: Path) -> None:
    built = overlay_with("../pointsman/k8s/access", tmp_path)
    role, binding = find(built, "Role"), find(built, "RoleBinding")
    assert role["rules"] == find(build(K8S), "Role")["rules"]
    assert {each["metadata"]["namespace"] for each in (role, binding)} == {"team-a"}
    account = find(build(K8S), "ServiceAccount")["metadata"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]


def test_in_a_cluster_with_ipv6_addresses_both_ports_listen_on_them(tmp_path: Path) -> None:
    ((_, container),) = gateways(overlay_with("--host=::", tmp_path))
    assert flag(container, "host") == flag(container, "admin-host") == "::"


def test_taking_over_a_class_means_one_controller_name(tmp_path: Path) -> None:
    built = overlay_with("gateway.envoyproxy.io/gatewayclass-controller", tmp_path)
    ((_, container),) = gateways(built)
    assert not [each for each in built if each["kind"] in ("GatewayClass", "Gateway")]
    assert flag(container, "controller-name") == "gateway.envoyproxy.io/gatewayclass-controller"


def test_the_patch_of_a_weight_moves_one_request_in_ten(tmp_path: Path) -> None:
    block = manifests_with("HTTPRoute", "qwen", mentioning="InferencePool")
    assert shares(compiled(block, tmp_path), "qwen") == {"default/qwen-v1": 100, "default/qwen-v2": 0}
    (patch,) = [each for each in patches() if each[1] == "httproute"]
    after = tuple(patched(each, patch, tmp_path) if each["kind"] == "HTTPRoute" else each for each in block)
    assert shares(compiled(after, tmp_path), "qwen") == {"default/qwen-v1": 90, "default/qwen-v2": 10}


def test_the_patch_of_a_gateway_gives_it_to_our_class(tmp_path: Path) -> None:
    theirs = yaml.safe_load_all((K8S / "overlays/demo/ack/inference-gateway.yaml").read_text())
    (gateway,) = [each for each in theirs if each["kind"] == "Gateway"]
    (patch,) = [each for each in patches() if each[1] == "gateway"]
    ours = find(build(K8S / "overlays/cluster-routes"), "GatewayClass")
    assert patched(gateway, patch, tmp_path)["spec"]["gatewayClassName"] == ours["metadata"]["name"]


def test_the_route_that_flagger_makes_splits_between_its_services(tmp_path: Path) -> None:
    block = manifests_with("HTTPRoute", "qwen", mentioning="qwen-primary")
    result = compiled((*block, service("qwen-primary"), service("qwen-canary")), tmp_path)
    assert shares(result, "qwen") == {"default/qwen-primary": 90, "default/qwen-canary": 10}
    canary = find(manifests_with("Canary", "qwen", mentioning="gatewayapi"), "Canary", "qwen")
    (gateway,) = canary["spec"]["service"]["gatewayRefs"]
    assert (
        find(build(K8S / "overlays/cluster-routes"), "Gateway", gateway["name"])["metadata"]["namespace"]
        == (gateway["namespace"])
    )


def test_the_route_for_argo_rollouts_splits_between_the_services_that_the_rollout_names(tmp_path: Path) -> None:
    block = manifests_with("Rollout", "qwen", mentioning="gatewayAPI")
    canary = find(block, "Rollout", "qwen")["spec"]["strategy"]["canary"]
    served = tuple(each for each in block if each["kind"] in ("HTTPRoute", "Service"))
    names = {f"default/{canary['stableService']}", f"default/{canary['canaryService']}"}
    assert shares(compiled(served, tmp_path), "qwen").keys() == names
    plugin = canary["trafficRouting"]["plugins"]["argoproj-labs/gatewayAPI"]
    assert find(block, "HTTPRoute", plugin["httpRoute"])["metadata"]["namespace"] == plugin["namespace"]
    (analysis,) = [step["analysis"] for step in canary["steps"] if "analysis" in step]
    assert {argument["value"] for argument in analysis["args"]} <= names
    for template in analysis["templates"]:
        assert find(block, "AnalysisTemplate", template["templateName"])


@pytest.mark.anyio
async def test_every_query_asks_for_what_the_gateway_counts(tmp_path: Path) -> None:
    asked = {
        (name, label)
        for name, labels in re.findall(r"(pointsman_[a-z_]+)\{((?:[^{}]|\{\{.*?\}\})*)\}", DOC)
        for label in re.findall(r"([a-z]+)[!=]~?[=\"]", labels)
    }
    assert ("pointsman_attempts_total", "outcome") in asked
    body = {"model": "qwen", "messages": []}
    async with SimulatedModelServer(SimulatorSettings(models=("qwen",))) as server:
        manifests = route_to((server.host, server.port))
        async with running_gateway(manifests, folder=tmp_path) as gateway, httpx.AsyncClient() as client:
            assert (await client.post(f"{gateway.url}/v1/chat/completions", json=body)).status_code == 200
            await gateway.finished.next()
            told = await gateway.metrics()
    for name, label in asked:
        (line,) = [line for line in told.splitlines() if line.startswith(f"{name}{{")]
        assert f'{label}="' in line
    outcomes = set(re.findall(r'outcome!~"([a-z_|]+)"', DOC))
    assert all(each in set(Outcome) for group in outcomes for each in group.split("|"))


def test_every_path_is_there_and_every_overlay_is_walked_through() -> None:
    named = set(re.findall(r"\bk8s/[\w./-]*", DOC))
    for path in named:
        assert (PROJECT / path).exists(), path
    assert {f"k8s/{root}" for root in ROOTS if root} <= named


def test_every_flag_is_one_of_the_command_line() -> None:
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    options = {option for command in commands if command for each in command.params for option in each.opts}
    others = {"--server-side", "--replicas", "--type", "--max-graceful-termination-sec", "--served-model-name"}
    assert set(re.findall(r"(?<=[\s`])--[a-z][a-z-]+", DOC)) - others <= options


def test_the_numbers_of_a_drain_are_those_of_the_manifests() -> None:
    ((deployment, container),) = gateways(build(K8S))
    grace, timeout = flag(container, "drain-grace"), flag(container, "drain-timeout")
    assert f"`--drain-grace` ({grace[:-1]} s)" in DOC
    assert f"`--drain-timeout` ({timeout[:-1]} s)" in DOC
    seconds = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert f"`terminationGracePeriodSeconds` ({seconds})" in DOC
