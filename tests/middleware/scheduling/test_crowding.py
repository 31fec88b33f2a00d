"""Does a cached prompt attract requests only as long as its endpoint has no more than its share?"""

from __future__ import annotations

import pytest

from middleware.scheduling.crowding import uncrowded
from tests.middleware.scheduling.loads import load


@pytest.mark.parametrize(
    ("in_flight", "left"),
    [
        pytest.param([0, 0, 0, 0], {0: 4, 1: 2}, id="idle"),
        pytest.param([15, 0, 0, 0], {0: 4, 1: 2}, id="few-are-never-too-many"),
        pytest.param([16, 0, 0, 0], {1: 2}, id="more-than-a-few-and-than-the-share"),
        pytest.param([24, 20, 20, 20], {0: 4, 1: 2}, id="within-the-share"),
        pytest.param([50, 20, 20, 20], {1: 2}, id="over-the-share"),
        pytest.param([20, 20, 50, 20], {0: 4, 1: 2}, id="one-that-has-nothing"),
        pytest.param([20], {0: 4, 1: 2}, id="alone"),
    ],
)
def test_an_endpoint_with_more_than_its_share_attracts_nothing(in_flight: list[int], left: dict[int, int]) -> None:
    loads = [load(in_flight=count) for count in in_flight]
    for slot, one in enumerate(loads):
        one.prefix_slot = slot
    assert uncrowded({0: 4, 1: 2}, loads) == left


def test_an_endpoint_that_is_silent_attracts_nothing() -> None:
    loads = [load(in_flight=1), load(in_flight=1)]
    for slot, one in enumerate(loads):
        one.prefix_slot = slot
    loads[0].look_at_silence(6.0)
    assert uncrowded({0: 4, 1: 2}, loads) == {1: 2}
    loads[0].look_at_silence(0.0)
    assert uncrowded({0: 4, 1: 2}, loads) == {0: 4, 1: 2}
