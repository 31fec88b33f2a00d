"""Does the gateway run as `kubectl apply -k` runs it? Its container's arguments, a cluster's API, its roles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from discovery.sources.kube_kinds import watched_kinds
from tests.k8s.kustomize import K8S, Manifest, build, find, flag, gateways, of_kind
from tests.support.kube_api.kinds import BUILT_IN, CUSTOM, ApiKind
from tests.support.kube_api.server import ApiRequest, KubeApi
from tests.support.kube_api.store import ObjectStore
from tests.support.processes import free_port, running_command

pytestmark = pytest.mark.anyio

MODEL_SERVER = ("127.1.9.1", 8000)


def pod(name: str, **labels: str) -> dict[str, Any]:
    status = {"podIP": MODEL_SERVER[0], "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
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
async def deployed(objects: tuple[Manifest, ...], api: KubeApi, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The gateway's container as a process: the URLs of its data port and of its admin port."""
    ((_, container),) = gateways(objects)
    routes = folder / "routes.yaml"
    for config in of_kind(objects, "ConfigMap"):
        routes.write_text(config["data"]["routes.yaml"])
    values = {
        "/etc/pointsman/routes.yaml": str(routes),
        "--namespace=$(POD_NAMESPACE)": "--namespace=default",
        f"--admin-host={flag(container, 'admin-host')}": "--admin-host=127.0.0.1",
        f"--drain-grace={flag(container, 'drain-grace')}": "--drain-grace=0s",
    }
    port, admin_port = free_port(), free_port()
    arguments = [values.get(argument, argument) for argument in container["args"]]
    arguments += ["--host=127.0.0.1", f"--port={port}", f"--admin-port={admin_port}"]
    kubeconfig = api.kubeconfig(folder)
    async with running_command(*arguments, env={"KUBECONFIG": str(kubeconfig)}) as command:
        await command.wait_line("serving")
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
        command.signal()
        assert await command.wait() == 0, command.lines


async def who_answers(client: httpx.AsyncClient, url: str) -> str:
    body = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}
    answer = await client.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["system_fingerprint"])


async def test_the_base_serves_its_routes_over_the_clusters_pods_with_its_role_alone(tmp_path: Path) -> None:
    objects = build(K8S)
    account = Account(objects)
    async with (
        KubeApi(store=ObjectStore(kinds=every_kind())) as api,
        SimulatedModelServer(SimulatorSettings(models=("qwen",)), host=MODEL_SERVER[0], port=MODEL_SERVER[1]),
        httpx.AsyncClient() as client,
    ):
        api.create(pod("qwen-0", app="qwen"))
        api.denied = {
            (verb, kind.plural, None)
            for kind in api.store.kinds.values()
            for verb in ("list", "watch", "get", "create", "update", "patch")
            if not account.may(verb, kind.group, kind.plural, "default")
        }
        async with deployed(objects, api, tmp_path) as (url, admin):
            assert (await client.get(f"{admin}/readyz")).status_code == 200
            assert "simulator" in await who_answers(client, url)


ROUTE_AND_POOL = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: qwen, namespace: default}
spec:
  parentRefs: [{name: pointsman}]
  rules:
  - matches: [{headers: [{name: X-Gateway-Model-Name, value: qwen}]}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: qwen, namespace: default}
spec:
  selector: {matchLabels: {app: qwen}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: unused, port: {number: 9002}}
"""


async def test_cluster_routes_serves_the_clusters_routes_and_asks_for_nothing_that_its_roles_refuse(
    tmp_path: Path,
) -> None:
    objects = build(K8S / "overlays/cluster-routes")
    account = Account(objects)
    async with (
        KubeApi() as api,
        SimulatedModelServer(SimulatorSettings(models=("qwen",)), host=MODEL_SERVER[0], port=MODEL_SERVER[1]),
        httpx.AsyncClient() as client,
    ):
        for each in (find(objects, "GatewayClass"), find(objects, "Gateway"), find(objects, "Service")):
            api.create(dict(each))
        for each in yaml.safe_load_all(ROUTE_AND_POOL):
            api.create(each)
        api.create(pod("qwen-0", app="qwen"))
        async with deployed(objects, api, tmp_path) as (url, admin):
            assert (await client.get(f"{admin}/readyz")).status_code == 200
            assert "simulator" in await who_answers(client, url)
        assert [request for request in api.requests if not account.is_allowed(request)] == []
