"""Does the event loop keep up? A timer that measures how late it is: everything else is at least as late."""

from __future__ import annotations

import asyncio

from app.exposition import Family, Histogram

INTERVAL_SECONDS = 0.1
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures from ``start`` to ``close``."""

    def __init__(self) -> None:
        self._histogram = Histogram(BUCKETS)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Measure in the running loop from here on."""
        self._plan(asyncio.get_running_loop())

    def close(self) -> None:
        """Stop. Safe to call twice, and without having started."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + INTERVAL_SECONDS
        self._timer = loop.call_later(INTERVAL_SECONDS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._histogram.observe(max(0.0, loop.time() - self._due))
        self._plan(loop)

    def family(self) -> Family:
        """What was measured."""
        return Family(
            name="pointsman_event_loop_lag_seconds",
            kind="histogram",
            help="How late a timer of the gateway's event loop is, ten times a second.",
            rows=[((), self._histogram)],
        )
