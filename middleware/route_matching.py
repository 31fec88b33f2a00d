"""Which rule takes the request? Asks the listener's table, which Gateway API's precedence sorted at compile."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.routing_table import RouteRequest
from discovery.snapshot import Rule
from middleware.errors import GatewayError, InvalidPathError, MissingModelError, ModelNotFoundError, RouteNotFoundError
from middleware.exchange import Exchange
from middleware.model_list import is_model_list_request


def decide(exchange: Exchange) -> Rule | None:
    """The rule that takes this request, or None when none does."""
    if exchange.listener is None:
        return None
    return exchange.listener.table.match(
        RouteRequest(
            method=exchange.method,
            host=exchange.host_name,
            path=exchange.path,
            headers=exchange.by_name,
            query=exchange.query,
        )
    )


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        rule = decide(exchange)
        if is_model_list_request(exchange):
            assert exchange.listener is not None
            if rule is not None and rule.id not in exchange.listener.models_path_rules:
                rule = None
        elif rule is None:
            raise why_not_found(exchange)
        if rule is not None and exchange.has_encoded_slash:
            raise InvalidPathError("the path must not contain encoded slashes")
        exchange.rule = rule
        await self.app(scope, receive, send)
