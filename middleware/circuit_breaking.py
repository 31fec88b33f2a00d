"""Which endpoints of an arm may be tried now, and how much of the rule's traffic is in flight?

The request counts towards its rule for its whole passage, streams included. The candidates are the ready endpoints of
the request's own snapshot without those whose breaker is open or that fail their active checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from types import MappingProxyType

from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.backend import Membership
from discovery.rule_policy import NO_LIMITS, PassiveHealth, RulePolicy
from discovery.snapshot import BackendRef, Rule
from middleware.errors import UpstreamTimeoutError
from middleware.exchange import Exchange
from middleware.upstream.breaker import Breaker
from middleware.upstream.registry import Candidate, UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTraffic, RuleTrafficRegistry

# Envoy's overprovisioning factor: a priority of which five in seven endpoints are left can carry everything.
_OVERPROVISIONING_PERCENT = 140

_NONE: frozenset[str] = frozenset()
_NO_BREAKERS: Mapping[str, Breaker] = MappingProxyType({})

Levels = Sequence[Set[str]]  # the ids of a rule's endpoints by priority


def decide(
    pool: tuple[Candidate, ...],
    levels: Levels,
    settings: PassiveHealth,
    *,
    tripped: Mapping[str, Breaker] = _NO_BREAKERS,
    failing: Set[str] = _NONE,
) -> tuple[Candidate, ...]:
    """Those of ``pool`` that may be tried now. ``levels`` are the endpoints of the whole rule, ``tripped`` all breakers
    with these settings that are not closed: what is asked grows with them, and not with the rule's endpoints.

    Whoever is ``failing`` active checks, by its id, is left out, and of those whose breaker is open at most
    ``max_ejection_percent`` of all, those that were ejected first. When less than ``panic_threshold_percent`` of all
    would remain, nobody is: then it is rather the checks that are wrong (Envoy's panic). As in Envoy there is no panic
    while what is left of the priorities together can carry the traffic.
    """
    everyone = levels[0] if len(levels) == 1 else frozenset().union(*levels)
    ejected = [upstream_id for upstream_id in tripped.keys() & everyone if not tripped[upstream_id].admits()]
    left_out = failing & everyone
    if not ejected and not left_out:
        return pool
    total = len(everyone)
    allowed = total * settings.max_ejection_percent // 100
    if len(ejected) > allowed:
        ejected = sorted(ejected, key=lambda upstream_id: tripped[upstream_id].opened_at)[:allowed]
    left_out = {*ejected, *left_out}
    is_short = (total - len(left_out)) * 100 < settings.panic_threshold_percent * total
    if is_short and _available_percent(levels, left_out) < 100:
        return pool
    return tuple(candidate for candidate in pool if candidate.upstream.id not in left_out)


def failing_for(policy: RulePolicy, registry: UpstreamRegistry) -> Set[str]:
    """The ids of the endpoints that fail the rule's active checks, where it has any."""
    if policy.active_health is None or not registry.failing:
        return _NONE
    return registry.failing.get(policy.active_health, _NONE)


def _available_percent(levels: Levels, left_out: Set[str]) -> int:
    return sum(min(100, _OVERPROVISIONING_PERCENT * len(level - left_out) // len(level)) for level in levels if level)


def admitted(
    pool: tuple[Candidate, ...], rule: Rule, membership: Membership, registry: UpstreamRegistry
) -> tuple[Candidate, ...]:
    """``decide`` for a rule, with what the registry knows; while all is well nothing is asked."""
    if not registry.tripped and not registry.failing:
        return pool
    policy = rule.policy
    tripped = registry.tripped.get(policy.passive_health, _NO_BREAKERS)
    failing = failing_for(policy, registry)
    if not tripped and not failing:
        return pool
    levels = registry.levels_of(rule, membership)
    return decide(pool, levels, policy.passive_health, tripped=tripped, failing=failing)


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

        def candidates(arm: BackendRef) -> tuple[Candidate, ...]:
            if arm.backend is None:
                return ()
            pool = registry.candidates(arm.backend.id, membership.get(arm.backend.id, ()))
            pool = admitted(pool, rule, membership, registry)
            return registry.absent.without(pool) if registry.absent else pool

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
