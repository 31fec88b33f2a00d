"""Who has the beginning of a prompt?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from middleware.scheduling.load import Load
from middleware.scheduling.prefix_index import ENTRY_BYTES, PrefixIndex

MANY = 1_000


def matched(index: PrefixIndex, hashes: list[int], *loads: Load) -> list[int]:
    found = index.match(hashes)
    return [found.get(load.prefix_slot, 0) for load in loads]


def test_each_endpoint_has_what_was_sent_there() -> None:
    index, one, other, third = PrefixIndex(), Load(), Load(), Load()
    index.add(one, [1, 2, 3, 4], capacity=MANY)
    index.add(other, [1, 2, 9], capacity=MANY)
    assert matched(index, [1, 2, 3, 4, 5], one, other, third) == [4, 2, 0]
    assert matched(index, [1, 2, 9], one, other, third) == [2, 3, 0]
    assert matched(index, [7, 1, 2], one, other, third) == [0, 0, 0]
    assert matched(index, [], one, other, third) == [0, 0, 0]
    assert index.match([1]) == {one.prefix_slot: 1, other.prefix_slot: 1}


def test_the_end_of_the_longest_unused_prompt_goes_first() -> None:
    index, one = PrefixIndex(), Load()
    index.add(one, [1, 2, 3], capacity=5)
    index.add(one, [11, 12], capacity=5)
    index.add(one, [1, 2, 3], capacity=5)  # used again
    index.add(one, [21], capacity=5)
    assert matched(index, [11, 12], one) == [1]
    assert matched(index, [1, 2, 3], one) == [3]
    index.add(one, [31, 32, 33], capacity=5)
    assert matched(index, [1, 2, 3], one) == [1]
    assert len(index) == 5


def test_of_a_prompt_that_is_too_long_the_beginning_is_kept() -> None:
    index, one = PrefixIndex(), Load()
    index.add(one, list(range(100)), capacity=10)
    assert matched(index, list(range(100)), one) == [10]


def test_an_endpoint_that_is_gone_leaves_at_once() -> None:
    index, one, other = PrefixIndex(), Load(), Load()
    index.add(one, [1, 2], capacity=MANY)
    index.add(other, [1], capacity=MANY)
    slot = one.prefix_slot
    index.forget(one)
    index.forget(one)
    assert one.prefix_slot == -1
    assert index.match([1, 2]) == {other.prefix_slot: 1}
    new = Load()
    index.add(new, [5], capacity=MANY)
    assert new.prefix_slot == slot
    assert matched(index, [1, 2], new) == [0]
    index.forget(new)
    index.forget(other)
    assert index.match([1]) == {}
    assert len(index) == 0


def test_memory_is_bounded_over_all_endpoints() -> None:
    index = PrefixIndex(limit_bytes=100 * ENTRY_BYTES)
    loads = [Load() for _ in range(10)]
    for number, load in enumerate(loads):
        index.add(load, [number * 1000 + i for i in range(200)], capacity=MANY)
        assert len(index) <= 100
    assert matched(index, list(range(9000, 9200)), loads[9]) == [10]


def test_many_endpoints_that_share_a_prompt() -> None:
    index, loads = PrefixIndex(), [Load() for _ in range(300)]
    for number, load in enumerate(loads):
        index.add(load, [1, 2, 3] if number % 3 else [1], capacity=MANY)
    assert matched(index, [1, 2, 3], *loads) == [3 if number % 3 else 1 for number in range(300)]


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), max_size=4)), max_size=30))
def test_the_same_as_looking_at_every_endpoint(sent: list[tuple[int, list[int]]]) -> None:
    """Against the plain definition, with room for everything. A path in a tree stands for a chain of hashes."""

    def chain(path: list[int]) -> list[int]:
        return [hash((0, *path[: length + 1])) for length in range(len(path))]

    index, loads = PrefixIndex(), [Load() for _ in range(4)]
    has: list[set[int]] = [set() for _ in range(4)]
    for who, path in sent:
        index.add(loads[who], chain(path), capacity=MANY)
        has[who].update(chain(path))
        for asked in (path, [*path, 0], [1, *path]):
            wanted = chain(asked)
            expected = [next((i for i, block in enumerate(wanted) if block not in own), len(wanted)) for own in has]
            assert matched(index, wanted, *loads) == expected
