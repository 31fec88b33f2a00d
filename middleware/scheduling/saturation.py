"""Is a pool full? The mean over its endpoints of how full queue and KV cache are (pure).

Follows the Inference Extension's utilization detector: an endpoint that nothing is known of counts as full, and so does
a pool without endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from middleware.scheduling.load import Knowledge, Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where an endpoint counts as full."""

    queue_depth: int = 5  # waiting requests, at least 1
    kv_cache_usage: float = 0.8  # above 0, up to 1
    staleness_seconds: float = 0.2  # a reading that is older tells nothing, unless the next is not due yet
    headroom: float = 0.0  # for the filter: that much above the thresholds still has room


DEFAULT_THRESHOLDS = Thresholds()


def fullness(load: Load, thresholds: Thresholds, now: float) -> float:
    """max(queue / threshold, KV cache / threshold); 1 when nothing is known."""
    if load.knowledge is not Knowledge.FRESH or load.is_older(now, thresholds.staleness_seconds):
        return 1.0
    return max(load.waiting / thresholds.queue_depth, load.kv_usage / thresholds.kv_cache_usage)


def saturation(loads: Sequence[Load], thresholds: Thresholds, now: float) -> float:
    """The mean of the endpoints' fullness; 1 without endpoints. From 1 on the pool is saturated."""
    if not loads:
        return 1.0
    return sum(fullness(load, thresholds, now) for load in loads) / len(loads)


def has_room(load: Load, thresholds: Thresholds, now: float) -> bool:
    """Whether something is known of the endpoint, and it is below both thresholds with their headroom."""
    if load.knowledge is not Knowledge.FRESH or load.is_older(now, thresholds.staleness_seconds):
        return False
    allowed = 1.0 + thresholds.headroom
    return load.waiting < thresholds.queue_depth * allowed and load.kv_usage < thresholds.kv_cache_usage * allowed
