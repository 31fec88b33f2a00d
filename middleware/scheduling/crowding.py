"""Has an endpoint got more than its share of what we send? There a cached prompt attracts no more (pure).

By the formulas alone it would for ever: a whole prompt that is cached weighs 3, the longest queue costs 2, so whoever
asks the same goes to the one endpoint that was asked first, however long its queue, while its neighbours idle. This is
consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016), with prefix affinity for the hash:
what is over the bound is picked by load, and leaves the prompt in another endpoint's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from middleware.scheduling.load import Load

FEW = 16  # so many requests in flight are never too many: they fit into one batch
SHARE = 1.25  # of the mean of all candidates


def uncrowded(matched: Mapping[int, int], loads: Sequence[Load]) -> Mapping[int, int]:
    """``matched``, by prefix slot, without those of ``loads`` that have more than their share in flight, or are silent:
    whoever repeats a prompt that a frozen endpoint swallowed would be sent there again."""
    busy = [load for load in loads if load.in_flight >= FEW or load.is_silent]
    if not busy:
        return matched
    bound = max(FEW, SHARE * sum([load.in_flight for load in loads]) / len(loads))
    crowded = {load.prefix_slot for load in busy if load.is_silent or load.in_flight >= bound}
    if crowded.isdisjoint(matched):
        return matched
    return {slot: count for slot, count in matched.items() if slot not in crowded}
