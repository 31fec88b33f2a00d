"""Is a failed attempt tried again, and after how long? Only before the answer's first byte, and never in a storm
(pure)."""

from __future__ import annotations

from collections.abc import Sequence

from discovery.rule_policy import RetryPolicy, RetryTrigger
from middleware.upstream.connection import ConnectionBrokenError
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Pick

# An idle connection that the upstream closes while we write: no byte comes and the end comes at once. Later than this,
# the request was read, and a prompt that kills a pod must not travel to the next.
KEEP_ALIVE_RACE_SECONDS = 0.25
MAX_RETRY_AFTER_SECONDS = 1.0

_ON_RESET: frozenset[RetryTrigger] = frozenset({"reset", "5xx", "gateway-error"})
_ON_CONNECT_FAILURE: frozenset[RetryTrigger] = _ON_RESET | {"connect-failure"}


def is_keep_alive_race(error: Exception, attempts: Sequence[Attempt]) -> bool:
    """Whether this failure is the keep-alive race, for the first time in this request."""
    return (
        isinstance(error, ConnectionBrokenError)
        and error.is_reused
        and not error.has_answer_bytes
        and error.seconds_since_write <= KEEP_ALIVE_RACE_SECONDS
        and not any(attempt.outcome is Outcome.STALE for attempt in attempts)
    )


def may_retry(policy: RetryPolicy, attempts: Sequence[Attempt]) -> bool:
    """Whether the last of ``attempts`` may be followed by another: what failed is retriable, and there is one left."""
    if not _is_retriable(policy, attempts[-1]):
        return False
    counted = sum(attempt.outcome is not Outcome.STALE for attempt in attempts)
    return counted <= policy.max_retries


def _is_retriable(policy: RetryPolicy, attempt: Attempt) -> bool:
    # As Envoy's RetryState has it: 5xx and gateway-error include that there was no answer at all.
    triggers = policy.triggers
    status = attempt.status or 0
    match attempt.outcome:
        case Outcome.ANSWERED:
            if status < 400:
                return False
            return (
                ("retriable-status-codes" in triggers and status in policy.statuses)
                or ("5xx" in triggers and status >= 500)
                or ("gateway-error" in triggers and status in (502, 503, 504))
                or ("retriable-4xx" in triggers and status == 409)
            )
        case Outcome.CONNECT_FAILED:
            return not triggers.isdisjoint(_ON_CONNECT_FAILURE)
        case Outcome.RESET | Outcome.TIMEOUT | Outcome.PROTOCOL_ERROR:
            return not triggers.isdisjoint(_ON_RESET)
        case _:
            return False


def wait_before(
    policy: RetryPolicy, pick: Pick, attempts: Sequence[Attempt], *, retry_after_seconds: float | None, draw: float
) -> float | None:
    """Seconds to wait before trying ``pick``; None when it is better not to try.

    An endpoint not tried yet is tried at once, unless the policy sets a back-off. One tried before is given the time it
    asked for, when that is at most a second, else a random part of an exponentially growing time (full jitter), so that
    clients do not come back in step.
    """
    is_new = all(attempt.pick.upstream is not pick.upstream for attempt in attempts)
    if is_new and not policy.backs_off_always:
        return 0.0
    if not is_new and retry_after_seconds is not None:
        return retry_after_seconds if retry_after_seconds <= MAX_RETRY_AFTER_SECONDS else None
    grown = policy.backoff_base_seconds * float(2 ** min(len(attempts), 20) - 1)
    return policy.backoff_min_seconds + draw * min(policy.backoff_max_seconds, grown)


def parse_retry_after(value: bytes | None) -> float | None:
    """Retry-After in seconds; None when absent. A date is more than a second away for all we care."""
    if value is None:
        return None
    value = value.strip()
    return float(value) if value.isdigit() and len(value) < 10 else float("inf")
