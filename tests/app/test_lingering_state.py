"""Is everything where it was after many requests that end in all ways? `make soak` runs 100,000 of them."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawClient
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "4000"))
CONCURRENCY = 40
ALLOWED_GROWTH_MB = 12  # of allocators, not of state: it does not grow with the number of requests


def resident_megabytes() -> float:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # what is free and not given back says more of earlier tests than of this one
        libc.malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def open_sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except OSError:
            pass
    return count


def post(body: bytes) -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


JSON = post(b'{"model":"qwen","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}')
STREAM = post(b'{"model":"qwen","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}')
UNREACHABLE = post(b'{"model":"gone"}')
UNKNOWN = post(b'{"model":"nope"}')


async def one_client(port: int, dice: random.Random, count: int) -> None:
    done = 0
    while done < count:
        async with RawClient(port) as client:
            for _ in range(dice.randint(1, 20)):
                done += 1
                request = dice.choice([JSON, JSON, STREAM, STREAM, UNREACHABLE, UNKNOWN, b"nonsense\r\n\r\n"])
                await client.send(request)
                match dice.randrange(8):
                    case 0:
                        break  # leaves at once
                    case 1:
                        await asyncio.sleep(dice.random() * 0.01)  # at a random moment
                        client.reset()
                        break
                    case 2:
                        client.half_close()
                        await client.rest()
                        break
                    case 3:
                        await client.reader.read(100)  # in the middle of the answer
                        break
                try:
                    answer = await client.answer()
                except (asyncio.IncompleteReadError, ConnectionError):
                    break
                if answer.headers.get("connection") == "close":
                    break


async def load(gateway: RunningGateway, server: SimulatedModelServer, requests: int, seed: int) -> None:
    clients = [
        one_client(gateway.port, random.Random(seed * 1000 + number), requests // CONCURRENCY)
        for number in range(CONCURRENCY)
    ]
    await asyncio.gather(*clients)
    await server.engine.until(lambda engine: engine.running == engine.waiting == 0)
    while gateway.gateway.requests_running:
        await asyncio.sleep(0.01)


async def test_memory_tasks_sockets_and_gauges_are_where_they_were(tmp_path: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=0.002, itl_seconds=0.001, recorded_requests=0)
    async with SimulatedModelServer(settings) as server:
        manifests = route_to(("127.0.0.1", server.port)) + route_to(("127.0.0.1", 1), model="gone")
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            gateway.finished.keeps = False
            await load(gateway, server, CONCURRENCY * 20, seed=1)  # caches fill, code is specialised
            transports = [upstream.transport for upstream in gateway.gateway.registry]
            for transport in transports:
                transport.close_idle()
            await asyncio.sleep(0.1)
            gc.collect()
            tasks, sockets, memory = len(asyncio.all_tasks()), open_sockets(), resident_megabytes()

            await load(gateway, server, REQUESTS, seed=2)
            for transport in transports:
                transport.close_idle()
            async with asyncio.timeout(10):
                while open_sockets() > sockets or len(asyncio.all_tasks()) > tasks:
                    await asyncio.sleep(0.05)
            gc.collect()
            assert resident_megabytes() - memory < ALLOWED_GROWTH_MB
            assert gateway.gateway.memory.used_bytes == 0
            assert gateway.gateway.metrics.requests_in_flight == 0
            assert [upstream.in_flight for upstream in gateway.gateway.registry] == [0, 0]
            for line in (await gateway.metrics()).splitlines():
                if "in_flight" in line and not line.startswith("#"):
                    assert line.endswith(" 0.0"), line


@pytest.mark.parametrize("target", ["qwen", "qwen-v2"], ids=["as-it-came", "renamed"])
async def test_a_stream_does_not_keep_its_request_in_memory(tmp_path: Path, target: str) -> None:
    async def begins(peer: Conversation) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
        )
        await peer.until_closed()

    async with RawUpstream(begins) as upstream:
        manifests = f"""
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {{name: ai}}
spec: {{rules: [{{backendRefs: [{{name: b, modelNameOverride: {target}}}]}}]}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {{name: b}}
spec: {{schema: {{name: OpenAI}}, backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: b}}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {upstream.port}}}}}]}}
"""
        request = post(b'{"model":"qwen","prompt":"%b"}' % (b"x" * 8_000_000))
        async with running_gateway(manifests, folder=tmp_path) as gateway, AsyncExitStack() as clients:
            before = resident_megabytes()
            for _ in range(8):
                client = await clients.enter_async_context(RawClient(gateway.port))
                await client.send(request)
                assert (await client.head())[0] == 200
                assert await client.chunk() == b"one"
            assert gateway.gateway.requests_running == 8
            assert resident_megabytes() - before < 24  # of 64 MB that were sent
