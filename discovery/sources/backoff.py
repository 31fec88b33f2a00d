"""How long to wait before the next try? Longer after each failure, with jitter, and not less than the server asks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long a reflector waits for what, in seconds."""

    watch_least: float = 240.0
    watch_most: float = 360.0
    watch_grace: float = 15.0  # what our own deadline comes after the server's
    relist: float = 600.0  # a list is due at the end of a watch, when the last one is older
    silence: float = 90.0  # bookmarks come once a minute; where they stop, the server has lost us, or our version
    short_watch: float = 1.0  # one that ends sooner, without having told of an object, is a failure
    pause: float = 0.2  # at most, by chance, after a watch that was well until it ended
    missing_least: float = 0.5  # a CRD that is not there: when to look again, at first and in the end
    missing_most: float = 30.0
    missing_grace: float = 60.0  # what was there stays for so long when the API says that its kind is unknown
    forbidden: float = 60.0  # permissions are given by hand
    refused: float = 1.0  # after the first refusal that matters, all till then are told in one line
    backoff_first: float = 0.8
    backoff_most: float = 30.0


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
