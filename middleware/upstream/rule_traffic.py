"""How much of one rule's traffic is in flight? Counts per rule that outlive snapshots; retries are limited by them."""

from __future__ import annotations

import asyncio
from collections import deque

from discovery.rule_policy import NO_LIMITS, ConcurrencyLimits
from discovery.snapshot import Snapshot
from middleware.errors import OverloadedError

MIN_CONCURRENT_RETRIES = 10
RETRY_BUDGET_SHARE = 0.2


class RuleTraffic:
    """One rule's requests in flight, those that wait to be, and how many of them are retrying.

    Single-threaded: whoever leaves hands its place on in the same step, so nobody can overtake the queue.
    """

    __slots__ = ("_places", "_waiting", "in_flight", "retries_in_flight", "turns")

    def __init__(self) -> None:
        self.in_flight = 0
        self.retries_in_flight = 0
        self.turns: dict[str, int] = {}  # of round robin, by the backend's id
        self._places: int | None = None  # how many may be in flight while somebody waits
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiting)

    async def enter(self, limits: ConcurrencyLimits, *, wait_seconds: float | None) -> None:
        """Take a place. Raises OverloadedError at once when a limit is reached, TimeoutError when the wait is too
        long."""
        if limits.max_parallel_requests is not None and self.in_flight >= limits.max_parallel_requests:
            raise OverloadedError("This model has as many requests under way as it may have.")
        if limits.max_connections is None or self.in_flight < limits.max_connections:
            self.in_flight += 1
            return
        if len(self._waiting) >= limits.max_pending_requests:
            raise OverloadedError("This model has as many requests waiting as it may have.")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places = limits.max_connections
        self._waiting.append(place)
        try:
            async with asyncio.timeout(wait_seconds):
                await place
        except BaseException:
            if place.done() and not place.cancelled():
                self.leave()  # it was given the place in the very moment it gave up
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def leave(self) -> None:
        """Give the place back; the first in the queue has it from now on."""
        self.in_flight -= 1
        self._hand_on()

    def follow(self, limits: ConcurrencyLimits) -> None:
        """The limits have changed: they hold for those who wait, too."""
        if self._waiting:
            self._places = limits.max_connections
            self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and (self._places is None or self.in_flight < self._places):
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def retry_permit(self, limits: ConcurrencyLimits = NO_LIMITS) -> RetryPermit:
        """What a request needs before it retries; not taken yet."""
        return RetryPermit(self, limits)

    def may_retry(self, limits: ConcurrencyLimits) -> bool:
        """Whether one more retry stays within the policy's budget or number, else within max(10, 20 % of the requests
        in
        flight): retries must not make a storm."""
        if limits.retry_budget_share is not None:
            allowed = max(float(limits.min_retry_concurrency), limits.retry_budget_share * self.in_flight)
        elif limits.max_parallel_retries is not None:
            allowed = float(limits.max_parallel_retries)
        else:
            allowed = max(float(MIN_CONCURRENT_RETRIES), RETRY_BUDGET_SHARE * self.in_flight)
        return self.retries_in_flight < allowed


class RetryPermit:
    """One request's right to retry: taken with the decision, held while it waits and tries."""

    __slots__ = ("_is_taken", "_limits", "_traffic")

    def __init__(self, traffic: RuleTraffic, limits: ConcurrencyLimits) -> None:
        self._traffic = traffic
        self._limits = limits
        self._is_taken = False

    def take(self) -> bool:
        """Whether the budget allows it; one that is taken already stays so."""
        if not self._is_taken and self._traffic.may_retry(self._limits):
            self._is_taken = True
            self._traffic.retries_in_flight += 1
        return self._is_taken

    def release(self) -> None:
        """Give it back. Safe to call twice, and without having taken it."""
        if self._is_taken:
            self._is_taken = False
            self._traffic.retries_in_flight -= 1


class RuleTrafficRegistry:
    """One RuleTraffic per rule id. Single-threaded: used from the event loop only."""

    def __init__(self) -> None:
        self._rules: dict[str, RuleTraffic] = {}

    def of(self, rule_id: str) -> RuleTraffic:
        """The traffic of a rule, made at first sight."""
        traffic = self._rules.get(rule_id)
        if traffic is None:
            traffic = self._rules[rule_id] = RuleTraffic()
        return traffic

    def known(self, rule_id: str) -> RuleTraffic | None:
        """The traffic of a rule, or None where it never had any."""
        return self._rules.get(rule_id)

    def follow(self, snapshot: Snapshot) -> None:
        """Give those who wait the new limits, and forget rules that are gone and idle."""
        if not self._rules:
            return
        named = {rule.id: rule for rule in snapshot.routing.rules}
        for rule_id, traffic in list(self._rules.items()):
            if rule_id in named:
                traffic.follow(named[rule_id].policy.limits)
            elif not traffic.in_flight:
                del self._rules[rule_id]
