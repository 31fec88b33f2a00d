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
from discovery.snapshot import BackendRef, Rule
from middleware.errors import NoEndpointsError
from middleware.exchange import Exchange
from middleware.load_balancing import make_balancer, scheduled_pool
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


class PoolUse(Protocol):
    """Is told that a pool has traffic."""

    def touch(self, pool_id: str) -> None:
        """A request goes there."""


class PoolPicking:
    """One request's way of choosing among the endpoints of pools; of other backends ``otherwise`` chooses."""

    __slots__ = ("_exchange", "_is_told", "_otherwise", "_rule", "_scheduler", "_told", "_use", "asked")

    def __init__(
        self, exchange: Exchange, *, scheduler: Scheduler, use: PoolUse, otherwise: Choose, is_explained: bool = False
    ) -> None:
        assert exchange.rule is not None
        self._exchange = exchange
        self._rule = exchange.rule
        self._scheduler = scheduler
        self._use = use
        self._otherwise = otherwise
        self._told = exchange.answer_additions
        self._is_told = is_explained
        is_seen = exchange.trace is not None and exchange.trace.is_sampled
        self.asked = Asked(body=lambda: exchange.body, is_explained=is_explained or is_seen)

    def choose(self, arm: BackendRef, pool: tuple[Candidate, ...]) -> Candidate:
        """One of ``pool``, which is not empty."""
        asked, backend = self.asked, arm.backend
        settings = scheduled_pool(self._rule, arm)
        if backend is None or settings is None:
            self._scheduler.failed(asked)  # whichever pool's endpoint was tried before
            asked.table = None
            chosen = self._otherwise(arm, pool)
        else:
            self._use.touch(backend.id)
            asked.model = target_model(self._exchange, arm.model_rewrites)
            loads = [candidate.upstream.load for candidate in pool]
            chosen = pool[self._scheduler.pick(backend.id, settings, asked, loads)]
        if asked.is_explained:
            self._exchange.pick_scores = None if asked.table is None else PickScores(asked.table, pool)
        if self._is_told:
            told = explanation_headers(Pick(arm, *chosen), asked.table, pool)
            self._exchange.answer_additions = (*self._told, *told)
        return chosen


def known(settings: PoolSettings | None, pool: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The candidates that may be picked: none of a pool that fails closed while nothing is known of it.

    Where nobody can be reached, trying shows that as well, and says it better.
    """
    if settings is None or settings.fails_open or not pool:
        return pool
    if any(candidate.upstream.load.knowledge is not Knowledge.STALE for candidate in pool):
        return pool
    return pool if all(candidate.upstream.load.is_unreachable for candidate in pool) else ()


def _has_pool(rule: Rule, arms: tuple[BackendRef, ...]) -> bool:
    for arm in arms:  # a third of what any() and a generator take
        if scheduled_pool(rule, arm) is not None:
            return True
    return False


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
        balancer = make_balancer(exchange, self.draw)
        is_explained = self.tells_picks and (EXPLAIN_HEADER, b"1") in scope["headers"]
        assert exchange.rule is not None
        if not is_explained and not _has_pool(exchange.rule, exchange.arms):
            self._offer(exchange, balancer.choose)
            await self.app(scope, receive, send)
            return
        picking = PoolPicking(
            exchange,
            scheduler=self.scheduler,
            use=self.use,
            otherwise=balancer.choose,
            is_explained=is_explained,
        )
        self._offer(exchange, picking.choose)
        try:
            await self.app(scope, receive, send)
        finally:
            last = exchange.attempts[-1] if exchange.attempts else None
            if last is not None and last.outcome is Outcome.ANSWERED and last.status is not None and last.status < 400:
                self.scheduler.answered(picking.asked)
            else:
                self.scheduler.failed(picking.asked)
            exchange.next_pick = None  # it holds the exchange that holds it: only the garbage collector would free them

    def _offer(self, exchange: Exchange, choose: Choose) -> None:
        arms, ready = exchange.arms, exchange.candidates
        assert ready is not None
        assert exchange.rule is not None
        attempts_per_priority = exchange.rule.policy.retry.attempts_per_priority

        def candidates(arm: BackendRef) -> tuple[Candidate, ...]:
            pool = ready(arm)
            return pool if arm.backend is None else known(arm.backend.pool, pool)

        def next_pick(attempts: list[Attempt]) -> Pick:
            return decide(arms, candidates, attempts, choose, attempts_per_priority=attempts_per_priority)

        exchange.candidates = candidates  # for who asks whether there will be an attempt at all
        exchange.next_pick = next_pick
