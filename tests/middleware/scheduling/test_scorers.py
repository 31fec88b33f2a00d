"""Do the formulas give the numbers that the Inference Extension publishes for them?"""

from __future__ import annotations

import pytest

from discovery.model_servers.server_load import Adapters
from middleware.scheduling.load import Load, SchedulingRequest
from middleware.scheduling.scorers import (
    ActiveRequestScorer,
    KvCacheUtilizationScorer,
    LoraAffinityScorer,
    PrefixCacheScorer,
    QueueScorer,
    RunningRequestsScorer,
)
from tests.middleware.scheduling.loads import adapters, load

REQUEST = SchedulingRequest(model="m1")


@pytest.mark.parametrize(
    ("counts", "scores"),
    [([10, 5, 0], [0, 0.5, 1]), ([5, 5], [1, 1]), ([0, 0], [1, 1]), ([7], [1]), ([49, 0], [0, 1])],
    ids=str,
)
def test_queue_and_running_requests(counts: list[int], scores: list[float]) -> None:
    assert QueueScorer().score(REQUEST, [load(queue=count) for count in counts]) == scores
    assert RunningRequestsScorer().score(REQUEST, [load(running=count) for count in counts]) == scores


def test_kv_cache_utilization() -> None:
    scores = KvCacheUtilizationScorer().score(REQUEST, [load(kv=0.8), load(kv=0.5), load()])
    assert scores == pytest.approx([0.2, 0.5, 1.0])


@pytest.mark.parametrize(
    ("endpoints", "scores"),
    [
        pytest.param([adapters("m1", limit=5)], [1.0], id="active"),
        pytest.param([adapters("m2", "m1", limit=2)], [0.6], id="waiting"),
        pytest.param([adapters("m2", "m3", limit=2)], [0.0], id="no-room"),
        pytest.param([adapters()], [0.0], id="no-adapters"),
        pytest.param([None], None, id="does-not-say"),
        pytest.param(
            [
                adapters("m1", limit=5),
                adapters("m2", "m1", limit=5),
                adapters("m2", limit=2),
                adapters("m3", "m1", limit=2),
                adapters("m4 m5", limit=2),
            ],
            [1.0, 0.8, 0.8, 0.6, 0.0],
            id="room-wins-over-waiting",
        ),
        pytest.param([adapters("m2", limit=1), None], [0.0, 0.8], id="a-vllm-says-nothing-before-its-first-request"),
        pytest.param([adapters("m2", "m2", limit=2)], [0.8], id="vllm-0.32-names-each-adapter-twice"),
    ],
)
def test_lora_affinity(endpoints: list[Adapters | None], scores: list[float] | None) -> None:
    assert LoraAffinityScorer().score(REQUEST, [load(adapters=found) for found in endpoints]) == scores


def holding(slot: int) -> Load:
    one = load()
    one.prefix_slot = slot
    return one


def test_prefix_cache_by_share() -> None:
    request = SchedulingRequest(blocks=4, matched={0: 4, 2: 1}, block_tokens=16)
    assert PrefixCacheScorer().score(request, [holding(slot) for slot in (0, 1, 2, -1)]) == [1.0, 0.0, 0.25, 0.0]


def test_prefix_cache_by_length() -> None:
    request = SchedulingRequest(blocks=4, matched={0: 2}, block_tokens=1024)
    scorer = PrefixCacheScorer(match_length_weight=0.5)
    # half of the prompt, and 2,048 of 8,192 tokens: 0.5 · 0.5 + 0.5 · 0.25²
    assert scorer.score(request, [holding(0), holding(1)]) == pytest.approx([0.28125, 0.0])
    long = SchedulingRequest(blocks=100, matched={0: 100}, block_tokens=1024)
    assert scorer.score(long, [holding(0)]) == [1.0]


def test_prefix_cache_without_a_prompt() -> None:
    assert PrefixCacheScorer().score(SchedulingRequest(), [holding(0)]) is None


def test_active_requests() -> None:
    endpoints = [load(in_flight=count) for count in (0, 1, 2, 4)]
    assert ActiveRequestScorer().score(REQUEST, endpoints) == [1.0, 0.75, 0.5, 0.0]
    assert ActiveRequestScorer(idle_threshold=1, max_busy_score=0.5).score(REQUEST, endpoints) == [1.0, 1.0, 0.25, 0.0]
    assert ActiveRequestScorer().score(REQUEST, [load(), load()]) == [1.0, 1.0]
