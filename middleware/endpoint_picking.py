"""Which endpoint gets the next attempt? Least request of two random choices, among those not tried yet.

The power of two choices (Mitzenmacher 1996) is within a constant of the least loaded of all at the cost of two
look-ups, and does not herd as picking the very least loaded does.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import BackendRef
from middleware.errors import NoEndpointsError
from middleware.exchange import Exchange
from middleware.upstream.outcome import Attempt
from middleware.upstream.registry import Candidate, Pick


def decide(
    arms: tuple[BackendRef, ...],
    candidates: Callable[[BackendRef], tuple[Candidate, ...]],
    attempts: list[Attempt],
    draw: Callable[[], float],
) -> Pick:
    """The pick for the attempt after ``attempts``: an endpoint not tried yet, and once all were, any again.

    Raises NoEndpointsError when no arm has an endpoint.
    """
    for arm in arms:
        pool = candidates(arm)
        if not pool:
            continue
        if attempts:
            tried = {attempt.pick.upstream.id for attempt in attempts}
            pool = tuple(candidate for candidate in pool if candidate.upstream.id not in tried) or pool
        endpoint, upstream = least_of_two(pool, draw)
        return Pick(arm, endpoint, upstream)
    names = ", ".join(arm.name for arm in arms)
    raise NoEndpointsError(f"No ready endpoint serves {names}.")


def least_of_two(pool: tuple[Candidate, ...], draw: Callable[[], float]) -> Candidate:
    """The one with fewer requests in flight of two different candidates drawn at random."""
    count = len(pool)
    if count == 1:
        return pool[0]
    first = int(draw() * count)
    second = int(draw() * (count - 1))
    if second >= first:
        second += 1
    one, other = pool[first], pool[second]
    return other if other.upstream.in_flight < one.upstream.in_flight else one


class EndpointPickingMiddleware:
    """Puts `next_pick(attempts)` into the Exchange; the proxy calls it before each attempt."""

    def __init__(self, app: ASGIApp, *, draw: Callable[[], float] = random.random) -> None:
        self.app = app
        self.draw = draw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        arms, candidates, draw = exchange.arms, exchange.candidates, self.draw
        assert candidates is not None

        def next_pick(attempts: list[Attempt]) -> Pick:
            return decide(arms, candidates, attempts, draw)

        exchange.next_pick = next_pick
        await self.app(scope, receive, send)
