"""How long to wait before the next try? Longer after each failure, with jitter, and not less than the server asks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Backoff:
    """Exponential: ``first`` seconds doubling up to ``most``, each times 1..2 by chance (client-go's numbers). A pause
    of ``reset_after`` seconds without a failure starts it anew."""

    def __init__(
        self,
        *,
        first: float = 0.8,
        most: float = 30.0,
        reset_after: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._most = most
        self._reset_after = reset_after
        self._clock = clock
        self._draw = draw
        self._next = first
        self._last = clock()

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait after one more failure."""
        now = self._clock()
        if now - self._last > self._reset_after:
            self._next = self._first
        delay = min(self._next * (1.0 + self._draw()), self._most)
        self._next = min(self._next * 2, self._most)
        self._last = now
        return max(delay, at_least or 0.0)

    def reset(self) -> None:
        """All is well: the next failure is the first."""
        self._next = self._first
