"""Which endpoint gets the next attempt? One not tried yet, of the first arm that has any; the load balancer chooses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import BackendRef
from middleware.errors import NoEndpointsError
from middleware.exchange import Exchange
from middleware.load_balancing import make_balancer
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Candidate, Pick

Choose = Callable[[BackendRef, tuple[Candidate, ...]], Candidate]


def decide(
    arms: tuple[BackendRef, ...],
    candidates: Callable[[BackendRef], tuple[Candidate, ...]],
    attempts: list[Attempt],
    choose: Choose,
    *,
    attempts_per_priority: int | None = None,
) -> Pick:
    """The pick for the attempt after ``attempts``: an endpoint not tried yet, and once all were, any again.

    An arm without candidates is passed over for the next, and so is a priority that had ``attempts_per_priority``,
    until all had. Raises NoEndpointsError when no arm has an endpoint.
    """
    if not attempts:
        for arm in arms:
            pool = candidates(arm)
            if pool:
                return Pick(arm, *choose(arm, pool))
    else:
        for allowed in _by_priority(arms, attempts, attempts_per_priority):
            pick = _next(allowed, candidates, attempts, choose)
            if pick is not None:
                return pick
    names = ", ".join(arm.name for arm in arms)
    raise NoEndpointsError(f"No ready endpoint serves {names}.")


def _by_priority(
    arms: tuple[BackendRef, ...], attempts: list[Attempt], attempts_per_priority: int | None
) -> list[tuple[BackendRef, ...]]:
    """The arms whose priority has attempts left, when there are any, and then all of them."""
    if attempts_per_priority is None:
        return [arms]
    made = Counter(attempt.pick.backend_ref.priority for attempt in attempts if attempt.outcome is not Outcome.STALE)
    fresh = tuple(arm for arm in arms if made[arm.priority] < attempts_per_priority)
    return [fresh, arms]


def _next(
    arms: tuple[BackendRef, ...],
    candidates: Callable[[BackendRef], tuple[Candidate, ...]],
    attempts: list[Attempt],
    choose: Choose,
) -> Pick | None:
    tried = {attempt.pick.upstream.id for attempt in attempts}
    again: tuple[BackendRef, tuple[Candidate, ...]] | None = None
    for arm in arms:
        pool = candidates(arm)
        untried = tuple(candidate for candidate in pool if candidate.upstream.id not in tried)
        if untried:
            return Pick(arm, *choose(arm, untried))
        if pool and again is None:
            again = (arm, pool)
    return Pick(again[0], *choose(*again)) if again is not None else None


class EndpointPickingMiddleware:
    """Puts `next_pick(attempts)` into the Exchange; the proxy calls it before each attempt."""

    def __init__(self, app: ASGIApp, *, draw: Callable[[], float] = random.random) -> None:
        self.app = app
        self.draw = draw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        arms, candidates = exchange.arms, exchange.candidates
        assert candidates is not None
        assert exchange.rule is not None
        choose = make_balancer(exchange, self.draw).choose
        attempts_per_priority = exchange.rule.policy.retry.attempts_per_priority

        def next_pick(attempts: list[Attempt]) -> Pick:
            return decide(arms, candidates, attempts, choose, attempts_per_priority=attempts_per_priority)

        exchange.next_pick = next_pick
        await self.app(scope, receive, send)
