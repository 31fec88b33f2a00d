"""Is a failed attempt tried again, and after how long? Only before the answer's first byte, and never in a storm
(pure)."""

from __future__ import annotations

from collections.abc import Sequence

from discovery.snapshot import RulePolicy
from middleware.upstream.connection import ConnectionBrokenError
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Pick

# An idle connection that the upstream closes while we write: no byte comes and the end comes at once. Later than this,
# the request was read, and a prompt that kills a pod must not travel to the next.
KEEP_ALIVE_RACE_SECONDS = 0.25
BACKOFF_BASE_SECONDS = 0.025
MAX_RETRY_AFTER_SECONDS = 1.0


def is_keep_alive_race(error: Exception, attempts: Sequence[Attempt]) -> bool:
    """Whether this failure is the keep-alive race, for the first time in this request."""
    return (
        isinstance(error, ConnectionBrokenError)
        and error.is_reused
        and not error.has_answer_bytes
        and error.seconds_since_write <= KEEP_ALIVE_RACE_SECONDS
        and not any(attempt.outcome is Outcome.STALE for attempt in attempts)
    )


def may_retry(policy: RulePolicy, attempts: Sequence[Attempt]) -> bool:
    """Whether the last of ``attempts`` may be followed by another: what failed is retriable, and there is one left."""
    last = attempts[-1]
    is_retriable = last.outcome is Outcome.CONNECT_FAILED or (
        last.outcome is Outcome.ANSWERED and last.status in policy.retry_statuses
    )
    if not is_retriable:
        return False
    counted = sum(attempt.outcome is not Outcome.STALE for attempt in attempts)
    return counted <= policy.max_retries


def wait_before(
    pick: Pick, attempts: Sequence[Attempt], *, retry_after_seconds: float | None, draw: float
) -> float | None:
    """Seconds to wait before trying ``pick``; None when it is better not to try.

    An endpoint not tried yet is tried at once. One tried before is given the time it asked for, when that is at most a
    second, else a random part of an exponentially growing time (full jitter), so that clients do not come back in step.
    """
    if all(attempt.pick.upstream is not pick.upstream for attempt in attempts):
        return 0.0
    if retry_after_seconds is not None:
        return retry_after_seconds if retry_after_seconds <= MAX_RETRY_AFTER_SECONDS else None
    return draw * BACKOFF_BASE_SECONDS * float(2 ** len(attempts))


def parse_retry_after(value: bytes | None) -> float | None:
    """Retry-After in seconds; None when absent. A date is more than a second away for all we care."""
    if value is None:
        return None
    value = value.strip()
    return float(value) if value.isdigit() and len(value) < 10 else float("inf")
