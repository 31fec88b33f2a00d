"""How does long work leave the event loop room? As a generator that yields between short steps.

The same generator is run at once (at start, in `check`) or in slices (while serving): one text of the algorithm.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]  # yields between steps and returns the result

# What runs without a break; a single step may take longer. A request comes to its turn five times or so before it is
# answered, and there can be a slice before each.
SLICE_SECONDS = 0.001


@contextmanager
def collector_paused() -> Iterator[None]:
    """While something large is built that stays: the garbage collector would walk over all of it again and again, at
    a quarter of a second for 10,000 models, and find nothing. What was built is left out of its later walks too; it
    has no reference cycles, so it goes when the last reference goes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def run_at_once(steps: Steps[T]) -> T:
    """The result, without a break."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def run_in_slices(
    steps: Steps[T], *, slice_seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
) -> T:
    """The result; whenever a slice is over, everything else that the event loop has to do comes first."""
    end = clock() + slice_seconds
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if clock() >= end:
            await asyncio.sleep(0)
            end = clock() + slice_seconds


def collect(items: Iterable[T], *, every: int = 16) -> Steps[list[T]]:
    """All items in a list, with a break after each ``every``."""
    found: list[T] = []
    for item in items:
        found.append(item)
        if len(found) % every == 0:
            yield
    return found
