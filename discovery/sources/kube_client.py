"""How is the API server asked? Requests and streams over aiohttp, and one error type for all that can go wrong.

kubernetes-asyncio's own calls set no time limits, never look at a watch's status and lose Retry-After, so only its
kubeconfig loader is used (kube_access.py). aiohttp is imported when the first client is made.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from discovery.sources.kube_access import Access, AccessError, Server

if TYPE_CHECKING:
    from aiohttp import ClientSession

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 60.0  # a whole list page, or a write
HEAD_SECONDS = 15.0  # the server sends a watch's head at once, before any event
MERGE_PATCH = "application/merge-patch+json"
USER_AGENT = "pointsman"
_MAX_ERROR_BYTES = 64 * 1024


class _StatusDetails(msgspec.Struct):
    retryAfterSeconds: int | None = None  # as the API has it


class _Status(msgspec.Struct):
    kind: str = ""
    reason: str | None = None
    message: str | None = None
    code: int | None = None
    details: _StatusDetails | None = None


class KubeError(Exception):
    """The API server refused, failed or was not there. ``status`` 0 means that there was no answer."""

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None, is_api: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after = retry_after  # seconds
        self.is_api = is_api  # a Status object of the API, not a page of whatever is in between


class KubeClient:
    """Requests to one API server. One session, with as many connections as there are watches and requests."""

    def __init__(
        self,
        access: Access,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        self.access = access
        self._connect_seconds = connect_seconds
        self._request_seconds = request_seconds
        self._head_seconds = head_seconds
        self._session: ClientSession | None = None
        self._server: Server | None = None
        self._opening = asyncio.Lock()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> bytes:
        """The body of a 2xx answer. Raises KubeError."""
        async with self._answer(
            method, path, query or {}, body, content_type, limit_seconds=self._request_seconds
        ) as answer:
            try:
                async with asyncio.timeout(self._request_seconds):
                    return bytes(await answer.read())
            except (OSError, TimeoutError, self._client_error()) as error:
                raise _no_answer(error) from None

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The body of a 200 answer as it comes. Raises KubeError, also from the iterator when it is cut."""
        async with self._answer("GET", path, query, None, "", limit_seconds=self._head_seconds) as answer:
            if "json" not in answer.headers.get("Content-Type", ""):
                raise KubeError("the answer is not JSON", status=answer.status)
            yield self._chunks(answer)

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _chunks(self, answer: Any) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except (OSError, TimeoutError, self._client_error()) as error:
            raise _no_answer(error) from None

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        content_type: str,
        *,
        limit_seconds: float,
    ) -> AsyncIterator[Any]:
        answer = await self._send(method, path, query, body, content_type, limit_seconds, is_refused=False)
        if answer.status == 401:  # a token that was rotated away: read it anew, and try once more
            answer.close()
            answer = await self._send(method, path, query, body, content_type, limit_seconds, is_refused=True)
        try:
            if not 200 <= answer.status <= 299:
                raise await self._refusal(answer)
            yield answer
        finally:
            answer.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        content_type: str,
        limit_seconds: float,
        *,
        is_refused: bool,
    ) -> Any:
        from aiohttp import ClientConnectorError, ClientTimeout

        try:
            session, server = await self._open()
            headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
            authorization = await self.access.authorization(is_refused=is_refused)
            if authorization:
                headers["Authorization"] = authorization
            if body is not None:
                headers["Content-Type"] = content_type
            arguments: dict[str, Any] = {}
            if server.tls_server_name:
                arguments["server_hostname"] = server.tls_server_name
            if server.proxy:
                arguments["proxy"] = server.proxy
            url = server.url.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
            async with asyncio.timeout(limit_seconds):
                return await session.request(
                    method,
                    url,
                    headers=headers,
                    data=None if body is None else msgspec.json.encode(body),
                    allow_redirects=False,
                    timeout=ClientTimeout(total=None, sock_connect=self._connect_seconds),
                    **arguments,
                )
        except (OSError, TimeoutError, AccessError, self._client_error()) as error:
            if isinstance(error, ClientConnectorError):
                await self._look_at_certificates()
            raise _no_answer(error) from None

    async def _open(self) -> tuple[ClientSession, Server]:
        async with self._opening:
            if self._session is None or self._server is None:
                from aiohttp import ClientSession, TCPConnector

                server = await self.access.server()
                # Without a limit: every watch holds a connection for minutes, and none may wait for another's end.
                connector = TCPConnector(
                    limit=0, ssl=server.tls if server.tls is not None else True, socket_factory=_make_socket
                )
                self._session = ClientSession(
                    connector=connector, trust_env=False, skip_auto_headers=("User-Agent", "Content-Type")
                )
                self._server = server
            return self._session, self._server

    async def _look_at_certificates(self) -> None:
        """After a failed connection: when the CA's file has changed, the next request starts with the new one."""
        try:
            server = await self.access.server()
        except (AccessError, OSError):
            return
        async with self._opening:
            if self._server is not None and server.fingerprint != self._server.fingerprint:
                logger.info("the certificates of the API server have changed, connecting anew")
                await self.close()

    def _client_error(self) -> type[Exception]:
        from aiohttp import ClientError

        return ClientError

    async def _refusal(self, answer: Any) -> KubeError:
        try:
            async with asyncio.timeout(self._head_seconds):
                text = bytes(await answer.content.read(_MAX_ERROR_BYTES))
        except (OSError, TimeoutError, self._client_error()):
            text = b""
        retry_after = _seconds(answer.headers.get("Retry-After"))
        found = _Status()
        if "json" in answer.headers.get("Content-Type", ""):
            try:
                found = msgspec.json.decode(text, type=_Status)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass
        if retry_after is None and found.details is not None and found.details.retryAfterSeconds is not None:
            retry_after = float(found.details.retryAfterSeconds)
        first_line = text.decode("utf-8", "replace").strip().partition("\n")[0][:200]
        return KubeError(
            found.message or first_line or f"status {answer.status}",
            status=answer.status,
            reason=found.reason or "",
            retry_after=retry_after,
            is_api=found.kind == "Status",
        )


def read_error_event(data: bytes | msgspec.Raw) -> KubeError:
    """The failure that an ERROR event of a watch tells; any of its fields may be missing."""
    try:
        found = msgspec.json.decode(data, type=_Status)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = _Status()
    retry_after = found.details.retryAfterSeconds if found.details is not None else None
    return KubeError(
        found.message or "the watch was ended with an error",
        status=found.code or 500,
        reason=found.reason or "",
        retry_after=None if retry_after is None else float(retry_after),
        is_api=True,
    )


def _no_answer(error: Exception) -> KubeError:
    text = str(error) or type(error).__name__
    return KubeError(f"no answer from the API server: {text[:200]}")


def _seconds(text: str | None) -> float | None:
    return min(float(text), 120.0) if text is not None and text.isdigit() else None


def _make_socket(address: Any) -> socket.socket:
    """Dead peers are noticed within 30 s: a watch may be silent for minutes."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family=family, type=kind, proto=protocol)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return sock
