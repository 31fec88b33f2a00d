"""What have the active checks said of one endpoint? Thresholds as Envoy has them. Pure: it is told of results."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from discovery.rule_policy import ActiveHealth


class Finding(Enum):
    """What one check says."""

    WELL = "well"
    WRONG_ANSWER = "wrong answer"  # one is enough
    RETRIABLE = "retriable"  # counts towards the threshold, as the network's failures do


class Result(NamedTuple):
    """A check that is over; ``why`` is for the operator."""

    finding: Finding
    why: str = ""


class EndpointHealth:
    """Whether an endpoint is well, as its checks have it so far."""

    __slots__ = ("_passed", "failed", "is_healthy", "is_pending", "settings", "why")

    def __init__(self, settings: ActiveHealth, *, is_healthy: bool) -> None:
        self.settings = settings
        self.is_healthy = is_healthy
        self.is_pending = True  # until the first check is over
        self.failed = 0  # checks in a row
        self.why = ""
        self._passed = 0

    def note(self, result: Result) -> bool:
        """Take a result in. True when the endpoint's health has changed by it."""
        was_healthy, is_first = self.is_healthy, self.is_pending
        self.is_pending = False
        if result.finding is Finding.WELL:
            self.failed = 0
            self.why = ""
            self._passed += 1
            self.is_healthy = was_healthy or is_first or self._passed >= self.settings.healthy_threshold
        else:
            self._passed = 0
            self.failed += 1
            self.why = result.why
            if result.finding is Finding.WRONG_ANSWER or self.failed >= self.settings.unhealthy_threshold:
                self.is_healthy = False
        return self.is_healthy is not was_healthy

    def __str__(self) -> str:
        if self.is_healthy:
            return "healthy"
        if self.is_pending:
            return "not checked yet"
        if not self.failed:
            return f"unhealthy: {self._passed} of {self.settings.healthy_threshold} checks passed"
        times = "once" if self.failed == 1 else f"{self.failed} times"
        return f"unhealthy: active check failed {times}: {self.why}"
