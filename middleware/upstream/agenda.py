"""What is due when? One timer for thousands of things, each of which is done at its own time.

A timer for each costs ten microseconds and a wake-up of the process. Here what is due within a few milliseconds is done
together, and when the loop was held up, what has become due is not done all at once either.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

PAUSE_SECONDS = 0.01  # between two rounds; what is due sooner than half of it belongs to the one before
MAX_AT_ONCE = 16  # things done in one round

T = TypeVar("T")


class Timers(Protocol):
    """What an agenda needs of an event loop."""

    def time(self) -> float:
        """Seconds."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call it once after so many seconds."""
        ...


class Agenda(Generic[T]):
    """Calls ``act`` with each thing once its time has come, up to half of ``pause_seconds`` before. A thing is on it
    once or not at all.

    Single-threaded: used from one event loop. ``act`` must not raise.
    """

    def __init__(self, act: Callable[[T], None], *, timers: Callable[[], Timers] = asyncio.get_running_loop) -> None:
        self.pause_seconds = PAUSE_SECONDS
        self._act = act
        self._timers = timers
        self._entries: dict[T, tuple[float, int, T]] = {}  # when it is due by the loop's clock, and a number
        self._order: list[tuple[float, int, T]] = []  # a heap of them, with some that do not count any more
        self._numbers = itertools.count()  # so that things are never compared
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def put(self, thing: T, delay_seconds: float) -> None:
        """Let it be done after so long, and not when it was to be done before."""
        timers = self._timers()
        due = timers.time() + delay_seconds
        entry = self._entries[thing] = (due, next(self._numbers), thing)
        heapq.heappush(self._order, entry)
        if len(self._order) > 2 * len(self._entries) + 16:
            self._order[:] = self._entries.values()
            heapq.heapify(self._order)
        if self._timer is None or due < self._rings_at - self.pause_seconds:
            self._ring_at(due, timers)

    def hasten(self, thing: T, delay_seconds: float) -> None:
        """If it is to be done later than after so long: let it be done then."""
        entry = self._entries.get(thing)
        if entry is not None and entry[0] > self._timers().time() + delay_seconds:
            self.put(thing, delay_seconds)

    def remove(self, thing: T) -> None:
        """It is not done."""
        self._entries.pop(thing, None)

    def clear(self) -> None:
        """Nothing is done any more."""
        self._entries.clear()
        self._order.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring_at(self, due: float, timers: Timers) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = due
        self._timer = timers.call_later(max(0.0, due - timers.time()), self._ring)

    def _ring(self) -> None:
        timers = self._timers()
        now = timers.time()
        limit = now + self.pause_seconds / 2
        order, done = self._order, 0
        while order and order[0][0] <= limit and done < MAX_AT_ONCE:
            entry = heapq.heappop(order)
            thing = entry[2]
            if self._entries.get(thing) is entry:
                del self._entries[thing]
                done += 1
                self._act(thing)
        self._timer = None
        if self._order:
            self._ring_at(max(self._order[0][0], now + self.pause_seconds), timers)
