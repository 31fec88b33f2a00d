"""How did one attempt end? The words for it, and which of them are the endpoint's failure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from middleware.upstream.registry import Pick


class Outcome(StrEnum):
    """How an attempt ended."""

    PENDING = "pending"
    ANSWERED = "answered"  # a whole answer, whatever its status
    CONNECT_FAILED = "connect_failed"
    RESET = "reset"  # the connection ended before the answer's first byte
    STALE = "stale"  # the same, on a reused connection within the keep-alive race's window
    TIMEOUT = "timeout"
    PROTOCOL_ERROR = "protocol_error"
    BROKEN = "broken"  # the connection ended, stalled or timed out after the first byte
    ERROR_EVENT = "error_event"  # a whole 200 answer whose stream ended in the upstream's own error event
    ABANDONED = "abandoned"  # the client left


FAILURES = frozenset(
    {
        Outcome.CONNECT_FAILED,
        Outcome.RESET,
        Outcome.TIMEOUT,
        Outcome.PROTOCOL_ERROR,
        Outcome.BROKEN,
        Outcome.ERROR_EVENT,
    }
)


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """One try at one upstream. Times are those of time.perf_counter, in seconds."""

    pick: Pick
    started_at: float
    ended_at: float | None = None
    status: int | None = None  # of the upstream's answer, when there was a head
    outcome: Outcome = Outcome.PENDING

    @property
    def is_failure(self) -> bool:
        """Whether this counts against the endpoint: never a 4xx, a client that left, or 503 (servers say "busy" with
        it)."""
        if self.outcome in FAILURES:
            return True
        return (
            self.outcome is Outcome.ANSWERED and self.status is not None and self.status >= 500 and self.status != 503
        )
