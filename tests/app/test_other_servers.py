"""Does the chain notice a client that leaves under a server that does not cancel it? Under plain uvicorn, with h11."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import uvicorn

from app.main import build_chain, make_transport
from discovery.load import load
from discovery.snapshot import SnapshotStore
from middleware.model_extraction import BodyMemory
from middleware.rate_limits import RateLimiter
from middleware.scheduling.scheduler import Scheduler
from middleware.shedding import Shedder
from middleware.traffic_mirroring import MirrorCopies, MirrorRecord
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry
from middleware.upstream.scraper import MetricsScraper
from tests.support.gateway import FinishedExchanges, route_to
from tests.support.raw_client import RawClient
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_leaving_is_seen_and_a_whole_exchange_works(tmp_path: Path, http: Literal["h11", "httptools"]) -> None:
    at_work = asyncio.Event()

    async def script(peer: Conversation) -> None:
        while b"/wait" not in await peer.request():
            await peer.answer(b"ok")
        at_work.set()
        await peer.until_closed()

    async with RawUpstream(script) as upstream:
        manifests = tmp_path / "routes.yaml"
        manifests.write_text(route_to(("127.0.0.1", upstream.port)))
        compiled = load([manifests]).compile()
        store = SnapshotStore()
        store.publish(compiled.routing, compiled.membership)
        registry, finished = UpstreamRegistry(make_transport=make_transport), FinishedExchanges()
        scheduler = Scheduler()
        chain = build_chain(
            scheduler=scheduler,
            shedder=Shedder(scheduler=scheduler, registry=registry),
            scraper=MetricsScraper(registry=registry, make_transport=make_transport),
            limiter=RateLimiter(),
            store=store,
            registry=registry,
            rules=RuleTrafficRegistry(),
            memory=BodyMemory(limit_bytes=1 << 20),
            copies=MirrorCopies(observers=[_Silent()]),
            observers=[finished],
        )
        server = _Server(uvicorn.Config(chain, http=http, lifespan="off", ws="none", log_config=None, port=0))
        serving = asyncio.create_task(server.serve())
        await server.is_up.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        body = b'{"model":"qwen"}'
        head = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
        try:
            async with RawClient(port) as client:
                await client.send(head % (b"/", len(body), body))
                answer = await client.answer()
                assert (answer.status, answer.body) == (200, b"ok")
                await client.send(head % (b"/wait", len(body), body))
                await at_work.wait()
            exchange = await finished.next(2)
            assert exchange.reason == "client_closed"
            async with asyncio.timeout(1):
                await upstream.wait_ended()
        finally:
            server.should_exit = True
            await serving
            registry.close()


class _Silent:
    """An observer of mirrors where there are none."""

    def mirrored(self, record: MirrorRecord) -> None: ...


class _Server(uvicorn.Server):
    """uvicorn as it is, but that it says when it is up and leaves the test run's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()
