"""Does the server start, stop and remember as it promises?"""

import asyncio

import pytest

from app.simulator.call import Headers
from app.simulator.request_log import MAX_BODY_BYTES, ReceivedRequest, RequestLog
from app.simulator.server import SimulatedModelServer, serve
from app.simulator.settings import SimulatorSettings
from tests.app.simulator.wire import JSON, connect

pytestmark = pytest.mark.anyio

SETTINGS = SimulatorSettings(models=("qwen",), ttft_seconds=1000)
CHAT = b'{"messages":[],"stream":true}'


async def test_stopping_cuts_what_runs_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with SimulatedModelServer(SETTINGS) as server:
        async with connect(server.port) as streaming, connect(server.port) as waiting, connect(server.port) as idle:
            streaming.send("POST", "/v1/chat/completions", CHAT)
            await streaming.head()
            waiting.send("POST", "/v1/chat/completions", b'{"messages":[]}')
            idle.send("GET", "/health")
            await idle.answer()
            await server.engine.until(lambda e: e.running == 2)
            async with asyncio.timeout(5):
                await server.__aexit__(None, None, None)
            for connection in (streaming, waiting, idle):
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await connection.head()
    assert (server.engine.running, server.engine.aborted) == (0, 2)
    await asyncio.sleep(0)  # watchers that were cancelled end in the next turn
    assert asyncio.all_tasks() == before
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_taken_port_is_an_error_at_start() -> None:
    async with SimulatedModelServer(SETTINGS) as server:
        with pytest.raises(OSError, match="in use"):
            async with SimulatedModelServer(SETTINGS, port=server.port):
                pass


async def test_serve_says_when_it_is_ready_and_stops_when_told() -> None:
    async with SimulatedModelServer(SETTINGS) as server:
        port = server.port  # free again in a moment
    ready, stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(SETTINGS, host="127.0.0.1", port=port, ready=ready, stop=stop))
    await ready.wait()
    async with connect(port) as connection:
        connection.send("GET", "/health")
        assert (await connection.answer()).status == 200
    stop.set()
    await serving


async def test_ipv6_addresses_make_a_usable_url() -> None:
    async with SimulatedModelServer(SETTINGS, host="::1") as server:
        assert server.url == f"http://[::1]:{server.port}"


async def test_requests_are_kept_as_they_came() -> None:
    async with SimulatedModelServer(SETTINGS) as server, connect(server.port) as connection:
        connection.send("GET", "/version?a=%20b", headers={**JSON, "X-Thing": "Mixed Case"})
        await connection.answer()
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("GET", b"/version?a=%20b", b"")
    assert request.header(b"x-thing") == b"Mixed Case"
    assert request.header(b"other") is None


async def test_a_redirect_keeps_the_query() -> None:
    async with SimulatedModelServer(SETTINGS) as server, connect(server.port) as connection:
        connection.send("POST", "/v1/chat/completions/?a=b")
        answer = await connection.answer()
    assert answer.header(b"location") == b"http://127.0.0.1:9101/v1/chat/completions?a=b"


def received(body: bytes) -> ReceivedRequest:
    headers: Headers = []
    return ReceivedRequest(method="POST", target=b"/", headers=headers, body=body)


def test_only_the_last_requests_are_kept() -> None:
    log = RequestLog(limit=2)
    for body in (b"1", b"2", b"3"):
        log.add(received(body))
    assert [request.body for request in log] == [b"2", b"3"]
    log.clear()
    assert len(log) == 0


def test_kept_bodies_have_a_limit_but_the_newest_stays() -> None:
    log = RequestLog(limit=100)
    half = bytes(MAX_BODY_BYTES // 2)
    for _ in range(3):
        log.add(received(half))
    assert len(log) == 2
    log.add(received(bytes(MAX_BODY_BYTES + 1)))
    assert [len(request.body) for request in log] == [MAX_BODY_BYTES + 1]
