"""Does a rule for a base model serve its adapters? ConfigMaps that name them, in files and in a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support.clusters import create_routing, pod, pool
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.kube_api import KubeApi
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: models}}
spec:
  rules:
  - matches:
    - headers: [{{name: X-Gateway-Base-Model-Name, value: llama}}]
    backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: llama}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: llama}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {port}}}}}]}}
"""
MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "adapters", "labels": {"inference.networking.k8s.io/bbr-managed": "true"}},
    "data": {"baseModel": "llama", "adapters": "- food-review\n- 'org/travel'\n"},
}
MAP_TEXT = """---
apiVersion: v1
kind: ConfigMap
metadata: {name: adapters, labels: {inference.networking.k8s.io/bbr-managed: "true"}}
data:
  baseModel: llama
  adapters: |
    - food-review
    - 'org/travel'
"""


async def echo(peer: Conversation) -> None:
    """Answers with the lines of the head that name models."""
    while True:
        head = (await peer.request()).partition(b"\r\n\r\n")[0]
        await peer.answer(b"\n".join(sorted(line for line in head.split(b"\r\n") if b"model-name" in line)))


async def ask(gateway: RunningGateway, model: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{gateway.url}/v1/completions", json={"model": model}, headers=headers)


async def test_adapters_and_the_base_go_by_the_base_model_s_rule(tmp_path: Path) -> None:
    async with RawUpstream(echo) as upstream:
        manifests = ROUTE.format(port=upstream.port) + MAP_TEXT
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            for model in ("llama", "food-review", "org/travel"):
                answer = await ask(gateway, model)
                assert answer.text == f"x-gateway-base-model-name: llama\nx-gateway-model-name: {model}"
            unknown = await ask(gateway, "unknown", {"X-Gateway-Base-Model-Name": "llama"})
            assert unknown.json()["error"]["code"] == "model_not_found"  # a client's word for it counts for nothing
            assert 'model="food-review"' in await gateway.metrics()


async def test_maps_of_a_cluster_take_effect_as_they_come_and_go(tmp_path: Path) -> None:
    async with RawUpstream(echo, host="127.1.0.1") as upstream, KubeApi() as api:
        create_routing(api)
        found = api.get("httproutes", "models")
        match = {"headers": [{"name": "X-Gateway-Base-Model-Name", "value": "llama"}]}
        rule = {**found["spec"]["rules"][0], "matches": [match]}
        api.update({**found, "spec": {**found["spec"], "rules": [rule]}})
        api.update({**api.get("inferencepools", "qwen"), "spec": pool(port=upstream.port)["spec"]})
        api.create(pod("qwen-0", "127.1.0.1"))
        unlabelled = {**MAP, "metadata": {"name": "other"}, "data": {"baseModel": "llama", "adapters": "- sneaky"}}
        api.create(unlabelled)
        async with running_gateway(folder=tmp_path, cluster=api) as gateway:
            assert (await ask(gateway, "food-review")).status_code == 404
            api.create(MAP)
            async with asyncio.timeout(3):
                while (await ask(gateway, "food-review")).status_code != 200:
                    await asyncio.sleep(0.01)
            assert (await ask(gateway, "sneaky")).status_code == 404
            api.delete("configmaps", "adapters")
            async with asyncio.timeout(3):
                while (await ask(gateway, "food-review")).status_code != 404:
                    await asyncio.sleep(0.01)
