"""Which rule takes the request? Asks the listener's table, which Gateway API's precedence sorted at compile."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.route_entry import RouteRequest
from discovery.snapshot import Rule
from middleware.errors import GatewayError, InvalidPathError, MissingModelError, ModelNotFoundError, RouteNotFoundError
from middleware.exchange import Exchange
from middleware.model_list import is_model_list_request


def route_request(exchange: Exchange) -> RouteRequest:
    """What of the request routes match on."""
    return RouteRequest(
        method=exchange.method,
        host=exchange.host_name,
        path=exchange.path,
        headers=exchange.by_name,
        query=exchange.query,
    )


def decide(exchange: Exchange) -> Rule | None:
    """The rule that takes this request; None for our own model list. Raises GatewayError when there is none."""
    rule = exchange.listener.table.match(route_request(exchange)) if exchange.listener is not None else None
    if is_model_list_request(exchange):
        assert exchange.listener is not None
        if rule is not None and rule.id not in exchange.listener.models_path_rules:
            rule = None
    elif rule is None:
        raise why_not_found(exchange)
    if rule is not None and exchange.has_encoded_slash:
        raise InvalidPathError("the path must not contain encoded slashes")
    return rule


def why_not_found(exchange: Exchange) -> GatewayError:
    """The error for a request that no rule takes."""
    if exchange.model is not None:
        return ModelNotFoundError(f"The model `{exchange.model}` does not exist or is not served at this address.")
    if exchange.method == "POST":
        return MissingModelError("The request names no model, and no route takes requests without one.")
    return RouteNotFoundError("No route takes this request.")


class RouteMatchingMiddleware:
    """Puts the rule into the Exchange. The gateway's own model list has none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    # Not a coroutine function: a stage that has nothing to do afterwards hands the next one's awaitable on, so that it
    # costs a request no frame.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope["pointsman.exchange"]
        exchange.rule = decide(exchange)
        return self.app(scope, receive, send)
