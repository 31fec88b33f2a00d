"""How much of one rule's traffic is in flight? Counts per rule that outlive snapshots; retries are limited by them."""

from __future__ import annotations

from discovery.snapshot import Snapshot

MIN_CONCURRENT_RETRIES = 10
RETRY_BUDGET_SHARE = 0.2


class RuleTraffic:
    """One rule's requests in flight, and how many of them are retrying."""

    __slots__ = ("in_flight", "retries_in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.retries_in_flight = 0

    def retry_permit(self) -> RetryPermit:
        """What a request needs before it retries; not taken yet."""
        return RetryPermit(self)

    def may_retry(self) -> bool:
        """Whether one more retry stays within max(10, 20 % of the requests in flight): retries must not make a
        storm."""
        return self.retries_in_flight < max(MIN_CONCURRENT_RETRIES, RETRY_BUDGET_SHARE * self.in_flight)


class RetryPermit:
    """One request's right to retry: taken with the decision, held while it waits and tries, given back when
    answered."""

    __slots__ = ("_is_taken", "_traffic")

    def __init__(self, traffic: RuleTraffic) -> None:
        self._traffic = traffic
        self._is_taken = False

    def take(self) -> bool:
        """Whether the budget allows it; one that is taken already stays so."""
        if not self._is_taken and self._traffic.may_retry():
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

    def follow(self, snapshot: Snapshot) -> None:
        """Forget rules that are gone and idle."""
        named = {rule.id for rule in snapshot.routing.rules}
        for rule_id in [
            known for known, traffic in self._rules.items() if known not in named and not traffic.in_flight
        ]:
            del self._rules[rule_id]
