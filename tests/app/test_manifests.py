"""Do users' manifests serve without a character changed? The three folders of tests/manifests, with pods beside
them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import RunningGateway, running_gateway

pytestmark = pytest.mark.anyio

MANIFESTS = Path(__file__).parent.parent / "manifests"


def pod(name: str, app: str, address: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
status: {{podIP: {address}}}
---
"""


def pool(name: str, app: str) -> str:
    return f"""
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: epp, port: {{number: 9002}}}}
---
"""


@asynccontextmanager
async def serving(
    folder: str, *, beside: str, servers: Mapping[str, tuple[str, int]], tmp_path: Path
) -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient]]:
    """The gateway over tests/manifests/``folder`` and the YAML ``beside``, with a model server per name and address."""
    async with AsyncExitStack() as stack:
        for name, (address, port) in servers.items():
            settings = SimulatorSettings(models=("qwen", "deepseek-r1", "chatbot", "sentiment"), name=name)
            await stack.enter_async_context(SimulatedModelServer(settings, host=address, port=port))
        gateway = await stack.enter_async_context(
            running_gateway(
                beside,
                folder=tmp_path,
                configure=lambda settings: replace(settings, paths=(MANIFESTS / folder, *settings.paths)),
            )
        )
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url))
        yield gateway, client


async def who_answers(client: httpx.AsyncClient, model: str, **headers: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    if answer.status_code != 200:
        return str(answer.json()["error"]["code"])
    return str(answer.json()["system_fingerprint"]).removeprefix("vllm-0.32.0-")


async def test_gke_routes_by_model_to_two_pools(tmp_path: Path) -> None:
    beside = (
        pool("gemma", "gemma")
        + pool("llama", "llama")
        + pod("g", "gemma", "127.1.1.1")
        + pod("l", "llama", "127.1.1.2")
    )
    servers = {"gemma-0": ("127.1.1.1", 8000), "llama-0": ("127.1.1.2", 8000)}
    async with serving("gke", beside=beside, servers=servers, tmp_path=tmp_path) as (_, client):
        assert await who_answers(client, "chatbot") == "gemma-0"
        assert await who_answers(client, "sentiment") == "llama-0"
        assert await who_answers(client, "other") == "model_not_found"


async def test_ack_routes_through_its_gateway_and_keeps_its_buffer_limit(tmp_path: Path) -> None:
    beside = pod("q", "qwen", "127.1.1.3") + pod("d", "deepseek-r1", "127.1.1.4")
    servers = {"qwen-0": ("127.1.1.3", 8000), "deepseek-0": ("127.1.1.4", 8000)}
    async with serving("ack", beside=beside, servers=servers, tmp_path=tmp_path) as (gateway, client):
        assert await who_answers(client, "qwen") == "qwen-0"
        assert await who_answers(client, "deepseek-r1") == "deepseek-0"
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["deepseek-r1", "qwen"]
        limit = 20 * 1024 * 1024
        for size, status in ((limit, 404), (limit + 1, 413)):
            body = b'{"model":"none","x":"' + b"x" * (size - 23) + b'"}'
            assert len(body) == size
            answer = await client.post("/v1/chat/completions", content=body)
            assert answer.status_code == status
        rules = gateway.gateway.store.current.routing.rules
        assert {rule.policy.request_timeout_seconds for rule in rules} == {24 * 3600.0}


@pytest.mark.usefixtures("ports_8001_to_8003")
async def test_envoy_ai_gateway_routes_by_a_header_to_a_pool_of_backends_or_to_one(tmp_path: Path) -> None:
    servers = {"member-1": ("127.0.0.1", 8001), "member-2": ("127.0.0.1", 8002), "service": ("127.0.0.1", 8003)}
    async with serving("envoy-ai-gateway", beside="", servers=servers, tmp_path=tmp_path) as (_, client):
        header = "x-target-inference-extension"
        assert await who_answers(client, "qwen", **{header: "no"}) == "service"
        members = {await who_answers(client, "qwen", **{header: "yes"}) for _ in range(30)}
        assert members == {"member-1", "member-2"}
        assert await who_answers(client, "qwen") == "model_not_found"
