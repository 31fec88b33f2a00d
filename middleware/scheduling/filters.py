"""Which endpoints are left out before scoring? (pure)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from middleware.scheduling.load import Load, SchedulingRequest
from middleware.scheduling.saturation import Thresholds, has_room


class Filter(Protocol):
    """Says which endpoints stay."""

    def keep(self, request: SchedulingRequest, loads: Sequence[Load], now: float) -> list[bool]:
        """Whether each of ``loads`` stays, in their order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilizationFilter:
    """Leaves out endpoints whose queue or KV cache is full, or that nothing is known of; nobody when all are."""

    thresholds: Thresholds

    def keep(self, request: SchedulingRequest, loads: Sequence[Load], now: float) -> list[bool]:
        """Those with room."""
        kept = [has_room(load, self.thresholds, now) for load in loads]
        return kept if any(kept) else [True] * len(loads)


def worth_comparing(loads: Sequence[Load]) -> list[bool] | None:
    """Whether each endpoint's numbers mean something, or None when that leaves nobody out.

    Stale endpoints are left out while at least half of all are not stale: else what is known has become a small part
    of the pool, and sending everything there would overload it.
    """
    comparable = [load.may_be_compared for load in loads]
    count = comparable.count(True)
    return None if count == len(loads) or 2 * count < len(loads) else comparable
