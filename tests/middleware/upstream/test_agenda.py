"""Is everything done at its time, once, and never too much at once?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from middleware.upstream.agenda import MAX_AT_ONCE, PAUSE_SECONDS, Agenda


class FakeTimers:
    """An event loop's clock and timers. It controls the time: `advance` rings what becomes due on the way."""

    def __init__(self) -> None:
        self.now = 100.0
        self.set = 0  # timers that were ever set
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        timer = FakeTimer(self.now + delay, callback)
        self._timers.append(timer)
        self.set += 1
        return cast(asyncio.TimerHandle, timer)

    def pending(self) -> list[FakeTimer]:
        return [timer for timer in self._timers if not timer.is_over]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.pending() if timer.at <= end]:
            timer = min(due, key=lambda timer: timer.at)
            self.now = max(self.now, timer.at)
            timer.is_over = True
            timer.callback()
        self.now = end


class FakeTimer:
    """One timer."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.is_over = False

    def cancel(self) -> None:
        self.is_over = True


class Diary:
    """An agenda of letters, and when each was done."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.done: list[tuple[str, float]] = []
        self.agenda: Agenda[str] = Agenda(self._do, timers=lambda: self.timers)

    def _do(self, letter: str) -> None:
        self.done.append((letter, round(self.timers.now - 100.0, 6)))

    def advance(self, seconds: float) -> list[tuple[str, float]]:
        self.done.clear()
        self.timers.advance(seconds)
        return list(self.done)


@pytest.fixture
def diary() -> Diary:
    return Diary()


def test_each_is_done_once_at_its_time(diary: Diary) -> None:
    for letter, delay in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        diary.agenda.put(letter, delay)
    assert diary.advance(2.5) == [("a", 1.0), ("b", 2.0)]
    assert diary.advance(10) == [("c", 3.0)]
    assert not diary.timers.pending()


def test_what_is_due_at_about_the_same_time_is_done_together(diary: Diary) -> None:
    for number, letter in enumerate("abcdefgh"):
        diary.agenda.put(letter, 1.0 + number * 0.002)
    before = diary.timers.set
    done = diary.advance(2)
    assert [letter for letter, _ in done] == list("abcdefgh")
    assert len({at for _, at in done}) == 2
    assert diary.timers.set - before == 1
    for number, (_, at) in enumerate(done):
        assert abs(at - (1.0 + number * 0.002)) <= PAUSE_SECONDS / 2 + 1e-9


def test_with_longer_pauses_more_is_done_together(diary: Diary) -> None:
    diary.agenda.pause_seconds = 0.2
    for number, letter in enumerate("abcdefgh"):
        diary.agenda.put(letter, 1.0 + number * 0.02)
    done = diary.advance(2)
    assert [letter for letter, _ in done] == list("abcdefgh")
    assert {at for _, at in done} == {1.0, 1.2}


def test_what_is_due_again_while_it_is_done_waits_for_its_time() -> None:
    timers, times = FakeTimers(), list[float]()

    def again(letter: str) -> None:
        times.append(round(timers.now - 100.0, 6))
        if len(times) < 4:
            agenda.put(letter, 0.0 if len(times) == 2 else 0.5)

    agenda: Agenda[str] = Agenda(again, timers=lambda: timers)
    agenda.put("a", 0.5)
    timers.advance(5)
    assert times == [0.5, 1.0, 1.0, 1.5]


def test_the_later_word_counts(diary: Diary) -> None:
    diary.agenda.put("a", 1.0)
    diary.agenda.put("a", 2.0)
    diary.agenda.put("b", 5.0)
    diary.agenda.put("b", 0.5)
    assert diary.advance(10) == [("b", 0.5), ("a", 2.0)]


def test_what_is_hastened_is_never_later(diary: Diary) -> None:
    diary.agenda.put("a", 1.0)
    diary.agenda.hasten("a", 2.0)
    diary.agenda.put("b", 5.0)
    diary.agenda.hasten("b", 0.5)
    diary.agenda.hasten("c", 0.1)  # is not on it
    assert diary.advance(10) == [("b", 0.5), ("a", 1.0)]


def test_what_is_removed_is_not_done(diary: Diary) -> None:
    diary.agenda.put("a", 1.0)
    diary.agenda.put("b", 1.0)
    diary.agenda.remove("a")
    diary.agenda.remove("c")
    assert diary.advance(10) == [("b", 1.0)]
    diary.agenda.put("a", 1.0)
    diary.agenda.clear()
    assert not diary.timers.pending()
    assert diary.advance(10) == []


def test_what_became_due_while_the_loop_was_held_up_is_not_done_all_at_once(diary: Diary) -> None:
    many = [f"{number:03}" for number in range(3 * MAX_AT_ONCE)]
    for name in many:
        diary.agenda.put(name, 1.0)
    diary.timers.now += 7.0
    done = diary.advance(1.0)
    assert [name for name, _ in done] == many
    rounds = sorted({at for _, at in done})
    assert rounds == [7.0, 7.0 + PAUSE_SECONDS, 7.0 + 2 * PAUSE_SECONDS]


def test_what_is_put_off_for_ever_takes_no_room(diary: Diary) -> None:
    for number in range(10_000):
        diary.agenda.put("a", 1000.0 - number * 0.01)
        diary.agenda.put("b", 1.0)
    assert len(diary.agenda._order) < 100
    assert diary.advance(10) == [("b", 1.0)]
