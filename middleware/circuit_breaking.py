"""Which endpoints of an arm may be tried now, and how much of the rule's traffic is in flight?

The request counts towards its rule for its whole passage, streams included. The candidates are the ready endpoints of
the request's own snapshot without those whose breaker is open or that fail their active checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.snapshot import NO_LIMITS, BackendRef, PassiveHealth, RulePolicy
from middleware.errors import UpstreamTimeoutError
from middleware.exchange import Exchange
from middleware.upstream.registry import Candidate, UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTraffic, RuleTrafficRegistry

# Envoy's overprovisioning factor: a priority of which five in seven endpoints are left can carry everything.
_OVERPROVISIONING_PERCENT = 140

_NONE: frozenset[str] = frozenset()

Levels = Sequence[Sequence[Candidate]]  # the endpoints of a rule by priority


def decide(
    pool: tuple[Candidate, ...], levels: Levels, settings: PassiveHealth, failing: Set[str] = frozenset()
) -> tuple[Candidate, ...]:
    """Those of ``pool`` that may be tried now. ``levels`` are the endpoints of the whole rule.

    Whoever is ``failing`` active checks, by its id, is left out, and of those whose breaker is open at most
    ``max_ejection_percent`` of all, those that were ejected first. When less than ``panic_threshold_percent`` of all
    would remain, nobody is: then it is rather the checks that are wrong (Envoy's panic). As in Envoy there is no panic
    while what is left of the priorities together can carry the traffic.
    """
    breakers = {c.upstream.id: c.upstream.breaker(settings) for level in levels for c in level}
    total = len(breakers)
    ejected = [upstream_id for upstream_id, breaker in breakers.items() if not breaker.admits()]
    allowed = total * settings.max_ejection_percent // 100
    if len(ejected) > allowed:
        ejected = sorted(ejected, key=lambda upstream_id: breakers[upstream_id].opened_at)[:allowed]
    left_out = {*ejected, *(failing & breakers.keys())}
    is_short = (total - len(left_out)) * 100 < settings.panic_threshold_percent * total
    if is_short and _available_percent(levels, left_out) < 100:
        return pool
    return tuple(candidate for candidate in pool if candidate.upstream.id not in left_out)


def failing_for(policy: RulePolicy, registry: UpstreamRegistry) -> Set[str]:
    """The ids of the endpoints that fail the rule's active checks, where it has any."""
    if policy.active_health is None or not registry.failing:
        return _NONE
    return registry.failing.get(policy.active_health, _NONE)


def _available_percent(levels: Levels, left_out: set[str]) -> int:
    available = 0
    for level in levels:
        if level:
            left = sum(candidate.upstream.id not in left_out for candidate in level)
            available += min(100, _OVERPROVISIONING_PERCENT * left // len(level))
    return available


class CircuitBreakingMiddleware:
    """Puts the rule's traffic and `candidates(arm)` into the Exchange."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: UpstreamRegistry,
        rules: RuleTrafficRegistry,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app = app
        self.clock = clock
        self.registry = registry
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        assert exchange.snapshot is not None
        assert exchange.rule is not None
        membership = exchange.snapshot.membership
        registry = self.registry
        rule = exchange.rule

        def ready(ref: BackendRef) -> tuple[Candidate, ...]:
            if ref.backend is None:
                return ()
            return registry.candidates(ref.backend.id, membership.get(ref.backend.id, ()))

        def candidates(arm: BackendRef) -> tuple[Candidate, ...]:
            pool = ready(arm)
            if not registry.tripped and not registry.failing:
                return pool
            refs_by_level = rule.levels or (rule.backend_refs,)
            levels = [[candidate for ref in level for candidate in ready(ref)] for level in refs_by_level]
            return decide(pool, levels, rule.policy.passive_health, failing_for(rule.policy, registry))

        exchange.candidates = candidates
        exchange.rule_traffic = traffic = self.rules.of(exchange.rule.id)
        policy = rule.policy
        if policy.limits is NO_LIMITS:
            traffic.in_flight += 1
        else:
            await self._enter(exchange, traffic, policy)
        try:
            await self.app(scope, receive, send)
        finally:
            traffic.leave()

    async def _enter(self, exchange: Exchange, traffic: RuleTraffic, policy: RulePolicy) -> None:
        left = None
        if policy.request_timeout_seconds is not None:
            left = exchange.started_at + policy.request_timeout_seconds - self.clock()
        try:
            await traffic.enter(policy.limits, wait_seconds=left)
        except TimeoutError:
            raise UpstreamTimeoutError("The request's time was over while it waited for its turn.") from None
