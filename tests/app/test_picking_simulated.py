"""Do conversations and adapters find their pods again? Over simulated vLLMs with KV blocks and adapters."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from middleware.scheduling.load import Knowledge
from tests.support.gateway import running_gateway
from tests.support.pods import Pod, pool_of

pytestmark = pytest.mark.anyio

SYSTEM = {"role": "system", "content": "You set the points, and you set them well. " * 60}  # 2,580 bytes, ten blocks
ADAPTER_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: adapters}
spec:
  rules:
  - matches: [{headers: [{name: X-Gateway-Model-Name, value: tenant}]}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool-qwen}]
"""


async def test_turns_and_adapters_find_their_pods_again(tmp_path: Path) -> None:
    settings = SimulatorSettings(
        models=("qwen",), prefix_caching=True, block_size=16, num_gpu_blocks=4096, adapters=("tenant",), max_loras=2
    )
    async with AsyncExitStack() as stack:
        servers: list[SimulatedModelServer] = []
        for number in range(4):
            port = servers[0].port if servers else 0
            server = SimulatedModelServer(settings, host=f"127.1.1.{number + 1}", port=port)
            servers.append(await stack.enter_async_context(server))
        members = [Pod(server.host, port=server.port) for server in servers]  # for their addresses only
        gateway = await stack.enter_async_context(
            running_gateway(pool_of(members, more=ADAPTER_ROUTE), folder=tmp_path)
        )
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=20))
        async with asyncio.timeout(10):
            while not all(upstream.load.knowledge is Knowledge.FRESH for upstream in gateway.gateway.registry):
                await asyncio.sleep(0.01)

        async def ask(model: str, messages: list[dict[str, str]]) -> dict[str, str]:
            answer = await client.post("/v1/chat/completions", json={"model": model, "messages": messages})
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == model
            message = answer.json()["choices"][0]["message"]
            return {"role": message["role"], "content": message["content"]}

        for conversation in range(8):
            messages = [SYSTEM]
            for turn in range(5):
                messages.append(
                    {"role": "user", "content": f"conversation {conversation}, turn {turn}: " + "more " * 60}
                )
                messages.append(await ask("qwen", messages))
        hits = sum(server.engine.statistics.prefix_hits for server in servers)
        queries = sum(server.engine.statistics.prefix_queries for server in servers)
        # Of the first turn of the first conversation nothing, of all others all but the last question.
        assert hits / queries > 0.75

        served = []
        for _ in range(6):
            before = [server.engine.completed for server in servers]
            await ask("tenant", [SYSTEM])
            served += [n for n, server in enumerate(servers) if server.engine.completed > before[n]]
        assert len(served) == 6
        assert len(set(served)) == 1
