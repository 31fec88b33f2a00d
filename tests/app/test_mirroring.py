"""Do mirrors get their copies, and does the primary never notice them? Over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream, Script

pytestmark = pytest.mark.anyio

BODY = b'{"model":"qwen","n":1}'
POST = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


async def primary(peer: Conversation) -> None:
    while True:
        await peer.request()
        await peer.answer(b"primary")


def mirrored(primary_port: int, *mirror_ports: int, share: str = "") -> str:
    filters = "filters:\n- {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-rule, value: r}]}}\n"
    backends = ""
    for number, port in enumerate(mirror_ports):
        reference = f"{{group: gateway.envoyproxy.io, kind: Backend, name: mirror-{number}}}"
        filters += f"- {{type: RequestMirror, requestMirror: {{backendRef: {reference}{share}}}}}\n"
        backends += f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: mirror-{number}}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {port}}}}}]}}
---
"""
    return route_to(("127.0.0.1", primary_port), rule=filters) + backends


async def metric(gateway: RunningGateway, line: str) -> None:
    """Wait until a line is in the metrics."""
    async with asyncio.timeout(5):
        while line not in await gateway.metrics():
            await asyncio.sleep(0.02)


async def test_every_mirror_gets_the_request_with_the_rules_changes(tmp_path: Path) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def mirror(peer: Conversation) -> None:
        while True:
            await received.put(await peer.request())
            await peer.answer(b"dropped", status="418 I'm a teapot")

    async with (
        RawUpstream(primary) as one,
        RawUpstream(mirror) as two,
        RawUpstream(mirror) as three,
        running_gateway(mirrored(one.port, two.port, three.port), folder=tmp_path) as gateway,
    ):
        assert (await ask(gateway.port, POST)).body == b"primary"
        async with asyncio.timeout(5):
            copies = [await received.get(), await received.get()]
        for copy in copies:
            head, _, body = copy.partition(b"\r\n\r\n")
            assert body == BODY
            assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n")
            assert b"\r\nx-rule: r" in head
            assert b"\r\nx-gateway-model-name: qwen" in head
        labels = 'backend="default/mirror-0",code="418",route="default/route-qwen",rule="0"'
        await metric(gateway, f"pointsman_mirrored_requests_total{{{labels}}} 1.0")
        assert len(gateway.gateway.copies) == 0


async def silent(peer: Conversation) -> None:
    await peer.request()
    await peer.until_closed()


async def resets(peer: Conversation) -> None:
    await peer.request()
    peer.reset()


async def drips(peer: Conversation) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await peer.send(b"1\r\nx\r\n")
        await asyncio.sleep(0.05)


async def nonsense(peer: Conversation) -> None:
    await peer.request()
    await peer.send(b"nonsense\r\n\r\n")


@pytest.mark.parametrize(
    "script", [silent, resets, drips, nonsense, None], ids=lambda script: getattr(script, "__name__", "absent")
)
async def test_what_a_mirror_does_is_never_noticed_by_the_primary(tmp_path: Path, script: Script | None) -> None:
    async with RawUpstream(primary) as one, RawUpstream(script or silent) as two:
        mirror_port = two.port if script is not None else 1
        async with running_gateway(mirrored(one.port, mirror_port), folder=tmp_path) as gateway:
            async with asyncio.timeout(2):
                for _ in range(5):
                    assert (await ask(gateway.port, POST)).body == b"primary"
            assert {len(exchange.attempts) for exchange in gateway.finished.all} == {1}
        assert gateway.gateway.copies.held_bytes == 0


async def test_a_copy_outlives_its_client(tmp_path: Path) -> None:
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def slow(peer: Conversation) -> None:
        await peer.request()
        arrived.set()
        await answer.wait()
        await peer.answer(b"late")
        await peer.until_closed()

    async with (
        RawUpstream(silent) as one,
        RawUpstream(slow) as two,
        running_gateway(mirrored(one.port, two.port), folder=tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.send(POST)
            await arrived.wait()
        assert (await gateway.finished.next()).reason == "client_closed"
        assert len(gateway.gateway.copies) == 1
        answer.set()
        await metric(gateway, 'code="200",route="default/route-qwen"')


async def test_copies_over_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    async with (
        RawUpstream(primary) as one,
        RawUpstream(silent) as two,
        running_gateway(mirrored(one.port, two.port), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        for _ in range(260):
            await client.send(POST)
            assert (await client.answer()).body == b"primary"
        assert len(gateway.gateway.copies) == 256
        assert "pointsman_mirrors_dropped_total" in await gateway.metrics()
        assert 'rule="0"} 4.0' in await gateway.metrics()


async def test_a_share_of_the_requests_is_mirrored(tmp_path: Path) -> None:
    count = 0

    async def mirror(peer: Conversation) -> None:
        nonlocal count
        while True:
            await peer.request()
            count += 1
            await peer.answer()

    async with (
        RawUpstream(primary) as one,
        RawUpstream(mirror) as two,
        running_gateway(mirrored(one.port, two.port, share=", percent: 25"), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        for _ in range(400):
            await client.send(POST)
            await client.answer()
        async with asyncio.timeout(5):
            while len(gateway.gateway.copies):
                await asyncio.sleep(0.02)
    assert 55 <= count <= 150  # 100 expected, 5 standard deviations


async def test_what_is_refused_is_not_mirrored(tmp_path: Path) -> None:
    copies: list[bytes] = []

    async def mirror(peer: Conversation) -> None:
        while True:
            copies.append(await peer.request())
            await peer.answer()

    async with RawUpstream(primary) as one, RawUpstream(mirror) as two:
        empty = mirrored(one.port, two.port).replace("name: backend-qwen", "name: gone", 1) + POOL
        pool = "{group: inference.networking.k8s.io, kind: InferencePool, name: gone"
        empty = empty.replace("{group: gateway.envoyproxy.io, kind: Backend, name: gone", pool, 1)
        async with running_gateway(empty, folder=tmp_path) as gateway:
            assert (await ask(gateway.port, POST)).status == 503
            assert len(gateway.gateway.copies) == 0
    assert copies == []


async def test_a_pool_that_fails_closed_is_not_mirrored(tmp_path: Path) -> None:
    copies: list[bytes] = []

    async def mirror(peer: Conversation) -> None:
        while True:
            copies.append(await peer.request())
            await peer.answer()

    async def without_metrics(peer: Conversation) -> None:
        while not (await peer.request()).startswith(b"GET /metrics"):
            await peer.answer()
        await peer.until_closed()

    async with RawUpstream(without_metrics) as one, RawUpstream(mirror) as two:
        text = mirrored(one.port, two.port).replace("name: backend-qwen", "name: gone", 1)
        pool = "{group: inference.networking.k8s.io, kind: InferencePool, name: gone"
        text = text.replace("{group: gateway.envoyproxy.io, kind: Backend, name: gone", pool, 1)
        text += POOL.replace("number: 8000", f"number: {one.port}").replace("9002}", "9002}, failureMode: FailClose")
        text += "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: gone}}\nstatus: {podIP: 127.0.0.1}\n"
        async with running_gateway(text, folder=tmp_path) as gateway:
            async with asyncio.timeout(5):
                while b"no_endpoints" not in (await ask(gateway.port, POST)).body:
                    await asyncio.sleep(0.05)
            while len(gateway.gateway.copies):
                await asyncio.sleep(0.01)
            copies.clear()
            assert (await ask(gateway.port, POST)).status == 503
            assert len(gateway.gateway.copies) == 0
    assert copies == []


POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: gone}
spec:
  selector: {matchLabels: {app: gone}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
"""
