"""Does the transport speak TLS with those it should, and with nobody else? Over real sockets."""

from __future__ import annotations

import asyncio
import logging
import ssl

import httpx
import pytest

from discovery.backend import UpstreamTLS
from middleware.upstream.connection import READ_HIGH_WATER_BYTES, ConnectionBrokenError
from middleware.upstream.tls import context_for
from middleware.upstream.transport import Timeouts, UpstreamTransport
from tests.support.certificates import Authority
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

AUTHORITY = Authority()
TRUSTED = UpstreamTLS(server_name="model.test", authorities=AUTHORITY.pem)


def transport_to(upstream: RawUpstream, tls: UpstreamTLS = TRUSTED) -> UpstreamTransport:
    return UpstreamTransport(address=upstream.host, port=upstream.port, tls=tls)


async def exchange(
    transport: UpstreamTransport, *, body: bytes = b"{}", timeouts: Timeouts | None = None
) -> tuple[int, bytes]:
    headers = [(b"host", b"model.test"), (b"content-length", b"%d" % len(body))]
    stream = await transport.send(
        method="POST", target=b"/v1/x", headers=headers, body=body, timeouts=timeouts or Timeouts()
    )
    try:
        status = stream.status
        return status, b"".join([chunk async for chunk in stream])
    finally:
        stream.release()


async def good(peer: Conversation) -> None:
    while True:
        request = await peer.request()
        await peer.answer(request[-2:])


async def test_a_verified_connection_is_used_again() -> None:
    async with RawUpstream(good, tls=AUTHORITY.server("model.test")) as upstream:
        transport = transport_to(upstream)
        for _ in range(3):
            assert await exchange(transport) == (200, b"{}")
        assert (upstream.connections, transport.idle_connections) == (1, 1)
        transport.close()


async def test_large_bodies_pass_in_both_directions() -> None:
    async def echo(peer: Conversation) -> None:
        body = (await peer.request()).partition(b"\r\n\r\n")[2]
        await peer.answer(body)
        await peer.until_closed()

    body = bytes(range(256)) * 40_000
    async with RawUpstream(echo, tls=AUTHORITY.server("model.test")) as upstream:
        transport = transport_to(upstream)
        assert await exchange(transport, body=body) == (200, body)
        assert transport.idle_connections == 1
        transport.close()


@pytest.mark.parametrize(
    ("tls", "names", "expected"),
    [
        pytest.param(TRUSTED, ["other.test"], "Hostname mismatch", id="another-name"),
        pytest.param(
            UpstreamTLS(server_name="127.0.0.1", authorities=AUTHORITY.pem),
            ["model.test"],
            "IP address mismatch",
            id="address-that-the-certificate-lacks",
        ),
        pytest.param(
            UpstreamTLS(server_name="model.test", authorities=Authority().pem),
            ["model.test"],
            "unable to get local issuer",
            id="another-authority",
        ),
        pytest.param(UpstreamTLS(server_name="model.test"), ["model.test"], "unable to get local issuer", id="system"),
    ],
)
async def test_whoever_is_not_who_he_should_be_gets_nothing(
    tls: UpstreamTLS, names: list[str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    received = []

    async def script(peer: Conversation) -> None:
        received.append(await peer.request())

    async with RawUpstream(script, tls=AUTHORITY.server(*names)) as upstream:
        transport = transport_to(upstream, tls)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                with pytest.raises(httpx.ConnectError):
                    await exchange(transport)
        (line,) = [record.getMessage() for record in caplog.records]  # told once
        assert f"no TLS with 127.0.0.1:{upstream.port} as {tls.server_name}: the certificate is not accepted" in line
        assert expected in line
        transport.close()
    assert received == []


@pytest.mark.parametrize(
    ("tls", "names"),
    [
        pytest.param(UpstreamTLS(server_name="127.0.0.1", authorities=AUTHORITY.pem), ["127.0.0.1"], id="by-address"),
        pytest.param(UpstreamTLS(server_name="model.test", verifies=False), ["other.test"], id="unverified"),
        pytest.param(
            UpstreamTLS(server_name="model.pods.test", authorities=Authority().pem + AUTHORITY.pem),
            ["*.pods.test"],
            id="one-of-two-authorities-and-a-wildcard",
        ),
    ],
)
async def test_who_is_accepted(tls: UpstreamTLS, names: list[str]) -> None:
    async with RawUpstream(good, tls=AUTHORITY.server(*names)) as upstream:
        transport = transport_to(upstream, tls)
        assert await exchange(transport) == (200, b"{}")
        transport.close()


async def test_the_name_is_sent_and_an_address_is_not() -> None:
    asked: list[str | None] = []
    context = AUTHORITY.server("model.test", "127.0.0.1")

    def note(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        asked.append(name)

    context.sni_callback = note
    async with RawUpstream(good, tls=context) as upstream:
        for name in ("model.test", "127.0.0.1"):
            transport = transport_to(upstream, UpstreamTLS(server_name=name, authorities=AUTHORITY.pem))
            await exchange(transport)
            transport.close()
    assert asked == ["model.test", None]


async def test_versions_are_kept_to() -> None:
    old = AUTHORITY.server("model.test", newest=ssl.TLSVersion.TLSv1_2)
    async with RawUpstream(good, tls=old) as upstream:
        newest = UpstreamTLS(server_name="model.test", authorities=AUTHORITY.pem, min_version="1.3")
        with pytest.raises(httpx.ConnectError):
            await exchange(transport_to(upstream, newest))
        oldest = UpstreamTLS(server_name="model.test", authorities=AUTHORITY.pem, max_version="1.2")
        transport = transport_to(upstream, oldest)
        assert await exchange(transport) == (200, b"{}")
        transport.close()


async def test_a_server_without_tls_is_a_connect_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def plain(peer: Conversation) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await peer.until_closed()

    async with RawUpstream(plain) as upstream:
        with caplog.at_level(logging.WARNING), pytest.raises(httpx.ConnectError):
            await exchange(transport_to(upstream))
        assert "the handshake failed: wrong version number" in caplog.text


async def test_a_handshake_that_does_not_end_is_cut_with_the_connect_timeout() -> None:
    async def silent(peer: Conversation) -> None:
        await peer.until_closed()

    async with RawUpstream(silent) as upstream:
        with pytest.raises(httpx.ConnectTimeout):
            await exchange(transport_to(upstream), timeouts=Timeouts(connect=0.1))
        async with asyncio.timeout(5):
            await upstream.wait_ended()


async def test_a_body_that_ends_with_the_connection_ends_with_close_notify() -> None:
    async def clean(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with RawUpstream(clean, tls=AUTHORITY.server("model.test")) as upstream:
        assert await exchange(transport_to(upstream)) == (200, b"all of it")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_without_close_notify_it_is_a_broken_answer(newest: ssl.TLSVersion) -> None:
    async def cut(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of")
        peer.end_without_a_word()
        await peer.until_closed()

    async with RawUpstream(cut, tls=AUTHORITY.server("model.test", newest=newest)) as upstream:
        with pytest.raises(ConnectionBrokenError, match="in the middle of the answer"):
            await exchange(transport_to(upstream))


async def test_who_leaves_ends_the_upstream_s_connection_at_once() -> None:
    started = asyncio.Event()

    async def endless(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")
        started.set()
        await peer.until_closed()

    async with RawUpstream(endless, tls=AUTHORITY.server("model.test")) as upstream:
        transport = transport_to(upstream)
        task = asyncio.create_task(exchange(transport))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await upstream.wait_ended()
        assert transport.idle_connections == 0


async def test_equal_settings_share_a_context_whatever_the_name() -> None:
    other = UpstreamTLS(server_name="other.test", authorities=AUTHORITY.pem)
    assert context_for(TRUSTED) is context_for(other)
    assert context_for(TRUSTED) is not context_for(UpstreamTLS(server_name="model.test"))
    assert TRUSTED.fingerprint != other.fingerprint


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_slow_reader_holds_the_upstream_back_and_learns_how_it_ended(*, is_whole: bool) -> None:
    total = 128 * READ_HIGH_WATER_BYTES  # far more than the kernel's buffers take
    sent = 0

    async def script(peer: Conversation) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        part = b"x" * 65536
        while sent < total:
            await peer.send(part)
            sent += len(part)
        if not is_whole:
            peer.end_without_a_word()
            await peer.until_closed()

    async with RawUpstream(script, tls=AUTHORITY.server("model.test")) as upstream:
        transport = transport_to(upstream)
        stream = await transport.send(method="GET", target=b"/", headers=[(b"host", b"h")], body=b"")
        try:
            received = largest = len(await stream.read())
            previous = -1
            while sent != previous:  # until nothing moves any more
                previous = sent
                await asyncio.sleep(0.1)
            assert sent < total / 2
            is_broken = False
            try:
                while chunk := await stream.read():
                    received += len(chunk)
                    largest = max(largest, len(chunk))
            except ConnectionBrokenError:
                is_broken = True
        finally:
            stream.abort()
        assert largest <= 3 * READ_HIGH_WATER_BYTES  # the bound, and what TLS had decrypted before it was told to stop
        assert is_broken is not is_whole
        assert received == total or is_broken
