"""Which backendRef gets the request? A weighted draw; weights hold over many requests (Gateway API
BackendRef.weight)."""

from __future__ import annotations

import random
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import BackendRef, Rule
from middleware.errors import RefusedByConfigurationError
from middleware.exchange import Exchange


def decide(rule: Rule, draw: float) -> tuple[BackendRef, ...]:
    """The arms for a number drawn uniformly from [0, 1). Weight 0 is never drawn.

    Compile refuses a rule without weight, so ``total_weight`` is at least 1. Raises RefusedByConfigurationError when
    the share that was drawn belongs to an invalid backendRef.
    """
    refs = rule.backend_refs
    chosen = refs[0]
    if len(refs) > 1:
        point = draw * rule.total_weight
        for ref in refs:
            point -= ref.weight
            if point < 0:
                chosen = ref
                break
        else:  # the last bit of a float: the last one with a weight
            chosen = next(ref for ref in reversed(refs) if ref.weight)
    if chosen.refusal is not None:
        raise RefusedByConfigurationError(chosen.refusal)
    return (chosen,)


class TrafficSplittingMiddleware:
    """Puts the arms into the Exchange."""

    def __init__(self, app: ASGIApp, *, draw: Callable[[], float] = random.random) -> None:
        self.app = app
        self.draw = draw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        assert exchange.rule is not None
        exchange.arms = decide(exchange.rule, self.draw())
        await self.app(scope, receive, send)
