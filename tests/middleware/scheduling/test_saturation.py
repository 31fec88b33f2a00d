"""Do saturation and its filter give the numbers that the Inference Extension publishes?"""

from __future__ import annotations

import pytest

from middleware.scheduling.filters import UtilizationFilter, worth_comparing
from middleware.scheduling.load import Load, SchedulingRequest
from middleware.scheduling.saturation import Thresholds, saturation
from tests.middleware.scheduling.loads import load

NOW = 100.0
THRESHOLDS = Thresholds(queue_depth=5, kv_cache_usage=0.9)


def fresh(queue: int, kv: float) -> Load:
    return load(queue=queue, kv=kv, at=NOW - 0.1)


def stale(queue: int = 0, kv: float = 0.0) -> Load:
    return load(queue=queue, kv=kv, at=NOW - 0.3)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        pytest.param([], 1.0, id="no-endpoints"),
        pytest.param([fresh(2, 0.5)], 0.5556, id="kv"),
        pytest.param([stale()], 1.0, id="stale"),
        pytest.param([fresh(10, 0.1)], 2.0, id="queue"),
        pytest.param([fresh(1, 0.95)], 1.0556, id="kv-over"),
        pytest.param([Load()], 1.0, id="unread"),
        pytest.param([fresh(1, 0.1), fresh(0, 0.2)], 0.2111, id="mean"),
        pytest.param([fresh(1, 0.1), stale()], 0.6, id="good-and-stale"),
        pytest.param([fresh(1, 0.1), fresh(15, 0.1)], 1.6, id="good-and-full"),
        pytest.param([stale(), fresh(20, 0.1), fresh(0, 0.99)], 2.0333, id="all-bad"),
        pytest.param([fresh(5, 0.1)], 1.0, id="exactly-at-the-threshold"),
    ],
)
def test_saturation(loads: list[Load], expected: float) -> None:
    assert saturation(loads, THRESHOLDS, NOW) == pytest.approx(expected, abs=1e-4)


def test_an_idle_pool_that_is_read_once_a_second_is_not_saturated() -> None:
    assert saturation([load(at=NOW - 0.9, interval=1.0)], THRESHOLDS, NOW) == 0.0


def test_the_filter_keeps_what_has_room() -> None:
    loads = [fresh(4, 0.5), fresh(5, 0.5), fresh(0, 0.9), stale(), Load(), fresh(0, 0.0)]
    chosen = UtilizationFilter(thresholds=THRESHOLDS)
    assert chosen.keep(SchedulingRequest(), loads, NOW) == [True, False, False, False, False, True]
    roomy = UtilizationFilter(thresholds=Thresholds(queue_depth=5, kv_cache_usage=0.8, headroom=0.5))
    assert roomy.keep(SchedulingRequest(), loads, NOW) == [True, True, True, False, False, True]


def test_the_filter_keeps_everybody_when_nobody_has_room() -> None:
    loads = [fresh(9, 0.5), stale()]
    assert UtilizationFilter(thresholds=THRESHOLDS).keep(SchedulingRequest(), loads, NOW) == [True, True]


def test_stale_endpoints_are_left_out_unless_most_are_stale() -> None:
    def endpoints(known: int, unknown: int) -> list[Load]:
        return [*(fresh(0, 0.0) for _ in range(known)), *(Load() for _ in range(unknown))]

    assert worth_comparing(endpoints(3, 0)) is None
    assert worth_comparing(endpoints(2, 1)) == [True, True, False]
    assert worth_comparing(endpoints(1, 1)) == [True, False]
    assert worth_comparing(endpoints(1, 2)) is None
    assert worth_comparing(endpoints(0, 2)) is None
