"""Which model does the request name? Reads the body, once and bounded, and finds `model` in it.

This is the body-based router's job: what other gateways need an external processor for. The listener is found here too,
by the host alone, because its limit must be known before the body is read.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.snapshot import DEFAULT_BODY_LIMIT, Snapshot, SnapshotStore
from middleware.client_departure import ClientLeftError, watch_for_departure
from middleware.errors import (
    InvalidBodyError,
    InvalidPathError,
    OverloadedError,
    RequestTimeoutError,
    RequestTooLargeError,
)
from middleware.exchange import Exchange
from middleware.headers import AI_GATEWAY_MODEL_HEADER, BASE_MODEL_HEADER, MODEL_HEADER
from middleware.inference_request import forwarded_content_type, read_body
from middleware.targets import path_for_matching

BODY_SILENCE_LIMIT_SECONDS = 30.0
_MODEL_PATH = b"/v1/models/"
_ENCODED_SLASH = re.compile(rb"%2[fF]")


class BodyMemory:
    """Counts the bytes of all request bodies in memory together, up to a limit. Single-threaded, hence no lock."""

    def __init__(self, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


class BodyLease:
    """One request's share of the body memory."""

    __slots__ = ("_memory", "size")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0

    def grow(self, size: int) -> None:
        """Raises OverloadedError when the limit is reached; nothing is taken then."""
        memory = self._memory
        if memory.used_bytes + size > memory.limit_bytes:
            raise OverloadedError("the gateway holds too many request bodies; try again")
        memory.used_bytes += size
        self.size += size

    def release(self) -> None:
        """What was taken is free again. Safe to call twice."""
        self._memory.used_bytes -= self.size
        self.size = 0


def host_name(host: bytes) -> str:
    """The Host field as routing compares it: lower case, without port."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].removesuffix(".")


class ModelExtractionMiddleware:
    """Puts snapshot, listener, host, path, body and model into the Exchange."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: SnapshotStore,
        memory: BodyMemory,
        by_port: bool = False,
        body_silence_limit_seconds: float = BODY_SILENCE_LIMIT_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app = app
        self.store = store
        self.memory = memory
        self.by_port = by_port
        self.body_silence_limit_seconds = body_silence_limit_seconds
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        is_our_server = "pointsman.server" in scope
        locate(exchange, self.store.current, scope["server"][1] if self.by_port else None)
        exchange.body_lease = BodyLease(self.memory)
        try:
            exchange.body = await self._read_body(exchange, receive if is_our_server else self._in_time(receive))
            exchange.read_at = self.clock()
            decide(exchange)
            if is_our_server:
                await self.app(scope, receive, send)
            else:  # this server does not cancel us when the client leaves
                async with watch_for_departure(receive, exchange):
                    await self.app(scope, receive, send)
        except ClientLeftError:
            exchange.client_left = True
            raise asyncio.CancelledError from None
        finally:
            exchange.let_go_of_body()

    async def _read_body(self, exchange: Exchange, receive: Receive) -> bytes:
        if b"content-length" not in exchange.by_name and b"transfer-encoding" not in exchange.by_name:
            return b""
        limit = exchange.listener.body_limit if exchange.listener is not None else DEFAULT_BODY_LIMIT
        declared = _declared_length(exchange)
        if declared is not None and declared > limit:
            raise _too_large(limit)
        lease = exchange.body_lease
        assert lease is not None
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if lease.size + len(chunk) > limit:
                raise _too_large(limit)
            lease.grow(len(chunk))
            exchange.body_size = lease.size
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _in_time(self, receive: Receive) -> Receive:
        # Our own server limits the silence itself, at no cost for a body that comes with its head.
        async def receive_in_time() -> Message:
            try:
                async with asyncio.timeout(self.body_silence_limit_seconds):
                    return await receive()
            except TimeoutError:
                raise RequestTimeoutError("no byte of the request body came for too long") from None

        return receive_in_time


def locate(exchange: Exchange, snapshot: Snapshot, port: int | None) -> None:
    """Find the listener, by the host alone (and the port, where listeners have their own). Raises InvalidPathError."""
    exchange.snapshot = snapshot
    _read_path(exchange)
    exchange.host_name = host_name(exchange.host)
    exchange.listener = snapshot.routing.select_listener(exchange.host_name, port)


def decide(exchange: Exchange) -> None:
    """Find the model in the body, and say it in the headers that routes match on. Raises InvalidBodyError and
    InvalidModelError."""
    if not exchange.body:
        return
    content_type = exchange.by_name.get(b"content-type")
    model, is_json, exchange.prompt = read_body(exchange.body, content_type)
    exchange.model, exchange.is_json_object = model, is_json
    if is_json:
        exchange.forced_content_type = forwarded_content_type(content_type)
    if model is not None:
        name = model.encode()
        exchange.by_name[MODEL_HEADER] = exchange.by_name[AI_GATEWAY_MODEL_HEADER] = name
        base_models = exchange.snapshot.routing.base_models if exchange.snapshot is not None else None
        if base_models:
            base_model = base_models.get(model)
            if base_model is not None:
                exchange.by_name[BASE_MODEL_HEADER] = base_model.encode()


def _read_path(exchange: Exchange) -> None:
    if b"#" in exchange.target:
        raise InvalidPathError("a request target has no fragment")
    raw_path = exchange.raw_path
    if raw_path.startswith(_MODEL_PATH) and b"%2" in raw_path:
        # SDKs escape the slash of names like org/model. The list is our own, so nobody else can read it differently.
        exchange.path = path_for_matching(_ENCODED_SLASH.sub(b"/", raw_path))
        exchange.has_encoded_slash = _ENCODED_SLASH.search(raw_path) is not None
    else:
        exchange.path = path_for_matching(raw_path)


def _declared_length(exchange: Exchange) -> int | None:
    value = exchange.by_name.get(b"content-length")
    if value is None:
        return None
    if not value.isdigit():
        raise InvalidBodyError("content-length is not a number")
    return int(value)


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the request body is larger than {limit} bytes")
