"""Which endpoint does a profile pick, and can it say why?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from middleware.scheduling.filters import UtilizationFilter
from middleware.scheduling.load import Load, SchedulingRequest
from middleware.scheduling.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from middleware.scheduling.profile import DEFAULT_PROFILE, NamedFilter, Profile, WeightedScorer
from middleware.scheduling.saturation import Thresholds
from middleware.scheduling.scorers import QueueScorer
from tests.middleware.scheduling.loads import adapters, load

NOW = 0.0


def shares(picker: MaxScorePicker | WeightedRandomPicker | RandomPicker, scores: list[float]) -> list[float]:
    draw = random.Random(7).random
    counts = Counter(picker.pick(scores, draw) for _ in range(20_000))
    return [counts[index] / 20_000 for index in range(len(scores))]


def test_the_highest_score_wins_and_ties_are_drawn() -> None:
    assert shares(MaxScorePicker(), [1.0, 3.0, 2.0]) == [0, 1, 0]
    assert shares(MaxScorePicker(), [3.0, 1.0, 3.0, 3.0]) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.02)


def test_weighted_random_follows_the_scores() -> None:
    assert shares(WeightedRandomPicker(), [1.0, 0.0, 3.0]) == pytest.approx([0.25, 0, 0.75], abs=0.02)
    assert shares(WeightedRandomPicker(), [0.0, 0.0]) == pytest.approx([0.5, 0.5], abs=0.02)
    assert shares(WeightedRandomPicker(), [1e-320, 0.0]) == [1, 0]


def test_random_does_not_look_at_scores() -> None:
    assert shares(RandomPicker(), [1.0, 0.0]) == pytest.approx([0.5, 0.5], abs=0.02)


def explain(profile: Profile, request: SchedulingRequest, loads: list[Load]) -> list[float | None]:
    return profile.explain(request, loads, random.random, NOW).totals


def test_the_default_weighs_queue_2_kv_cache_2_prefix_3() -> None:
    loads = [load(queue=4, kv=0.5), load(queue=2, kv=0.25), load(queue=0)]
    for slot, one in enumerate(loads):
        one.prefix_slot = slot
    request = SchedulingRequest(blocks=2, matched={0: 2, 1: 1})
    assert explain(DEFAULT_PROFILE, request, loads) == [2 * 0.5 + 3, 2 * 0.5 + 2 * 0.75 + 1.5, 2 + 2]


def test_of_equal_endpoints_the_one_with_the_adapter_is_picked() -> None:
    loads = [load(adapters=adapters(limit=2)), load(adapters=adapters("m1", limit=2)), load()]
    assert explain(DEFAULT_PROFILE, SchedulingRequest(model="m1"), loads) == [4.8, 5.0, 4.8]


def test_an_endpoint_that_is_stale_is_not_picked_while_others_are_known() -> None:
    loads = [Load(), load(queue=9, kv=1.0), load(queue=9, kv=1.0)]
    table = DEFAULT_PROFILE.explain(SchedulingRequest(), loads, lambda: 0.0, NOW)
    assert table.left_out == ("stale", "", "")
    assert table.totals == [None, 2.0, 2.0]
    assert table.scores["queue-scorer"] == [None, 1.0, 1.0]
    assert table.picked == 1
    assert DEFAULT_PROFILE.pick(SchedulingRequest(), loads, lambda: 0.9, NOW) == 2


def test_a_filter_leaves_endpoints_out() -> None:
    profile = Profile(
        filters=(NamedFilter(name="f", filter=UtilizationFilter(thresholds=Thresholds())),),
        scorers=(WeightedScorer(name="q", scorer=QueueScorer()),),
    )
    loads = [load(queue=9), load(queue=3), load(queue=4)]
    table = profile.explain(SchedulingRequest(), loads, random.random, NOW)
    assert (table.left_out, table.totals, table.picked) == (("filtered", "", ""), [None, 1.0, 0.0], 1)
    assert profile.pick(SchedulingRequest(), loads, random.random, NOW) == 1


class OnlyTheFirst:
    """A filter that keeps the first endpoint."""

    def keep(self, request: SchedulingRequest, loads: Sequence[Load], now: float) -> list[bool]:
        return [number == 0 for number in range(len(loads))]


def test_a_filter_that_would_leave_nobody_is_left_out_itself() -> None:
    profile = Profile(filters=(NamedFilter(name="f", filter=OnlyTheFirst()),))
    assert profile.pick(SchedulingRequest(), [load(), load(), load()], lambda: 0.9, NOW) == 0
    stale_first = [Load(), load(), load()]
    assert profile.pick(SchedulingRequest(), stale_first, lambda: 0.9, NOW) == 2


def test_a_profile_without_scorers_picks_at_random() -> None:
    profile = Profile()
    assert profile.pick(SchedulingRequest(), [load(), load()], lambda: 0.0, NOW) == 0
    assert profile.pick(SchedulingRequest(), [load(), load()], lambda: 0.9, NOW) == 1
    assert not profile.reads_prompts
    assert DEFAULT_PROFILE.reads_prompts


def test_a_burst_spreads_over_equal_endpoints() -> None:
    loads = [load() for _ in range(5)]
    for _ in range(200):
        loads[DEFAULT_PROFILE.pick(SchedulingRequest(), loads, random.random, NOW)].begin()
    assert [one.in_flight for one in loads] == [40] * 5
