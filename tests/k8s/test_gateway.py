"""Is the gateway run as its own command line, ports, signals and image say?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml

from app.cli import cli
from app.commands.serve import serve
from discovery.resources.quantities import parse_duration, parse_quantity
from tests.k8s.kustomize import K8S, ROOTS, build, build_over, containers_of, find, flag, gateways, of_kind, pod_of
from tests.support.gateway import running_gateway
from tests.support.processes import PROJECT, run_command

pytestmark = pytest.mark.anyio

IMAGE = f"pointsman:{tomllib.loads((PROJECT / 'pyproject.toml').read_text())['project']['version']}"

every_root = pytest.mark.parametrize("root", [pytest.param(root, id=root or "k8s") for root in ROOTS])


def with_environment(container: Any) -> list[str]:
    """A container's arguments as Kubernetes gives them: $(NAME) of its own variables filled in."""
    names = {each["name"] for each in container.get("env", ())}

    def fill(found: re.Match[str]) -> str:
        assert found[1] in names, f"{found[0]} would stay as it is"
        return "default"

    return [re.sub(r"\$\((\w+)\)", fill, argument) for argument in container["args"]]


def pointsman_containers(root: str) -> list[Any]:
    return [
        container
        for deployment in of_kind(build(K8S / root), "Deployment")
        for container in containers_of(deployment)
        if container["image"].startswith("pointsman")
    ]


@every_root
def test_arguments_are_ones_that_the_command_line_takes(root: str) -> None:
    for container in pointsman_containers(root):
        command, *arguments = with_environment(container)
        subcommand = cli.get_command(click.Context(cli), command)
        assert subcommand is not None
        context = subcommand.make_context(command, arguments)
        if command == "serve":
            assert context.params["kubernetes"] is True


@every_root
def test_all_containers_run_the_image_that_the_dockerfile_makes(root: str) -> None:
    assert 'ENTRYPOINT ["/opt/pointsman/bin/pointsman"]' in (PROJECT / "Dockerfile").read_text()
    for container in pointsman_containers(root):
        assert container["image"] == IMAGE
        assert "command" not in container


@every_root
def test_a_service_of_our_name_does_not_end_up_in_our_settings(root: str) -> None:
    # Kubernetes would set POINTSMAN_PORT=tcp://10.0.0.1:80, which the command line reads as --port.
    for deployment in of_kind(build(K8S / root), "Deployment"):
        assert pod_of(deployment)["enableServiceLinks"] is False


@every_root
def test_running_answers_end_before_the_pod_is_killed(root: str) -> None:
    for deployment, container in gateways(build(K8S / root)):
        grace, drain = (parse_duration(flag(container, name)) for name in ("drain-grace", "drain-timeout"))
        # Endpoints take some seconds to be taken out everywhere: meanwhile requests still come.
        assert grace >= 5
        # After both there is the cutting, the last log lines and the admin port: a second or two.
        assert pod_of(deployment)["terminationGracePeriodSeconds"] >= grace + drain + 10
        assert "lifecycle" not in container, "a preStop sleep would delay the signal that turns readiness red"


@every_root
def test_a_rollout_never_leaves_fewer_gateways_than_before(root: str) -> None:
    for deployment, _ in gateways(build(K8S / root)):
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_base_has_two_replicas_on_different_nodes_that_are_drained_one_by_one() -> None:
    objects = build(K8S)
    spec = find(objects, "Deployment")["spec"]
    assert spec["replicas"] == 2 == find(objects, "HorizontalPodAutoscaler")["spec"]["minReplicas"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert find(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_autoscaler_scales_on_cpu_below_the_one_core_that_a_process_has() -> None:
    objects = build(K8S)
    spec = find(objects, "HorizontalPodAutoscaler")["spec"]
    target = spec["scaleTargetRef"]
    assert find(objects, target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
    (metric,) = spec["metrics"]
    assert metric["resource"]["name"] == "cpu"
    assert metric["resource"]["target"]["averageValue"].endswith("m")
    assert int(metric["resource"]["target"]["averageValue"][:-1]) < 1000


@every_root
def test_memory_is_enough_for_all_bodies_and_as_much_again(root: str) -> None:
    for _, container in gateways(build(K8S / root)):
        bodies = parse_quantity(flag(container, "max-body-memory"))
        assert parse_quantity(container["resources"]["limits"]["memory"]) >= 2 * bodies
        assert "cpu" not in container["resources"]["limits"], "throttling stalls every stream at once"


@every_root
def test_pods_meet_the_restricted_pod_security_standard(root: str) -> None:
    for deployment in of_kind(build(K8S / root), "Deployment"):
        pod = pod_of(deployment)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for container in containers_of(deployment):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


@every_root
def test_pods_that_ask_the_cluster_nothing_have_no_token(root: str) -> None:
    asking = [deployment for deployment, _ in gateways(build(K8S / root))]
    for deployment in of_kind(build(K8S / root), "Deployment"):
        assert (pod_of(deployment).get("automountServiceAccountToken") is False) is (deployment not in asking)


async def test_the_probes_ask_what_the_gateway_answers(tmp_path: Path) -> None:
    ((_, container),) = gateways(build(K8S))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    defaults = {parameter.name: parameter.default for parameter in serve.params}
    assert ports == {"http": defaults["port"], "admin": defaults["admin_port"]}
    assert flag(container, "admin-host") == "0.0.0.0"
    routes = find(build(K8S), "ConfigMap", "pointsman-routes")["data"]["routes.yaml"]
    async with running_gateway(routes, folder=tmp_path) as gateway, httpx.AsyncClient() as client:
        for name, path in (("startup", "/healthz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
            probe = container[f"{name}Probe"]
            assert probe["httpGet"] == {"path": path, "port": "admin"}
            assert (await client.get(gateway.admin_url + path)).status_code == 200
        assert (await client.get(gateway.admin_url + "/metrics")).status_code == 200


def test_a_busy_gateway_is_not_restarted() -> None:
    ((_, container),) = gateways(build(K8S))
    probe = container["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 60


async def test_the_routes_of_the_base_are_right_but_for_the_pods_that_only_a_cluster_has() -> None:
    code, out, err = await run_command("check", str(K8S / "base" / "routes.yaml"))
    assert code == 0, out + err
    lines = [line for line in out.splitlines() if line.startswith("warning:")]
    assert all("no ready pods have its labels" in line or "endpointPickerRef" in line for line in lines), lines


def test_the_routes_are_mounted_where_they_are_read_and_an_edit_reaches_them() -> None:
    objects = build(K8S)
    ((deployment, container),) = gateways(objects)
    (mount,) = container["volumeMounts"]
    (volume,) = pod_of(deployment)["volumes"]
    assert "subPath" not in mount  # such a mount never changes
    assert mount["name"] == volume["name"]
    routes = find(objects, "ConfigMap", volume["configMap"]["name"])
    assert container["args"][1] == f"{mount['mountPath']}/{next(iter(routes['data']))}"


def test_the_routes_name_the_namespace_that_the_gateway_may_look_at() -> None:
    objects = build(K8S)
    ((deployment, container),) = gateways(objects)
    assert flag(container, "namespace") == "$(POD_NAMESPACE)"
    for each in yaml.safe_load_all(find(objects, "ConfigMap", "pointsman-routes")["data"]["routes.yaml"]):
        assert each["metadata"]["namespace"] == deployment["metadata"]["namespace"]


def test_cluster_routes_reads_no_file_and_all_namespaces() -> None:
    objects = build(K8S / "overlays/cluster-routes")
    ((deployment, container),) = gateways(objects)
    assert container["args"][:2] == ["serve", "--kubernetes"]
    assert not [each for each in container["args"] if each.startswith("--namespace")]
    assert "volumes" not in pod_of(deployment)
    assert not of_kind(objects, "ConfigMap")
    owned = find(objects, "Gateway")["spec"]["gatewayClassName"]
    assert find(objects, "GatewayClass", owned)["spec"]["controllerName"] == flag(container, "controller-name")


def test_an_overlay_that_edits_the_routes_keeps_their_name(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text("# mine\n")
    text = (
        "resources: [$K8S]\nconfigMapGenerator:\n- {name: pointsman-routes, behavior: replace, files: [routes.yaml]}\n"
    )
    assert find(build_over(tmp_path, text), "ConfigMap", "pointsman-routes")["data"] == {"routes.yaml": "# mine\n"}
