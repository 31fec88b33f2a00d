"""Which endpoints of an arm may be tried now, and how much of the rule's traffic is in flight?

The request counts towards its rule for its whole passage, streams included. The candidates are those of the request's
own snapshot, with our experience of each.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import BackendRef
from middleware.exchange import Exchange
from middleware.upstream.registry import Candidate, UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry


class CircuitBreakingMiddleware:
    """Puts the rule's traffic and `candidates(arm)` into the Exchange."""

    def __init__(self, app: ASGIApp, *, registry: UpstreamRegistry, rules: RuleTrafficRegistry) -> None:
        self.app = app
        self.registry = registry
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        assert exchange.snapshot is not None
        assert exchange.rule is not None
        membership = exchange.snapshot.membership
        registry = self.registry

        def candidates(arm: BackendRef) -> tuple[Candidate, ...]:
            if arm.backend is None:
                return ()
            endpoints = membership.get(arm.backend.id, ())
            return registry.candidates(arm.backend.id, endpoints)

        exchange.candidates = candidates
        exchange.rule_traffic = traffic = self.rules.of(exchange.rule.id)
        traffic.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            traffic.in_flight -= 1
