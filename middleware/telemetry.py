"""What is remembered of a request, and who is told? The outermost stage: it makes the Exchange and tells the observers.

The only stage that wraps `send`, since a wrapper costs every chunk of every stream. Logic files hold no counters and no
spans: they leave facts in the Exchange, and observers in app/ make metrics and log lines of them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from middleware.errors import GatewayError
from middleware.exchange import Exchange
from middleware.headers import header_map, strip_client_headers, usable_request_id

EXCHANGE_KEY = "pointsman.exchange"


class ExchangeObserver(Protocol):
    """Is told of every request. Must not raise and must not block."""

    def started(self, exchange: Exchange) -> None:
        """The head of a request was read."""

    def finished(self, exchange: Exchange) -> None:
        """The request is over, in whatever way; the Exchange does not change any more."""


def new_exchange(scope: Scope, now: float) -> Exchange:
    """The Exchange of a request of which only the head is known."""
    headers = strip_client_headers(scope["headers"])
    by_name = header_map(headers)
    raw_path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    client = scope.get("client")
    return Exchange(
        request_id=usable_request_id(by_name.get(b"x-request-id")) or f"{random.getrandbits(128):032x}",
        method=scope["method"],
        target=scope.get("pointsman.target") or (raw_path + b"?" + query if query else raw_path),
        raw_path=raw_path,
        query=query,
        headers=headers,
        by_name=by_name,
        host=by_name.get(b"host", b""),
        peer=client[0] if client else "unknown",
        scheme=scope["scheme"],
        started_at=now,
        started_unix=time.time(),
    )


def report_refusal(observers: Sequence[ExchangeObserver], error: GatewayError, peer: str) -> str:
    """Tell the observers of a request that the server refused before its head could be read. Returns the request id."""
    now = time.perf_counter()
    exchange = Exchange(
        request_id=f"{random.getrandbits(128):032x}",
        method="",
        target=b"",
        raw_path=b"",
        query=b"",
        headers=[],
        by_name={},
        host=b"",
        peer=peer,
        scheme="http",
        started_at=now,
        started_unix=time.time(),
    )
    exchange.fail(error)
    for observer in observers:
        observer.started(exchange)
    exchange.status, exchange.ended_at = error.status, time.perf_counter()
    for observer in observers:
        observer.finished(exchange)
    return exchange.request_id


class TelemetryMiddleware:
    """Makes the Exchange, puts the request id on the answer, and tells the observers of start and end."""

    def __init__(
        self, app: ASGIApp, *, observers: Sequence[ExchangeObserver], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.app = app
        self.observers = observers
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = self.clock
        exchange = new_exchange(scope, clock())
        scope[EXCHANGE_KEY] = exchange
        for observer in self.observers:
            observer.started(exchange)
        try:
            await self.app(scope, receive, noting_send(exchange, send, clock))
        finally:
            exchange.ended_at = clock()
            for observer in self.observers:
                observer.finished(exchange)


def noting_send(exchange: Exchange, send: Send, clock: Callable[[], float]) -> Callable[[Message], Awaitable[None]]:
    """``send``, and what goes out is noted in the Exchange."""

    # Not a coroutine function: it hands the server's own awaitable on, so that a chunk costs no second frame.
    def noting(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            body = message["body"]
            if body:
                if not exchange.bytes_sent:
                    exchange.first_byte_at = clock()
                exchange.bytes_sent += len(body)
                exchange.chunks_sent += 1
            return send(message)
        headers = message["headers"]
        headers.append((b"x-request-id", exchange.request_id.encode("ascii")))
        if exchange.answer_additions:
            headers.extend(exchange.answer_additions)
        return start(message)

    async def start(message: Message) -> None:
        await send(message)
        exchange.status = message["status"]  # only now: a head that the server refuses was not sent

    return noting
