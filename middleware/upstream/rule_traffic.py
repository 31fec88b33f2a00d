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

    def may_retry(self) -> bool:
        """Whether one more retry stays within max(10, 20 % of the requests in flight): retries must not make a
        storm."""
        return self.retries_in_flight < max(MIN_CONCURRENT_RETRIES, RETRY_BUDGET_SHARE * self.in_flight)


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
