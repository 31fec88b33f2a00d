"""Does the gateway reach a Backend in TLS, and only the one that the manifests mean? Over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.app.test_policies import POST, code
from tests.discovery.compile.test_upstream_tls import config_map
from tests.support.certificates import Authority
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

OURS, OTHERS = Authority(), Authority()
TLS = "  tls: {sni: model.test, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}\n"


def manifests(port: int, authority: Authority) -> str:
    return route_to(("127.0.0.1", port)).rstrip("-\n") + "\n" + TLS + "---\n" + config_map(authority.pem)


async def good(peer: Conversation) -> None:
    while True:
        await peer.request()
        await peer.answer()


async def replace_manifests(gateway: RunningGateway, folder: Path, text: str) -> None:
    version = gateway.gateway.store.current.version
    (folder / "manifests.yaml").write_text(text)
    async with asyncio.timeout(10):
        while gateway.gateway.store.current.version == version:
            await asyncio.sleep(0.02)


async def test_requests_reach_who_has_the_certificate_and_after_a_reload_nobody_else(tmp_path: Path) -> None:
    async with (
        RawUpstream(good, tls=OURS.server("model.test")) as upstream,
        running_gateway(manifests(upstream.port, OURS), folder=tmp_path) as gateway,
    ):
        for _ in range(3):
            assert (await ask(gateway.port, POST)).status == 200
        assert upstream.connections == 1
        async with httpx.AsyncClient(base_url=gateway.admin_url) as client:
            shown = (await client.get("/config")).text
        assert '"serverName": "model.test"' in shown
        assert "CERTIFICATE" not in shown

        # Other authorities: the connection that is open was verified by the old ones, so it is not used any more.
        await replace_manifests(gateway, tmp_path, manifests(upstream.port, OTHERS))
        refused = await ask(gateway.port, POST)
        assert (refused.status, code(refused)) == (503, "upstream_unavailable")
        assert b"certificate" not in refused.body
        await upstream.wait_ended()

        await replace_manifests(gateway, tmp_path, manifests(upstream.port, OURS))
        assert (await ask(gateway.port, POST)).status == 200


async def test_half_an_answer_never_ends_cleanly(tmp_path: Path) -> None:
    async def cut(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of")
        peer.end_without_a_word()
        await peer.until_closed()

    async with (
        RawUpstream(cut, tls=OURS.server("model.test")) as upstream,
        running_gateway(manifests(upstream.port, OURS), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(POST)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
        assert (await gateway.finished.next()).reason == "upstream_reset"


async def test_a_client_that_leaves_ends_the_work_behind_tls(tmp_path: Path) -> None:
    async def silent(peer: Conversation) -> None:
        await peer.request()
        await peer.until_closed()

    async with (
        RawUpstream(silent, tls=OURS.server("model.test")) as upstream,
        running_gateway(manifests(upstream.port, OURS), folder=tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.send(POST)
            async with asyncio.timeout(5):
                while not upstream.connections or not gateway.gateway.requests_running:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await upstream.wait_ended()
        assert (await gateway.finished.next()).reason == "client_closed"
