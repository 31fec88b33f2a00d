"""Do edits take effect while serving, and can none break it?"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from discovery.snapshot import Snapshot
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.ports import free_port
from tests.support.processes import run_command, running_command
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio


def post(model: str) -> bytes:
    body = b'{"model":"%b"}' % model.encode()
    return b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def ok(peer: Conversation) -> None:
    while True:
        await peer.request()
        await peer.answer()


class Publications:
    """Waits for what the store publishes."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._queue: asyncio.Queue[Snapshot] = asyncio.Queue()
        gateway.gateway.store.subscribe(self._queue.put_nowait)

    async def next(self, seconds: float = 2.0) -> Snapshot:
        async with asyncio.timeout(seconds):
            return await self._queue.get()


async def test_an_edit_takes_effect_within_2_s_and_streams_go_on(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(peer: Conversation) -> None:
        if b"/stream" in await peer.request():
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            await go_on.wait()
            await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        else:
            await peer.answer()
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        manifests = tmp_path / "manifests.yaml"
        first = route_to(("127.0.0.1", upstream.port))
        async with running_gateway(first, folder=tmp_path) as gateway, RawClient(gateway.port) as stream:
            publications = Publications(gateway)
            await stream.send(post("qwen").replace(b"/v1/x", b"/stream"))
            await stream.head()
            assert await stream.chunk() == b"one"
            assert (await ask(gateway.port, post("new"))).status == 404
            manifests.write_text(route_to(("127.0.0.1", upstream.port), model="new"))
            assert (await publications.next()).version == 2
            assert (await ask(gateway.port, post("new"))).status == 200
            assert (await ask(gateway.port, post("qwen"))).status == 404
            go_on.set()
            assert await stream.chunk() == b"two"
            assert await stream.chunk() == b""


async def test_a_refused_edit_keeps_the_last_good_state_and_is_counted_once(tmp_path: Path) -> None:
    async with RawUpstream(ok) as upstream:
        good = route_to(("127.0.0.1", upstream.port))
        manifests = tmp_path / "manifests.yaml"
        async with running_gateway(good, folder=tmp_path) as gateway:
            publications = Publications(gateway)
            manifests.write_text(good.replace("backendRefs", "backendRef"))
            async with asyncio.timeout(3):
                while "pointsman_config_last_reload_successful 0.0" not in await gateway.metrics():
                    await asyncio.sleep(0.05)
            gateway.gateway.configuration.reread()  # the same content is no news
            await asyncio.sleep(0.5)
            assert "pointsman_config_rejected_total 1.0" in await gateway.metrics()
            assert (await ask(gateway.port, post("qwen"))).status == 200
            manifests.write_text(good.replace("route-qwen", "route-renamed"))
            await publications.next()
            assert (await ask(gateway.port, post("qwen"))).status == 200
            assert "pointsman_config_last_reload_successful 1.0" in await gateway.metrics()


async def test_upstreams_outlive_a_reload(tmp_path: Path) -> None:
    async with RawUpstream(ok) as upstream:
        manifests = tmp_path / "manifests.yaml"
        text = route_to(("127.0.0.1", upstream.port))
        async with running_gateway(text, folder=tmp_path) as gateway:
            publications = Publications(gateway)
            await ask(gateway.port, post("qwen"))
            (before,) = gateway.gateway.registry
            manifests.write_text(text.replace("route-qwen", "route-renamed"))
            await publications.next()
            await ask(gateway.port, post("qwen"))
            (after,) = gateway.gateway.registry
            assert after is before
            assert upstream.connections == 1


async def test_sighup_reads_again(tmp_path: Path) -> None:
    manifests = tmp_path / "routes.yaml"
    manifests.write_text(route_to(("127.0.0.1", 1)))
    port, admin_port = free_port(), free_port()
    arguments = ("--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port))
    async with running_command("serve", str(manifests), *arguments) as command:
        await command.wait_line("serving")
        command.signal(signal.SIGHUP)
        assert "nothing has changed" in await command.wait_line("configuration 1")
        command.signal()
        assert await command.wait() == 0


GATEWAY_PORTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: c}}
spec: {{controllerName: example.com/c}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g}}
spec:
  gatewayClassName: c
  listeners:
  - {{name: one, protocol: HTTP, port: {one}}}
  - {{name: two, protocol: HTTP, port: {two}}}
---
"""


async def test_each_listener_can_have_its_own_port(tmp_path: Path) -> None:
    one, two = free_port(), free_port()
    async with RawUpstream(ok) as upstream:
        routes = route_to(("127.0.0.1", upstream.port)).replace(
            "spec:\n  rules:", "spec:\n  parentRefs: [{name: g, sectionName: two}]\n  rules:"
        )
        async with (
            running_gateway(
                GATEWAY_PORTS.format(one=one, two=two) + routes,
                folder=tmp_path,
                configure=lambda settings: replace(settings, listens_on_gateway_ports=True),
            ) as gateway,
            httpx.AsyncClient() as client,
        ):
            assert sorted(gateway.gateway.ports) == sorted((one, two))
            assert (await client.post(f"http://127.0.0.1:{one}/", json={"model": "qwen"})).status_code == 404
            assert (await client.post(f"http://127.0.0.1:{two}/", json={"model": "qwen"})).status_code == 200
            file = str(tmp_path / "manifests.yaml")
            assert (await run_command("check", file))[0] == 1  # on one port the two listeners are in conflict
            assert (await run_command("check", file, "--listen-on-gateway-ports"))[0] == 0
            by_port = ("explain", file, "--model", "qwen", "--listen-on-gateway-ports", "--port")
            assert "answered by the gateway: 404" in (await run_command(*by_port, str(one)))[1]
            assert "arm: default/backend-qwen" in (await run_command(*by_port, str(two)))[1]
