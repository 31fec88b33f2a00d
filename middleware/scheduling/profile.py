"""Which endpoint does a profile pick? Filters in order, the weighted sum of the scores, then the picker (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add

from middleware.scheduling.filters import Filter, worth_comparing
from middleware.scheduling.load import Draw, Load, SchedulingRequest
from middleware.scheduling.pickers import MAX_SCORE, Picker
from middleware.scheduling.scorers import (
    KvCacheUtilizationScorer,
    LoraAffinityScorer,
    PrefixCacheScorer,
    QueueScorer,
    Scorer,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedScorer:
    """A scorer in a profile. ``name`` is its plugin's."""

    name: str
    scorer: Scorer
    weight: float = 1.0  # 0 or more


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFilter:
    """A filter in a profile."""

    name: str
    filter: Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """Every number behind one pick, for people. ``scores`` has a row for each scorer, before the weights."""

    left_out: tuple[str, ...]  # why each endpoint is left out; "" for those that are not
    scores: dict[str, list[float | None]]  # by scorer; None for endpoints that are left out
    totals: list[float | None]
    picked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How endpoints are picked."""

    name: str = "default"
    filters: tuple[NamedFilter, ...] = ()
    scorers: tuple[WeightedScorer, ...] = ()
    picker: Picker = MAX_SCORE
    reads_prompts: bool = field(init=False)  # whether the prompt matters

    def __post_init__(self) -> None:
        reads_prompts = any(isinstance(weighted.scorer, PrefixCacheScorer) for weighted in self.scorers)
        object.__setattr__(self, "reads_prompts", reads_prompts)  # frozen from here on

    def pick(self, request: SchedulingRequest, loads: Sequence[Load], draw: Draw, now: float) -> int:
        """The index of the endpoint that gets the request; there is at least one."""
        kept = self._kept(request, loads, now)
        if kept is None:
            return self.picker.pick(self._totals(request, loads), draw)
        left = [index for index, stays in enumerate(kept) if stays]
        return left[self.picker.pick(self._totals(request, [loads[index] for index in left]), draw)]

    def explain(self, request: SchedulingRequest, loads: Sequence[Load], draw: Draw, now: float) -> ScoreTable:
        """The same with every number."""
        kept = self._kept(request, loads, now) or [True] * len(loads)
        comparable = worth_comparing(loads)
        why = [
            "" if stays else "stale" if comparable is not None and not comparable[index] else "filtered"
            for index, stays in enumerate(kept)
        ]
        left = [index for index, stays in enumerate(kept) if stays]
        chosen = [loads[index] for index in left]
        scores: dict[str, list[float | None]] = {}
        for weighted in self.scorers:
            given = weighted.scorer.score(request, chosen) or [0.0] * len(chosen)
            scores[weighted.name] = _spread(given, left, len(loads))
        totals = self._totals(request, chosen)
        return ScoreTable(
            left_out=tuple(why),
            scores=scores,
            totals=_spread(totals, left, len(loads)),
            picked=left[self.picker.pick(totals, draw)],
        )

    def _kept(self, request: SchedulingRequest, loads: Sequence[Load], now: float) -> list[bool] | None:
        """Whether each stays; None when all do. A filter that would leave nobody is left out itself."""
        kept = worth_comparing(loads)
        for named in self.filters:
            stays = named.filter.keep(request, loads, now)
            both = stays if kept is None else [a and b for a, b in zip(kept, stays, strict=True)]
            if any(both):
                kept = both
        return None if kept is None or all(kept) else kept

    def _totals(self, request: SchedulingRequest, loads: Sequence[Load]) -> list[float]:
        totals: list[float] | None = None
        for weighted in self.scorers:
            scores = weighted.scorer.score(request, loads, weighted.weight)
            if scores is not None:
                totals = scores if totals is None else list(map(add, totals, scores))
        return [0.0] * len(loads) if totals is None else totals


def _spread(values: Sequence[float], left: Sequence[int], count: int) -> list[float | None]:
    row: list[float | None] = [None] * count
    for index, value in zip(left, values, strict=True):
        row[index] = value
    return row


_QUEUE = WeightedScorer(name="queue-scorer", scorer=QueueScorer(), weight=2.0)
_KV_CACHE = WeightedScorer(name="kv-cache-utilization-scorer", scorer=KvCacheUtilizationScorer(), weight=2.0)
_PREFIX = WeightedScorer(name="prefix-cache-scorer", scorer=PrefixCacheScorer(), weight=3.0)
_ADAPTERS = WeightedScorer(name="lora-affinity-scorer", scorer=LoraAffinityScorer(), weight=1.0)

DEFAULT_SCORERS = (_QUEUE, _KV_CACHE, _PREFIX)
# Where no file says otherwise. Endpoints without adapters all have 0 from the last one.
DEFAULT_PROFILE = Profile(scorers=(*DEFAULT_SCORERS, _ADAPTERS))
