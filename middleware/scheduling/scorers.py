"""How good is each endpoint for this request? A score from 0 to 1 for each, by one thing that is known (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from discovery.model_servers.server_load import Adapters
from middleware.scheduling.load import Load, SchedulingRequest


class Scorer(Protocol):
    """Gives each endpoint a score from 0, worst, to 1."""

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float] | None:
        """One score times ``weight`` for each of ``loads``, in their order; None when all have 0."""
        ...


def fewest_is_best(counts: list[int], weight: float) -> list[float]:
    """(max - n) / (max - min), and 1 for all when they are equal."""
    most, fewest = max(counts), min(counts)
    if most == fewest:
        return [weight] * len(counts)
    spread = most - fewest
    # Divided first: the best has exactly its weight, so that those that are best in different things tie.
    return [(most - count) / spread * weight for count in counts]


@dataclass(frozen=True, slots=True)
class QueueScorer:
    """The shortest queue is best: requests that wait, and those that the metrics cannot show yet."""

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float]:
        """Relative to the longest and the shortest."""
        return fewest_is_best([load.queue for load in loads], weight)


@dataclass(frozen=True, slots=True)
class RunningRequestsScorer:
    """The fewest running requests are best."""

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float]:
        """Relative to the most and the fewest."""
        return fewest_is_best([load.working for load in loads], weight)


@dataclass(frozen=True, slots=True)
class KvCacheUtilizationScorer:
    """The emptiest KV cache is best."""

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float]:
        """1 - usage."""
        return [weight - weight * load.kv_usage for load in loads]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCacheScorer:
    """The longest part of the prompt that an endpoint has in its KV cache is best."""

    match_length_weight: float = 0.0  # 0..1: how much the length of the match counts beside its share of the prompt
    match_length_scale_tokens: int = 8192

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float] | None:
        """(1 - w) · matched / all + w · min(1, matched tokens / scale)²; None without a match."""
        blocks, matched = request.blocks, request.matched
        if not blocks or not matched:
            return None
        of_length = self.match_length_weight
        if not of_length:
            return [weight * matched.get(load.prefix_slot, 0) / blocks for load in loads]
        scale = request.block_tokens / self.match_length_scale_tokens
        counts = [matched.get(load.prefix_slot, 0) for load in loads]
        return [
            weight * ((1 - of_length) * (count / blocks) + of_length * min(1.0, count * scale) ** 2) for count in counts
        ]


@dataclass(frozen=True, slots=True)
class LoraAffinityScorer:
    """An endpoint that runs the adapter is best, then one that has room for it, then one where it waits."""

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float] | None:
        """1, 0.8, 0.6 and 0. An endpoint that says nothing of adapters, beside others that do, has room: a vLLM says
        nothing before its first request (recorded), and would hardly get one if that counted against it."""
        model = request.model
        told = [load.adapters for load in loads]
        if told.count(None) == len(told):
            return None
        return [weight * (_ROOM if adapters is None else _adapter_score(model, adapters)) for adapters in told]


_ROOM = 0.8


def _adapter_score(model: str | None, adapters: Adapters) -> float:
    if model in adapters.running:
        return 1.0
    # Each adapter once: vLLM 0.32 puts the same names into both lists.
    if len(adapters.running | adapters.waiting) < adapters.limit:
        return _ROOM
    return 0.6 if model in adapters.waiting else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRequestScorer:
    """The fewest of our own requests in flight are best."""

    idle_threshold: int = 0  # up to so many an endpoint counts as idle
    max_busy_score: float = 1.0  # 0..1: what the least busy of the busy ones can have at most

    def score(self, request: SchedulingRequest, loads: Sequence[Load], weight: float = 1.0) -> list[float]:
        """1 for an idle one, else (max - n) / max · the highest score of a busy one."""
        most = max(load.in_flight for load in loads)
        idle, highest = self.idle_threshold, weight * self.max_busy_score
        return [weight if load.in_flight <= idle else (most - load.in_flight) / most * highest for load in loads]
