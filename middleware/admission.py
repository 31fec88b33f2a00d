"""May the request go on, or is its answer ours? Redirects, refused rules and the model list end here,
and so do requests that a fault is injected into, that a rate limit refuses, or that a full pool sheds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.filters import Redirect
from discovery.rule_policy import FaultInjection
from middleware import faults
from middleware.errors import FaultInjectedError, RefusedByConfigurationError
from middleware.exchange import Exchange
from middleware.headers import RawHeaders, mutate
from middleware.model_list import model_list_body
from middleware.rate_limits import RateLimiter
from middleware.shedding import Shedder
from middleware.targets import rewrite_path

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectAnswer:
    """An answer that the gateway gives itself."""

    status: int
    headers: RawHeaders
    body: bytes = b""


def location(redirect: Redirect, exchange: Exchange, *, local_port: int | None) -> bytes:
    """The Location of a redirect (Gateway API HTTPRequestRedirectFilter).

    The port is the filter's, else the well-known one of the filter's scheme, else the listener's; 80 and 443 are left
    out where the scheme implies them.
    """
    scheme = redirect.scheme or exchange.scheme
    host = redirect.hostname or exchange.host_name
    port = redirect.port
    if port is None:
        if redirect.scheme is not None:
            port = _DEFAULT_PORTS[redirect.scheme]
        else:
            assert exchange.listener is not None
            # Without a Gateway the port that the client named is the only one known from its side.
            port = exchange.listener.port or _port_of(exchange.host, scheme) or local_port
    path = exchange.raw_path if redirect.path is None else rewrite_path(exchange.raw_path, redirect.path)
    query = b"?" + exchange.query if exchange.query else b""
    shown_port = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{host}{shown_port}".encode("latin-1") + path + query


def _port_of(host: bytes, scheme: str) -> int | None:
    if not host:
        return None
    _, separator, port = host.rpartition(b":")
    return int(port) if separator and port.isdigit() else _DEFAULT_PORTS[scheme]


def decide(exchange: Exchange, *, local_port: int | None = None) -> DirectAnswer | None:
    """The answer that is ours, or None when the request goes on. Raises GatewayError for a refused rule."""
    rule = exchange.rule
    if rule is None:
        body = model_list_body(exchange)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        return DirectAnswer(status=200, headers=headers, body=body)
    if rule.refusal is not None:
        raise RefusedByConfigurationError(rule.refusal)
    if rule.redirect is not None:
        headers = [
            (b"location", location(rule.redirect, exchange, local_port=local_port)),
            (b"content-length", b"0"),
        ]
        if rule.filters.response_headers is not None:
            headers = mutate(headers, rule.filters.response_headers)
        return DirectAnswer(status=rule.redirect.status_code, headers=headers)
    return None


class AdmissionMiddleware:
    """Gives the answers that need no upstream, and holds back what a policy does not let through.

    Faults come before limits, as in Envoy, and what a pool sheds comes last. Nothing is held here but the request
    itself: a place among the rule's requests is taken behind this stage.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: RateLimiter,
        shedder: Shedder,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.app = app
        self.limiter = limiter
        self.shedder = shedder
        self.draw = draw
        self.sleep = sleep

    # Not a coroutine function, see RouteMatchingMiddleware.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope["pointsman.exchange"]
        server = scope.get("server")
        answer = decide(exchange, local_port=server[1] if server else None)
        if answer is not None:
            return _give(answer, send)
        assert exchange.rule is not None
        if exchange.rule.policy.faults is not None:
            return self._disturb(exchange.rule.policy.faults, scope, receive, send)
        return self._admit(scope, receive, send)

    def _admit(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope["pointsman.exchange"]
        assert exchange.rule is not None
        if exchange.rule.policy.rate_limits:
            self.limiter.admit(exchange.rule, exchange)
        self.shedder.admit(exchange, scope["headers"])
        return self.app(scope, receive, send)

    async def _disturb(self, settings: FaultInjection, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        fault = faults.decide(settings, self.draw)
        if fault.delay_seconds:
            exchange.flag = "DI"
            await self.sleep(fault.delay_seconds)  # the server cancels it when the client leaves
        if fault.abort_status is not None:
            raise FaultInjectedError(fault.abort_status)
        await self._admit(scope, receive, send)


async def _give(answer: DirectAnswer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
