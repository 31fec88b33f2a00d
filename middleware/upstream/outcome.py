"""How did one attempt end, and what does that say of its endpoint?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from discovery.rule_policy import PassiveHealth
from middleware.upstream.breaker import NO_PERMIT, Health, Permit

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


@dataclass(slots=True, eq=False)
class Attempt:
    """One try at one upstream. Times are those of time.perf_counter, in seconds."""

    pick: Pick
    started_at: float
    ended_at: float | None = None
    status: int | None = None  # of the upstream's answer, when there was a head
    model: str | None = None  # that the upstream was asked for, where the configuration says what a name stands for
    outcome: Outcome = Outcome.PENDING
    permit: Permit = NO_PERMIT  # of the endpoint's breaker
    pick_seconds: float = 0.0  # what choosing the endpoint took
    first_byte_at: float | None = None  # of the answer's body, or its end where it has none
    is_ejecting: bool = False  # its end has tripped the endpoint's breaker

    def health(self, settings: PassiveHealth) -> Health:
        """What this attempt says of its endpoint. A 4xx or a 429 is a healthy endpoint's answer to a bad client; a
        client that left and the keep-alive race say nothing."""
        match self.outcome:
            case Outcome.ANSWERED:
                status = self.status or 0
                if status < 500:
                    return Health.SUCCESS
                if status == 503 and not settings.counts_busy:
                    return Health.NOTHING
                return Health.GATEWAY_FAILURE if status in (502, 503, 504) else Health.FAILURE
            case Outcome.PENDING | Outcome.STALE | Outcome.ABANDONED:
                return Health.NOTHING
            case Outcome.ERROR_EVENT:
                return Health.FAILURE
            case Outcome.CONNECT_FAILED | Outcome.RESET | Outcome.TIMEOUT | Outcome.PROTOCOL_ERROR | Outcome.BROKEN:
                return Health.GATEWAY_FAILURE
            case _:
                assert_never(self.outcome)
