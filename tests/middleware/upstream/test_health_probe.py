"""What does one check ask, and what does it find? Over real sockets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from discovery.rule_policy import ActiveHealth
from middleware.upstream.endpoint_health import Finding, Result
from middleware.upstream.health_probe import check, judge
from middleware.upstream.transport import UpstreamTransport
from tests.support.raw_upstream import Conversation, RawUpstream

OK = Result(Finding.WELL)
SETTINGS = ActiveHealth(path=b"/health", timeout_seconds=2.0)


@pytest.mark.parametrize(
    ("settings", "status", "body", "expected"),
    [
        pytest.param(SETTINGS, 200, b"", Finding.WELL, id="200"),
        pytest.param(SETTINGS, 204, b"", Finding.WRONG_ANSWER, id="another-2xx"),
        pytest.param(replace(SETTINGS, statuses=frozenset({204, 301})), 301, b"", Finding.WELL, id="expected"),
        pytest.param(
            replace(SETTINGS, retriable_statuses=frozenset({503})), 503, b"", Finding.RETRIABLE, id="retriable"
        ),
        pytest.param(replace(SETTINGS, expected=b"ok"), 200, b"all ok", Finding.WELL, id="content"),
        pytest.param(replace(SETTINGS, expected=b"ok"), 200, b"no", Finding.WRONG_ANSWER, id="other-content"),
        pytest.param(
            replace(SETTINGS, expected=b"ok"), 200, b"x" * 1024 + b"ok", Finding.WRONG_ANSWER, id="content-too-late"
        ),
    ],
)
def test_judging_an_answer(settings: ActiveHealth, status: int, body: bytes, expected: Finding) -> None:
    assert judge(settings, status, body).finding is expected


@pytest.mark.anyio
async def test_what_a_check_asks() -> None:
    asked: list[bytes] = []

    async def pod(peer: Conversation) -> None:
        asked.append(await peer.request())
        await peer.answer()

    settings = replace(SETTINGS, path=b"/ready?deep=1", host=b"model.test", method="POST")
    async with RawUpstream(pod) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        assert await check(transport, settings, b"model.test") == OK
        transport.close()
    assert asked[0].startswith(b"POST /ready?deep=1 HTTP/1.1\r\nhost: model.test\r\n")


@pytest.mark.anyio
async def test_every_way_to_fail() -> None:
    async def silent(peer: Conversation) -> None:
        await peer.until_closed()

    async def broken(peer: Conversation) -> None:
        await peer.request()
        peer.reset()

    async def foreign(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"220 smtp.example ESMTP\r\n")
        await peer.until_closed()

    settings = replace(SETTINGS, timeout_seconds=0.1)
    found = []
    for script in (silent, broken, foreign):
        async with RawUpstream(script) as upstream:
            transport = UpstreamTransport(address=upstream.host, port=upstream.port)
            found.append(await check(transport, settings, b"h"))
            transport.close()
    transport = UpstreamTransport(address="127.0.0.1", port=upstream.port)
    found.append(await check(transport, settings, b"h"))
    assert [result.why for result in found] == [
        "no answer within 0.1 s",
        "the connection broke off",
        "the answer is not HTTP",
        "no connection",
    ]
    assert {result.finding for result in found} == {Finding.RETRIABLE}


@pytest.mark.anyio
async def test_a_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    async def once(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()
        if peer.number == 1:
            await peer.request()  # the race: it is gone before it answers

    async with RawUpstream(once) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        assert [await check(transport, SETTINGS, b"h") for _ in range(2)] == [OK, OK]
        assert upstream.connections == 2
        transport.close()


@pytest.mark.anyio
async def test_a_long_answer_is_not_read_to_its_end() -> None:
    async def endless(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    async with RawUpstream(endless) as upstream:
        transport = UpstreamTransport(address=upstream.host, port=upstream.port)
        assert await check(transport, SETTINGS, b"h") == OK
        assert transport.idle_connections == 0
