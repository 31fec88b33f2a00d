"""Is a request shed because its pool is full? Those of negative priority are, while the pool is saturated (pure).

The priority is that of the InferenceObjective which the request names, if objective headers are trusted, else that of
the InferenceModel of its model; without either it is 0. Follows the Inference Extension's admission control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from discovery.snapshot import BackendRef, Rule
from middleware.errors import SaturatedError
from middleware.exchange import Exchange
from middleware.scheduling.load import Load
from middleware.scheduling.scheduler import Scheduler
from middleware.upstream.registry import UpstreamRegistry

# llm-d's name first, then the Inference Extension's.
OBJECTIVE_HEADERS = (b"x-llm-d-inference-objective", b"x-gateway-inference-objective")


def objective_of(raw_headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The InferenceObjective that a client's own headers name."""
    given = dict(raw_headers)
    for name in OBJECTIVE_HEADERS:
        if name in given:
            return given[name].decode("latin-1").strip()
    return None


def has_priorities(rule: Rule) -> bool:
    """Whether anything gives the rule's requests a priority."""
    for ref in rule.backend_refs:  # asked for every request: a third of what any() and a generator take
        pool = ref.backend.pool if ref.backend is not None else None
        if pool is not None and (pool.priorities or pool.model_priorities):
            return True
    return False


def priority_of(rule: Rule, *, model: str | None, objective: str | None) -> int:
    """The priority of a request, by the rule's pools in their order."""
    pools = [ref.backend.pool for ref in rule.backend_refs if ref.backend is not None and ref.backend.pool is not None]
    if objective is not None:
        for pool in pools:
            if objective in pool.priorities:
                return pool.priorities[objective]
    if model is not None:
        for pool in pools:
            if model in pool.model_priorities:
                return pool.model_priorities[model]
    return 0


def decide(priority: int, saturation: Callable[[], float]) -> None:
    """Raises SaturatedError for a request that is shed. The saturation is asked for only where it matters."""
    if priority < 0 and saturation() >= 1.0:
        raise SaturatedError("The model servers are busy, and this request's priority is below 0.")


class Shedder:
    """Sheds requests, by what the scheduler knows of their pools."""

    def __init__(self, *, scheduler: Scheduler, registry: UpstreamRegistry, trusts_objectives: bool = False) -> None:
        self._scheduler = scheduler
        self._registry = registry
        self._trusts_objectives = trusts_objectives

    def admit(self, exchange: Exchange, raw_headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the request's priority. Raises SaturatedError."""
        rule = exchange.rule
        assert rule is not None
        if has_priorities(rule):
            objective = objective_of(raw_headers) if self._trusts_objectives else None
            exchange.priority = priority_of(rule, model=exchange.model, objective=objective)
            decide(exchange.priority, lambda: self.saturation(exchange))

    def saturation(self, exchange: Exchange) -> float:
        """How full the rule's pools are, all their endpoints taken together."""
        rule, snapshot = exchange.rule, exchange.snapshot
        assert rule is not None
        assert snapshot is not None
        loads: list[Load] = []
        for pool_id in dict.fromkeys(map(_pool_of, rule.backend_refs)):
            if pool_id is not None:
                members = self._registry.candidates(pool_id, snapshot.membership.get(pool_id, ()))
                loads += [candidate.upstream.load for candidate in members]
        return self._scheduler.saturation(loads)


def _pool_of(ref: BackendRef) -> str | None:
    """The pool that a backendRef sends anything to."""
    return ref.backend.id if ref.weight and ref.backend is not None and ref.backend.pool is not None else None
