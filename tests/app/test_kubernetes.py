"""Does the gateway serve what a cluster holds, and go on serving whatever becomes of its API server?"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.support.certificates import Authority
from tests.support.clusters import create_routing, gateway, gateway_class, pod, pool, route
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.kube_api import KubeApi
from tests.support.processes import run_command
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

FILE_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: from-file}
spec:
  rules:
  - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: qwen}
spec:
  selector: {matchLabels: {app: qwen}}
  targetPorts: [{number: %d}]
  endpointPickerRef: {name: unused, port: {number: 9002}}
"""


class Pods:
    """Model servers, each at an address of its own and all at one port, that answer with their address."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self.port = 0

    async def start(self, address: str) -> str:
        async def answer(peer: Conversation) -> None:
            while True:
                await peer.request()
                await peer.answer(address.encode())

        upstream = await self._stack.enter_async_context(RawUpstream(answer, host=address, port=self.port))
        self.port = upstream.port
        return address


@pytest.fixture
async def pods() -> AsyncIterator[Pods]:
    async with contextlib.AsyncExitStack() as stack:
        yield Pods(stack)


async def ask(gateway: RunningGateway, model: str = "qwen") -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{gateway.url}/v1/chat/completions", json={"model": model})


async def until_answered_by(gateway: RunningGateway, address: str, model: str = "qwen") -> None:
    """Until requests go there, and nowhere else; the issue allows a second."""
    async with asyncio.timeout(3):
        while (await ask(gateway, model)).text != address:
            await asyncio.sleep(0.01)


async def admin(gateway: RunningGateway, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(gateway.admin_url + path)


def with_port(api: KubeApi, port: int, *models: str) -> None:
    """Routing to pools at this port, one for each model."""
    api.create(gateway_class())
    api.create(gateway())
    models = models or ("qwen",)
    for number in range(0, len(models), 16):  # a route takes no more rules
        api.create(route(f"models-{number}", models={model: model for model in models[number : number + 16]}))
    for model in models:
        api.create(pool(model, port=port))


async def test_routes_and_pods_of_a_cluster_are_served_and_followed(tmp_path: Path, pods: Pods) -> None:
    first, second = await pods.start("127.1.0.1"), await pods.start("127.1.0.2")
    async with KubeApi() as api:
        with_port(api, pods.port)
        api.create(pod("qwen-0", first))
        async with running_gateway(folder=tmp_path, cluster=api) as served:
            assert (await ask(served)).text == first
            assert (await admin(served, "/readyz")).status_code == 200
            api.create(pod("qwen-1", second, is_ready=False))
            api.terminate("pods", "qwen-0")  # Ready is still True
            api.set_status("pods", "qwen-1", {"podIP": second, "conditions": [{"type": "Ready", "status": "True"}]})
            await until_answered_by(served, second)
            api.delete("pods", "qwen-1")
            api.delete("pods", "qwen-0")
            async with asyncio.timeout(3):
                while (await ask(served)).status_code != 503:
                    await asyncio.sleep(0.01)
            api.update(route("models-0", models={"llama": "llama"}))
            api.create(pool("llama", port=pods.port))
            api.create(pod("llama-0", first, labels={"app": "llama"}))
            await until_answered_by(served, first, "llama")
            assert (await ask(served)).status_code == 404


async def test_routes_of_a_file_over_the_pods_of_a_cluster_that_has_no_crds(tmp_path: Path, pods: Pods) -> None:
    """What k8s/base does: with a Role that allows pods, services and endpointslices, and nothing else."""
    address = await pods.start("127.1.0.1")
    async with KubeApi() as api:
        for kind in list(api.store.kinds.values()):
            if kind.plural not in ("pods", "services", "endpointslices"):
                api.denied.add(("list", kind.plural, None))
                api.store.kinds.pop((kind.group, kind.plural))
        api.create(pod("qwen-0", address))

        def in_namespace(settings: Settings) -> Settings:
            return replace(settings, namespaces=("default",))

        manifests = FILE_ROUTE % pods.port
        async with running_gateway(manifests, folder=tmp_path, cluster=api, configure=in_namespace) as served:
            assert (await ask(served)).text == address
            api.delete("pods", "qwen-0")
            async with asyncio.timeout(3):
                while (await ask(served)).status_code != 503:
                    await asyncio.sleep(0.01)
            # A bad edit of the file keeps its last state, and the pods are followed on.
            (tmp_path / "manifests.yaml").write_text("kind: [")
            async with asyncio.timeout(5):
                while "pointsman_config_rejected_total 1.0" not in await served.metrics():
                    await asyncio.sleep(0.05)
            api.create(pod("qwen-1", address))
            await until_answered_by(served, address)


async def test_a_policy_kind_that_may_not_be_read_keeps_the_gateway_unready(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        api.denied.add(("list", "securitypolicies", None))
        async with running_gateway(folder=tmp_path, cluster=api, is_awaited=False) as served:
            async with asyncio.timeout(5):
                while "securitypolicies" not in (answer := await admin(served, "/readyz")).text or (
                    "must be allowed" not in answer.text
                ):
                    await asyncio.sleep(0.02)
            assert answer.status_code == 503
            api.denied.clear()
            async with asyncio.timeout(5):
                await served.gateway.wait_serving()
            assert (await admin(served, "/readyz")).status_code == 200


async def test_an_api_server_that_is_away_at_start_and_later(tmp_path: Path, pods: Pods) -> None:
    first, second = await pods.start("127.1.0.1"), await pods.start("127.1.0.2")
    async with KubeApi() as api:
        with_port(api, pods.port)
        api.create(pod("qwen-0", first))
        api.refuse()
        async with running_gateway(folder=tmp_path, cluster=api, is_awaited=False) as served:
            assert (await admin(served, "/healthz")).status_code == 200
            assert (await admin(served, "/readyz")).status_code == 503
            await api.listen()
            async with asyncio.timeout(5):
                await served.gateway.wait_serving()
            assert (await ask(served)).text == first
            api.refuse()
            api.restart()
            for _ in range(20):
                assert (await ask(served)).text == first
                await asyncio.sleep(0.01)
            assert (await admin(served, "/readyz")).status_code == 200
            api.delete("pods", "qwen-0")
            api.create(pod("qwen-1", second))
            api.store.forget()
            await api.listen()
            await until_answered_by(served, second)
            metrics = await served.metrics()
            assert 'pointsman_kubernetes_objects{kind="pods"} 1.0' in metrics
            assert 'pointsman_kubernetes_listed{kind="pods"} 1.0' in metrics
            assert 'pointsman_kubernetes_stale_seconds{kind="pods"}' in metrics


async def test_odd_objects_cost_nobody_else_anything(tmp_path: Path, pods: Pods) -> None:
    address = await pods.start("127.1.0.1")
    async with KubeApi() as api:
        with_port(api, pods.port)
        broken = route("broken", models={"broken": "qwen"})
        broken["spec"]["unheardOf"] = {"a": [1]}
        api.create(broken)
        twin = route("twin")
        twin["metadata"]["creationTimestamp"] = "2040-01-01T00:00:00Z"
        api.create(twin)
        api.create(route("dangling", models={"dangling": "nowhere"}))
        api.create(pool("empty"))
        api.create(route("empty", models={"empty": "empty"}))
        api.create(pod("no-address", None))
        odd: list[dict[str, Any]] = [pod(f"odd-{n}", "not an address") for n in range(2)]
        odd[1]["status"] = {"podIP": ["x"], "conditions": "none"}
        odd[0]["metadata"]["labels"] = {"app": "qwen", "n": 7}
        for obj in odd:
            api.create(obj)
        api.create(pod("elsewhere", "127.1.0.99", namespace="other"))
        api.create(pod("qwen-0", address))
        async with running_gateway(folder=tmp_path, cluster=api) as served:
            assert {(await ask(served)).text for _ in range(20)} == {address}
            assert (await ask(served, "broken")).status_code == 404
            assert (await ask(served, "dangling")).status_code == 500
            assert (await ask(served, "empty")).status_code == 503
            status = (await admin(served, "/status")).json()
            (said,) = [entry for entry in status if entry["name"] == "broken"]
            assert said["parent"] == "default/gateway"
            assert said["conditions"][0]["status"] == "False"
            assert "unheardOf" in said["conditions"][0]["message"]
            # Repaired, it is served.
            api.update(route("broken", models={"broken": "qwen"}))
            await until_answered_by(served, address, "broken")


async def test_backends_of_a_cluster_must_not_lead_into_the_gateway_s_own_pod(tmp_path: Path, pods: Pods) -> None:
    async with KubeApi() as api:
        api.create(gateway_class())
        api.create(gateway())
        api.create(route(models={"inside": "inside"}, kind="Backend"))
        backend = {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "Backend",
            "metadata": {"name": "inside"},
            "spec": {"endpoints": [{"ip": {"address": "169.254.169.254", "port": 80}}]},
        }
        api.create(backend)
        async with running_gateway(folder=tmp_path, cluster=api) as served:
            answer = await ask(served, "inside")
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "invalid_backend_ref")
            assert (await admin(served, "/config")).json()["backends"] == {}


async def test_services_go_by_their_endpoint_slices(tmp_path: Path, pods: Pods) -> None:
    first, second = await pods.start("127.1.0.1"), await pods.start("127.1.0.2")

    def piece(name: str, *endpoints: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "llm"}},
            "addressType": "IPv4",
            "endpoints": list(endpoints) or None,
            "ports": [{"name": "", "port": pods.port}],
        }

    async with KubeApi() as api:
        api.create(gateway_class())
        api.create(gateway())
        api.create(route(models={"llm": "llm"}, kind="Service"))
        api.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "llm"},
                "spec": {"selector": {"app": "llm"}, "ports": [{"port": 80}]},
            }
        )
        async with running_gateway(folder=tmp_path, cluster=api) as served:
            assert (await ask(served, "llm")).status_code == 503  # no slices: not by its name instead
            api.create(piece("llm-a", {"addresses": [first], "conditions": {"ready": True}}))
            api.create(piece("llm-b", {"addresses": [second], "conditions": {"ready": False}}))
            await until_answered_by(served, first, "llm")
            api.update(piece("llm-a"))
            api.update(piece("llm-b", {"addresses": [second], "conditions": {}}))  # missing means ready
            await until_answered_by(served, second, "llm")
        watches = [r for r in api.requests if (r.verb, r.kind.plural) == ("watch", "endpointslices")]
        assert {r.query["labelSelector"] for r in watches} == {"kubernetes.io/service-name=llm"}


async def test_only_pods_that_a_pool_selects_are_asked_for_and_beyond_32_pools_those_of_the_namespace(
    tmp_path: Path, pods: Pods
) -> None:
    address = await pods.start("127.1.0.1")
    async with KubeApi() as api:
        models = [f"m{number}" for number in range(32)]
        with_port(api, pods.port, *models)
        for model in models:
            api.create(pod(f"{model}-0", address, labels={"app": model}))
        async with running_gateway(folder=tmp_path, cluster=api) as served:
            assert (await ask(served, "m31")).text == address
            pod_streams = [stream for stream in api.streams if stream.kind.plural == "pods"]
            assert len(pod_streams) == 32
            api.create(pool("m32", port=pods.port))
            api.create(pod("m32-0", address, labels={"app": "m32"}))
            api.create(pod("unrelated", "127.1.0.99", labels={"app": "unrelated"}))
            api.create(route("more", models={"m32": "m32"}))
            await until_answered_by(served, address, "m32")
            async with asyncio.timeout(5):
                while 'pointsman_kubernetes_objects{kind="pods"} 33.0' not in await served.metrics():
                    await asyncio.sleep(0.02)
            assert (await ask(served, "m5")).text == address


async def test_certificate_authorities_are_read_where_a_backend_names_them(tmp_path: Path) -> None:
    authority = Authority()
    manifests = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec: {rules: [{backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec:
  endpoints: [{ip: {address: 127.0.0.1, port: %d}}]
  tls: {sni: model.test, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}
"""

    async def good(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer(b"verified")

    def config_map(name: str, data: dict[str, str]) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}

    async with KubeApi() as api, RawUpstream(good, tls=authority.server("model.test")) as upstream:
        api.create(config_map("ca", {"ca.crt": authority.pem}))
        api.create(config_map("unrelated", {"password": "s3cret"}))
        async with running_gateway(manifests % upstream.port, folder=tmp_path, cluster=api) as served:
            assert (await ask(served)).text == "verified"
            api.update(config_map("ca", {"ca.crt": Authority().pem}))
            async with asyncio.timeout(5):
                while (await ask(served)).status_code != 503:
                    await asyncio.sleep(0.02)
            api.update(config_map("ca", {"ca.crt": authority.pem}))
            await until_answered_by(served, "verified")
            api.delete("configmaps", "ca")
            async with asyncio.timeout(5):
                while (await ask(served)).status_code != 500:
                    await asyncio.sleep(0.02)


async def test_a_pod_that_is_gone_is_tried_once_while_the_api_server_cannot_say_so(tmp_path: Path, pods: Pods) -> None:
    first = await pods.start("127.1.0.1")

    def endpoint(address: str) -> dict[str, Any]:
        target = {"kind": "Pod", "name": address, "namespace": "default", "uid": address}
        return {"addresses": [address], "conditions": {"ready": True}, "targetRef": target}

    async with KubeApi() as api:
        api.create(gateway_class())
        api.create(gateway())
        api.create(route(models={"llm": "llm"}, kind="Service"))
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "llm"},
            "spec": {"ports": [{"port": 80}]},
        }
        api.create(service)
        piece = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "llm-a", "labels": {"kubernetes.io/service-name": "llm"}},
            "endpoints": [endpoint(first), endpoint("127.1.0.99")],  # nobody listens at the second
            "ports": [{"name": "", "port": pods.port}],
        }
        api.create(piece)
        async with running_gateway(folder=tmp_path, cluster=api) as served:
            api.refuse()
            api.restart()
            cluster = served.gateway.cluster
            assert cluster is not None
            async with asyncio.timeout(5):
                while not cluster.is_uninformed:
                    await asyncio.sleep(0.01)
            for _ in range(40):
                assert (await ask(served, "llm")).text == first
            metrics = await served.metrics()
            failed = [line for line in metrics.splitlines() if 'outcome="connect_failed"' in line]
            assert [line.rpartition(" ")[2] for line in failed] == ["1.0"]


async def test_a_stream_of_a_deleted_pod_ends_as_broken_after_five_silent_seconds(tmp_path: Path) -> None:
    async def hang(peer: Conversation) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await peer.send(head + b"9\r\ndata: {}\n\r\n")
        await peer.until_closed()

    async with RawUpstream(hang, host="127.1.0.1") as upstream, KubeApi() as api:
        with_port(api, upstream.port)
        api.create(pod("qwen-0", "127.1.0.1"))
        async with running_gateway(folder=tmp_path, cluster=api) as served, httpx.AsyncClient(timeout=30) as client:
            loop = asyncio.get_running_loop()
            url = f"{served.url}/v1/chat/completions"
            async with client.stream("POST", url, json={"model": "qwen", "stream": True}) as answer:
                chunks = answer.aiter_raw()
                assert await anext(chunks) == b"data: {}\n"
                api.terminate("pods", "qwen-0")
                api.delete("pods", "qwen-0")
                started = loop.time()
                rest = b""
                with pytest.raises(httpx.RemoteProtocolError):
                    async for chunk in chunks:
                        rest += chunk
                assert 4.9 <= loop.time() - started < 8
                assert b"upstream_reset" in rest


async def test_a_data_port_that_is_taken_is_a_line_though_it_is_opened_late(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            arguments = ("serve", "--kubernetes", "--host", "127.0.0.1", "--port", str(taken.getsockname()[1]))
            env = {"KUBECONFIG": str(api.kubeconfig(tmp_path))}
            code, _, err = await run_command(*arguments, "--admin-port", "0", env=env)
    assert code == 1
    assert err.splitlines()[-1].startswith("pointsman: cannot listen: ")
