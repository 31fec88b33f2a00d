"""Which endpoint gets the next attempt? One not tried yet, of the first arm that has any.

Of an InferencePool's endpoints the scheduler's profile chooses, by what is known of them and of the prompt; of other
backends' endpoints the rule's load balancer, and of a pool's too where a policy asks for one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.backend import PoolSettings
from discovery.snapshot import BackendRef
from middleware.errors import NoEndpointsError
from middleware.exchange import Exchange
from middleware.load_balancing import Balancer, make_balancer, scheduled_pool
from middleware.model_rewriting import target_model
from middleware.pick_explanation import EXPLAIN_HEADER, PickScores, explanation_headers
from middleware.scheduling.load import Knowledge
from middleware.scheduling.scheduler import Asked, Scheduler
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
                return _picked(arm, choose(arm, pool))
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
            return _picked(arm, choose(arm, untried))
        if pool and again is None:
            again = (arm, pool)
    return _picked(again[0], choose(*again)) if again is not None else None


def _picked(arm: BackendRef, chosen: Candidate) -> Pick:
    return Pick(arm, chosen.endpoint, chosen.upstream)


class PoolUse(Protocol):
    """Is told that a pool has traffic."""

    def touch(self, pool_id: str) -> None:
        """A request goes there."""


def known(settings: PoolSettings | None, pool: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The candidates that may be picked: none of a pool that fails closed while nothing is known of it.

    Where nobody can be reached, trying shows that as well, and says it better.
    """
    if settings is None or settings.fails_open or not pool:
        return pool
    if any(candidate.upstream.load.knowledge is not Knowledge.STALE for candidate in pool):
        return pool
    return pool if all(candidate.upstream.load.is_unreachable for candidate in pool) else ()


class EndpointChoice:
    """One request's way to its endpoints: what `candidates` and `next_pick` of its Exchange stand for from here on.

    Of a pool's endpoints the scheduler chooses; of other backends', or where a policy says so, the rule's balancer.
    """

    __slots__ = ("_arms", "_balancer", "_exchange", "_is_told", "_ready", "_rule", "_stage", "_told", "asked")

    def __init__(self, exchange: Exchange, stage: EndpointPickingMiddleware, *, is_told: bool) -> None:
        assert exchange.rule is not None
        assert exchange.candidates is not None
        self._exchange = exchange
        self._stage = stage
        self._rule = exchange.rule
        self._arms = exchange.arms
        self._ready = exchange.candidates
        self._balancer: Balancer | None = None  # made when it is first needed
        self._is_told = is_told  # whether the client asked for the decision
        self._told = exchange.answer_additions
        self.asked: Asked | None = None  # the same for pools

    def candidates(self, arm: BackendRef) -> tuple[Candidate, ...]:
        """The endpoints of an arm that may be picked now."""
        pool = self._ready(arm)
        backend = arm.backend
        if backend is None or backend.pool is None or backend.pool.fails_open:
            return pool
        return known(backend.pool, pool)

    def next_pick(self, attempts: list[Attempt]) -> Pick:
        """Where the attempt after ``attempts`` goes. Raises NoEndpointsError."""
        allowed = self._rule.policy.retry.attempts_per_priority
        return decide(self._arms, self.candidates, attempts, self.choose, attempts_per_priority=allowed)

    def choose(self, arm: BackendRef, pool: tuple[Candidate, ...]) -> Candidate:
        """One of ``pool``, which is not empty."""
        exchange, stage, asked = self._exchange, self._stage, self.asked
        settings = scheduled_pool(self._rule, arm)
        if settings is None:
            if asked is not None:
                stage.scheduler.failed(asked)  # whichever pool's endpoint was tried before
                asked.table = None
            if self._balancer is None:
                self._balancer = make_balancer(exchange, stage.draw)
            chosen = self._balancer.choose(arm, pool)
        else:
            assert arm.backend is not None
            if asked is None:
                is_seen = exchange.trace is not None and exchange.trace.is_sampled
                asked = self.asked = Asked(exchange, is_explained=self._is_told or is_seen)
            stage.use.touch(arm.backend.id)
            asked.model = target_model(exchange, arm.model_rewrites)
            loads = [candidate.upstream.load for candidate in pool]
            chosen = pool[stage.scheduler.pick(arm.backend.id, settings, asked, loads)]
        if asked is not None and asked.is_explained:
            exchange.pick_scores = None if asked.table is None else PickScores(asked.table, pool)
        if self._is_told:
            told = explanation_headers(_picked(arm, chosen), asked.table if asked is not None else None, pool)
            exchange.answer_additions = (*self._told, *told)
        return chosen


class EndpointPickingMiddleware:
    """Puts `next_pick(attempts)` into the Exchange; the proxy calls it before each attempt."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        scheduler: Scheduler,
        use: PoolUse,
        tells_picks: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.app = app
        self.tells_picks = tells_picks  # whether clients may ask with a header how their endpoint was picked
        self.scheduler = scheduler
        self.use = use
        self.draw = draw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        is_told = self.tells_picks and (EXPLAIN_HEADER, b"1") in scope["headers"]
        choice = EndpointChoice(exchange, self, is_told=is_told)
        exchange.candidates = choice.candidates  # for who asks whether there will be an attempt at all
        exchange.next_pick = choice.next_pick
        try:
            await self.app(scope, receive, send)
        finally:
            if choice.asked is not None:
                self._tell_end(choice.asked, exchange)
            # They hold the exchange that holds them: only the garbage collector would free them.
            exchange.next_pick = exchange.candidates = None

    def _tell_end(self, asked: Asked, exchange: Exchange) -> None:
        last = exchange.attempts[-1] if exchange.attempts else None
        if last is not None and last.outcome is Outcome.ANSWERED and last.status is not None and last.status < 400:
            self.scheduler.answered(asked)
        else:
            self.scheduler.failed(asked)
