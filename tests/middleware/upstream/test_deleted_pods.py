"""What becomes of answers from a pod that was deleted? They end as broken once nothing comes any more."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import httpx
import pytest

from discovery.backend import Endpoint
from discovery.snapshot import Routing, Snapshot
from middleware.upstream.connection import ConnectionBrokenError
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.transport import UpstreamTransport
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
REQUEST = [(b"host", b"test")]


async def test_a_silent_answer_is_broken_and_one_that_goes_on_is_not() -> None:
    go_on = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(HEAD)
        if peer.number == 1:
            await peer.until_closed()
            return
        await go_on.wait()
        for _ in range(5):
            await asyncio.sleep(0.05)  # more often than the limit, and longer than it in all
            await peer.send(b"3\r\ntwo\r\n")
        await peer.send(b"0\r\n\r\n")

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address="127.0.0.1", port=upstream.port)
        silent = await transport.send(method="GET", target=b"/", headers=REQUEST, body=b"")
        assert await silent.read() == b"one"
        talking = await transport.send(method="GET", target=b"/", headers=REQUEST, body=b"")
        assert await talking.read() == b"one"
        transport.limit_silence(0.15)
        go_on.set()
        assert b"".join([chunk async for chunk in talking]) == b"two" * 5
        talking.release()
        with pytest.raises(ConnectionBrokenError, match="the pod was deleted"):
            await silent.read()
        transport.close()


async def test_an_idle_connection_has_no_answer_to_end() -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        transport = UpstreamTransport(address="127.0.0.1", port=upstream.port)
        answer = await transport.send(method="GET", target=b"/", headers=REQUEST, body=b"")
        assert await answer.read() == b"{}"
        answer.release()
        transport.limit_silence(0.01)
        await asyncio.sleep(0.05)
        assert transport.idle_connections == 1
        transport.close()


class Limited(UpstreamTransport):
    """Notes the limits that it is given."""

    def __init__(self) -> None:
        super().__init__(address="127.0.0.1", port=1)
        self.limits: list[float] = []

    def limit_silence(self, seconds: float) -> None:
        self.limits.append(seconds)


async def test_only_upstreams_of_deleted_pods_are_limited_and_once() -> None:
    made: dict[str, Limited] = {}

    def make(endpoint: Endpoint) -> Limited:
        return made.setdefault(endpoint.id, Limited())

    registry = UpstreamRegistry(make_transport=make)
    url = httpx.URL("http://127.0.0.1:1/")
    ids = ("uid-1/127.0.0.1:1", "llm/qwen-0/127.0.0.1:1", "127.0.0.1:1", "uid-2/127.0.0.1:1")
    endpoints = tuple(Endpoint(id=name, address="127.0.0.1", port=1, url=url) for name in ids)
    for candidate in registry.candidates("pool", endpoints):
        candidate.upstream.begin()
    empty = Snapshot(version=1, routing=Routing(), membership=MappingProxyType({}))
    registry.follow(empty)  # named by nobody any more, with a request running
    for _ in range(2):
        registry.end_streams_of(frozenset({"uid-1", "llm/qwen-0"}))
    assert {name: transport.limits for name, transport in made.items()} == {
        ids[0]: [5.0],
        ids[1]: [5.0],
        ids[2]: [],
        ids[3]: [],
    }
