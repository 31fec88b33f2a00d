"""May this endpoint be tried? A breaker per endpoint and distinct passive-check settings.

What users call circuit breaking of a pod is Envoy's outlier detection: consecutive failures eject an endpoint for a
time that grows with each ejection. Unlike Envoy's, an ejected endpoint does not simply come back: it is half-open then,
and one probe decides. The words are those of sony/gobreaker: closed, open, half-open, permit, trip; so are generations,
by which a result that arrives after the state has changed counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

from discovery.rule_policy import PassiveHealth


class State(StrEnum):
    """The three states of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Health(Enum):
    """What one attempt says of its endpoint."""

    SUCCESS = "success"
    FAILURE = "failure"  # a 5xx other than the gateway errors
    GATEWAY_FAILURE = "gateway failure"  # connect, reset, timeout, broken answer, 502, 503, 504
    NOTHING = "nothing"  # the client left, or a busy answer that is not to count


@dataclass(slots=True, eq=False)
class Permit:
    """What an attempt holds while it runs, and gives back with its result."""

    generation: int
    is_probe: bool


NO_PERMIT = Permit(generation=-1, is_probe=False)


class Breaker:
    """One endpoint's breaker. Single-threaded: between `admits` and `acquire` nothing may be awaited."""

    __slots__ = (
        "_clock",
        "_closed_since",
        "_failures",
        "_gateway_failures",
        "_generation",
        "_is_probing",
        "_multiplier",
        "_on_change",
        "_open_until",
        "_permit",
        "opened_at",
        "settings",
        "state",
    )

    def __init__(
        self,
        settings: PassiveHealth,
        *,
        clock: Callable[[], float],
        on_change: Callable[[Breaker, State, State], None] = lambda breaker, old, new: None,
    ) -> None:
        self.settings = settings
        self.state = State.CLOSED
        self._clock = clock
        self._on_change = on_change
        self._generation = 0
        self._permit = Permit(0, is_probe=False)  # of every attempt of this generation that is no probe
        self._failures = 0
        self._gateway_failures = 0
        self._is_probing = False
        self._multiplier = 0
        self._open_until = 0.0
        self.opened_at = 0.0
        self._closed_since = clock()

    def admits(self) -> bool:
        """Whether an attempt may start now: always when closed, when its time is over or half-open one at a time."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            return self._clock() >= self._open_until
        return not self._is_probing

    def acquire(self) -> Permit:
        """Start an attempt. One that was not admitted (in panic every endpoint is used) gets a permit that counts for
        nothing."""
        if self.state is State.CLOSED:
            return self._permit
        if self.state is State.OPEN and self._clock() >= self._open_until:
            self._change(State.HALF_OPEN)
        if self.state is State.HALF_OPEN and not self._is_probing:
            self._is_probing = True
            return Permit(self._generation, is_probe=True)
        return NO_PERMIT

    def first_byte(self, permit: Permit) -> Permit:
        """The attempt's answer has begun. That is enough of a probe: a stream can take minutes. The permit that comes
        back is the one to report the end with."""
        if permit.is_probe and permit.generation == self._generation:
            self._close()
            return self._permit
        return permit

    def report(self, permit: Permit, health: Health) -> bool:
        """Give the permit back with what the attempt says. True when it has tripped the breaker."""
        if permit.generation != self._generation:
            return False
        if permit.is_probe:
            self._is_probing = False
            if health is Health.SUCCESS:
                self._close()
            elif health is not Health.NOTHING:
                self._trip()
                return True
            return False
        return self.state is State.CLOSED and self._count(health)

    def close(self) -> None:
        """Admit everything again: an active health check has found the endpoint healthy."""
        if self.state is not State.CLOSED:
            self._close()

    def _count(self, health: Health) -> bool:
        if health is Health.NOTHING:
            return False
        if health is Health.SUCCESS:
            self._failures = self._gateway_failures = 0
            return False
        self._failures += 1
        self._gateway_failures = self._gateway_failures + 1 if health is Health.GATEWAY_FAILURE else 0
        settings = self.settings
        if self._failures == settings.consecutive_failures:
            self._failures = 0
        elif self._gateway_failures == settings.consecutive_gateway_errors:
            self._gateway_failures = 0
        else:
            return False
        self._trip()
        return True

    def _trip(self) -> None:
        settings, now = self.settings, self._clock()
        if self.state is State.CLOSED and settings.interval_seconds > 0:
            healthy_intervals = int((now - self._closed_since) / settings.interval_seconds)
            self._multiplier = max(0, self._multiplier - healthy_intervals)
        self._multiplier += 1
        longest = max(settings.base_ejection_seconds, settings.max_ejection_seconds)
        self.opened_at = now
        self._open_until = now + min(settings.base_ejection_seconds * self._multiplier, longest)
        self._change(State.OPEN)

    def _close(self) -> None:
        self._failures = self._gateway_failures = 0
        self._closed_since = self._clock()
        self._change(State.CLOSED)

    def _change(self, state: State) -> None:
        old, self.state = self.state, state
        self._generation += 1
        self._permit = Permit(self._generation, is_probe=False)
        self._is_probing = False
        if old is not state:
            self._on_change(self, old, state)
