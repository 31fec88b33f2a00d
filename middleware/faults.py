"""Which fault does this request get? Delays and aborts that a policy injects for drills, drawn per request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from discovery.rule_policy import FaultInjection


class Fault(NamedTuple):
    """How long to wait, and the status to answer with afterwards; None goes on."""

    delay_seconds: float = 0.0
    abort_status: int | None = None


def decide(faults: FaultInjection, draw: Callable[[], float]) -> Fault:
    """The fault of one request. ``draw`` gives numbers in [0, 1): delay and abort are drawn each for itself."""
    delay, status = 0.0, None
    if faults.delay_seconds is not None and draw() * 100 < faults.delay_percent:
        delay = faults.delay_seconds
    if faults.abort_status is not None and draw() * 100 < faults.abort_percent:
        status = faults.abort_status
    return Fault(delay, status)
