"""Which backendRefs get the request, in which order? Weighted draws; weights hold over many requests (Gateway API
BackendRef.weight).

The first arm is the one the request belongs to. The others stand behind it for when that one has no endpoint to try:
those of its priority in an order drawn by weight, too, then those of the next priority.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import BackendRef, Rule
from middleware.errors import RefusedByConfigurationError
from middleware.exchange import Exchange
from middleware.sessions import Session, read_session


def decide(rule: Rule, draw: float, session: Session | None = None) -> tuple[BackendRef, ...]:
    """The arms for a number drawn uniformly from [0, 1), a session's own first. Weight 0 is never drawn.

    Compile refuses a rule without weight, so ``total_weight`` is at least 1. Raises RefusedByConfigurationError when
    the share that was drawn belongs to an invalid backendRef.
    """
    refs = rule.backend_refs
    if len(refs) > 1:
        refs = tuple(ref for level in rule.levels or (refs,) for ref in drawn_order(level, draw))
    if session is not None:
        refs = session.preferred(refs)
    if refs[0].refusal is not None:
        raise RefusedByConfigurationError(refs[0].refusal)
    if len(refs) == 1:
        return refs
    return tuple(ref for ref in refs if ref.refusal is None)


def drawn_order(level: Sequence[BackendRef], draw: float) -> Iterator[BackendRef]:
    """The backendRefs of one priority in a random order by weight, without those of weight 0.

    One number is enough: where it falls within the share that it hits is uniform again, and draws the next.
    """
    left = [ref for ref in level if ref.weight]
    while len(left) > 1:
        point = draw * sum(ref.weight for ref in left)
        number = 0
        while number < len(left) - 1 and point >= left[number].weight:
            point -= left[number].weight
            number += 1
        chosen = left.pop(number)
        yield chosen
        draw = min(point / chosen.weight, 1 - 2**-53)  # the last bit of a float
    yield from left


class TrafficSplittingMiddleware:
    """Puts the arms into the Exchange, and the number that says which model each of them is asked for."""

    def __init__(self, app: ASGIApp, *, draw: Callable[[], float] = random.random) -> None:
        self.app = app
        self.draw = draw

    # Not a coroutine function, see RouteMatchingMiddleware.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope["pointsman.exchange"]
        rule = exchange.rule
        assert rule is not None
        if rule.session is None:
            exchange.arms = decide(rule, self.draw())
        else:
            exchange.session = session = read_session(rule, exchange, scope["headers"])
            assert session is not None
            own = session.draw()
            exchange.arms = decide(rule, self.draw() if own is None else own, session)
        exchange.model_draw = self.draw()
        return self.app(scope, receive, send)
