"""How is an endpoint asked once whether it is well, and what does its answer say?"""

from __future__ import annotations

import asyncio

import httpx

from discovery.rule_policy import ActiveHealth
from middleware.upstream.connection import ConnectionBrokenError
from middleware.upstream.endpoint_health import Finding, Result
from middleware.upstream.transport import Timeouts, UpstreamTransport

_LOOKED_AT_BYTES = 1024  # of an answer, for what it must contain
_READ_BYTES = 64 * 1024  # of an answer, so that its connection can be used again


def judge(settings: ActiveHealth, status: int, body: bytes) -> Result:
    """What an answer says."""
    if settings.expected and settings.expected not in body[:_LOOKED_AT_BYTES]:
        return Result(Finding.WRONG_ANSWER, f"status {status} without the expected response")
    if status in settings.statuses:
        return Result(Finding.WELL)
    is_retriable = status in settings.retriable_statuses
    return Result(Finding.RETRIABLE if is_retriable else Finding.WRONG_ANSWER, f"status {status}")


async def check(transport: UpstreamTransport, settings: ActiveHealth, host: bytes) -> Result:
    """Ask once. Raises nothing but CancelledError; what was begun then is aborted."""
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            try:
                return judge(settings, *await _ask(transport, settings, host, is_fresh=False))
            except ConnectionBrokenError as error:
                if not error.is_reused or error.has_answer_bytes:
                    raise
            return judge(settings, *await _ask(transport, settings, host, is_fresh=True))
    except (TimeoutError, httpx.TimeoutException):
        return Result(Finding.RETRIABLE, f"no answer within {settings.timeout_seconds:g} s")
    except httpx.ConnectError:
        return Result(Finding.RETRIABLE, "no connection")
    except httpx.RemoteProtocolError:
        return Result(Finding.RETRIABLE, "the answer is not HTTP")
    except httpx.TransportError:
        return Result(Finding.RETRIABLE, "the connection broke off")


async def _ask(
    transport: UpstreamTransport, settings: ActiveHealth, host: bytes, *, is_fresh: bool
) -> tuple[int, bytes]:
    limit = settings.timeout_seconds
    headers = [(b"host", host), (b"user-agent", b"pointsman-health-check")]
    if settings.method in ("POST", "PUT", "PATCH"):
        headers.append((b"content-length", b"0"))
    stream = await transport.send(
        method=settings.method,
        target=settings.path,
        headers=headers,
        body=b"",
        timeouts=Timeouts(connect=limit, first_byte=limit, idle=limit, remaining=limit),
        is_fresh=is_fresh,
    )
    try:
        status, body = stream.status, b""
        while len(body) < _READ_BYTES and (chunk := await stream.read()):
            body += chunk
        return status, body
    finally:
        stream.release()  # aborted unless it was read whole
