"""Does the gateway run as `kubectl apply -k` runs it? Its container's arguments, a cluster's API, its roles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from discovery.sources.kube_kinds import watched_kinds
from tests.k8s.kustomize import K8S, Manifest, build, find, flag, gateways, pod_of
from tests.support.kube_api.kinds import BUILT_IN, CUSTOM, ApiKind
from tests.support.kube_api.server import ApiRequest, KubeApi
from tests.support.kube_api.store import ObjectStore
from tests.support.ports import free_port
from tests.support.processes import RunningCommand, run_command, running_command

pytestmark = pytest.mark.anyio


def pod(name: str, ip: str, **labels: str) -> dict[str, Any]:
    status = {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status}


class Account:
    """What the roles of some manifests let the gateway's account do."""

    def __init__(self, objects: Sequence[Manifest]) -> None:
        self._rules = [
            (role["metadata"].get("namespace"), rule)
            for role in objects
            if role["kind"] in ("Role", "ClusterRole")
            for rule in role["rules"]
        ]

    def may(self, verb: str, group: str, resource: str, namespace: str | None) -> bool:
        """Whether a rule allows it; those of a Role hold in its own namespace."""
        return any(
            home in (None, namespace)
            and group in rule["apiGroups"]
            and resource in rule["resources"]
            and verb in rule["verbs"]
            for home, rule in self._rules
        )

    def may_write_status(self) -> set[tuple[str, str]]:
        """Group and resource of each status that it may write."""
        return {
            (group, resource)
            for _, rule in self._rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            if resource.endswith("/status")
        }

    def is_allowed(self, request: ApiRequest) -> bool:
        """The same of a request that was made."""
        resource = request.kind.plural + (f"/{request.subresource}" if request.subresource else "")
        namespace = request.namespace if request.kind.is_namespaced else None
        return self.may(request.verb, request.kind.group, resource, namespace)


def every_kind() -> list[ApiKind]:
    """All kinds that are asked for: an API server refuses what a role does not name, whether it has the kind or not."""
    known = {(kind.group, kind.plural) for kind in (*BUILT_IN, *CUSTOM)}
    others = [
        ApiKind(group=kind.group, versions=kind.versions, plural=kind.plural, kind=kind.kind)
        for kind in watched_kinds()
        if (kind.group, kind.plural) not in known
    ]
    return [*BUILT_IN, *CUSTOM, *others]


@asynccontextmanager
async def deployed(
    objects: tuple[Manifest, ...], api: KubeApi, folder: Path, *, name: str = "pointsman"
) -> AsyncIterator[tuple[str, str, RunningCommand]]:
    """The gateway's container as a process, with the URLs of its data port and of its admin port."""
    (found,) = [each for each in gateways(objects) if each[0]["metadata"]["name"] == name]
    deployment, container = found
    mounted = folder / "etc"
    mounted.mkdir()
    for volume in pod_of(deployment).get("volumes", ()):
        for file, text in find(objects, "ConfigMap", volume["configMap"]["name"])["data"].items():
            (mounted / file).write_text(text)
    values = {
        "--namespace=$(POD_NAMESPACE)": "--namespace=default",
        f"--admin-host={flag(container, 'admin-host')}": "--admin-host=127.0.0.1",
        f"--drain-grace={flag(container, 'drain-grace')}": "--drain-grace=0s",
    }
    port, admin_port = free_port(), free_port()
    arguments = [values.get(each, each).replace("/etc/pointsman", str(mounted)) for each in container["args"]]
    arguments += ["--host=127.0.0.1", f"--port={port}", f"--admin-port={admin_port}"]
    kubeconfig = api.kubeconfig(folder)
    async with running_command(*arguments, env={"KUBECONFIG": str(kubeconfig)}) as command:
        await command.wait_line("serving")
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", command
        command.signal()
        assert await command.wait() == 0, command.lines


@asynccontextmanager
async def model_servers(count: int) -> AsyncIterator[None]:
    """So many model servers at 127.1.9.1 and up, each named after its address."""
    async with AsyncExitStack() as stack:
        for number in range(1, count + 1):
            settings = SimulatorSettings(models=("qwen", "deepseek-r1", "chatbot", "sentiment"), name=address(number))
            await stack.enter_async_context(SimulatedModelServer(settings, host=address(number), port=8000))
        yield


def address(number: int) -> str:
    return f"127.1.9.{number}"


async def who_answers(client: httpx.AsyncClient, url: str, model: str = "qwen") -> str:
    """The address of the model server that answers."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    answer = await client.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["system_fingerprint"]).rpartition("-")[2]


def refuse_all_but(account: Account, api: KubeApi) -> None:
    """The API server lets the gateway do what its roles say."""
    api.denied = {
        (verb, kind.plural, None)
        for kind in api.store.kinds.values()
        for verb in ("list", "watch", "get", "create", "update", "patch")
        if not account.may(verb, kind.group, kind.plural, "default")
    }


async def test_the_base_serves_its_routes_over_the_clusters_pods_with_its_role_alone(tmp_path: Path) -> None:
    objects = build(K8S)
    async with KubeApi(store=ObjectStore(kinds=every_kind())) as api, model_servers(1), httpx.AsyncClient() as client:
        api.create(pod("qwen-0", address(1), app="qwen"))
        refuse_all_but(Account(objects), api)
        async with deployed(objects, api, tmp_path) as (url, admin, command):
            assert (await client.get(f"{admin}/readyz")).status_code == 200
            assert await who_answers(client, url) == address(1)
            # That it may read no CRD is what the base is made for: one line, and no warning.
            said = [json.loads(line) for line in command.lines]
            assert len([line for line in said if "no right to list" in line["message"]]) == 1
            assert [line for line in said if line["level"] != "info" and "/etc/" not in line["message"]] == []


@pytest.mark.parametrize(
    ("name", "models"),
    [
        pytest.param("pointsman-gke", {"chatbot": "gemma", "sentiment": "llama"}, id="gke"),
        pytest.param("pointsman-ack", {"qwen": "qwen", "deepseek-r1": "deepseek-r1"}, id="ack"),
    ],
)
async def test_the_demo_serves_users_files_over_the_clusters_pods(
    name: str, models: dict[str, str], tmp_path: Path
) -> None:
    objects = build(K8S / "overlays/demo")
    async with KubeApi(store=ObjectStore(kinds=every_kind())) as api, model_servers(2), httpx.AsyncClient() as client:
        for number, app in enumerate(models.values(), 1):
            api.create(pod(f"{app}-0", address(number), app=app))
        refuse_all_but(Account(objects), api)
        async with deployed(objects, api, tmp_path, name=name) as (url, _, _):
            for number, model in enumerate(models, 1):
                assert await who_answers(client, url, model) == address(number)


EVERYTHING_WITH_A_STATUS = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: qwen, namespace: default}
spec:
  parentRefs: [{name: pointsman}]
  rules:
  - matches: [{headers: [{name: X-Gateway-Model-Name, value: qwen}]}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}]
  - matches: [{headers: [{name: X-Gateway-Model-Name, value: older}]}]
    backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: older}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: qwen, namespace: default}
spec:
  selector: {matchLabels: {app: qwen}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: unused, port: {number: 9002}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: older, namespace: default}
spec: {selector: {app: older}, targetPortNumber: 8000, extensionRef: {name: unused}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {name: ai, namespace: default}
spec:
  parentRefs: [{name: pointsman, kind: Gateway, group: gateway.networking.k8s.io}]
  rules:
  - matches: [{headers: [{name: x-ai-eg-model, value: ai}]}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: retries, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: qwen}]
  retry: {numRetries: 1}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: buffer, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: pointsman}]
  connection: {bufferLimit: 20Mi}
"""


def written(api: KubeApi) -> set[tuple[str, str]]:
    """Group and resource of each status that was written."""
    return {
        (request.kind.group, f"{request.kind.plural}/status")
        for request in api.requests
        if request.subresource == "status"
    }


async def test_cluster_routes_serves_what_is_there_and_needs_each_of_its_permissions_and_no_other(
    tmp_path: Path,
) -> None:
    objects = build(K8S / "overlays/cluster-routes")
    account = Account(objects)
    async with KubeApi() as api, model_servers(1), httpx.AsyncClient() as client:
        for each in (find(objects, "GatewayClass"), find(objects, "Gateway"), find(objects, "Service")):
            api.create(dict(each))
        for each in yaml.safe_load_all(EVERYTHING_WITH_A_STATUS):
            api.create(each)
        api.create(pod("qwen-0", address(1), app="qwen"))
        async with deployed(objects, api, tmp_path) as (url, admin, _):
            assert (await client.get(f"{admin}/readyz")).status_code == 200
            assert await who_answers(client, url) == address(1)
            async with asyncio.timeout(20):
                while written(api) != account.may_write_status():
                    await asyncio.sleep(0.05)
        assert [request for request in api.requests if not account.is_allowed(request)] == []
        verbs = {request.verb for request in api.requests if request.kind.plural == "leases"}
        assert verbs == {"get", "create", "update"}


async def test_another_controllers_gateway_can_be_looked_at_before_it_is_taken_over(tmp_path: Path) -> None:
    theirs = K8S / "overlays/demo/ack"
    async with KubeApi(store=ObjectStore(kinds=every_kind())) as api:
        for file in sorted(theirs.glob("inference-*.yaml")):
            for each in yaml.safe_load_all(file.read_text()):
                is_class = each["kind"] == "GatewayClass"
                api.create(each if is_class else {**each, "metadata": {"namespace": "default", **each["metadata"]}})
        api.create(pod("qwen-0", address(1), app="qwen"))
        api.create(pod("deepseek-r1-0", address(2), app="deepseek-r1"))
        env = {"KUBECONFIG": str(api.kubeconfig(tmp_path))}
        code, out, err = await run_command("snapshot", "--gateway", "default/inference-gateway", env=env)
    assert code == 0, err
    snapshot = tmp_path / "cluster.yaml"
    snapshot.write_text(out)
    code, out, err = await run_command("check", str(snapshot))
    assert code == 0, out + err
    code, out, err = await run_command("explain", str(snapshot), "--model", "qwen")
    assert f"{address(1)}:8000" in out, out + err
