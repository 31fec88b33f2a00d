"""What became of each object, and how is its traffic? The answer of /status.

Conditions come from the snapshot alone. A route's entry also tells of each of its rules what is under way, what waits,
the limits for both, and of each endpoint whether its breaker lets requests through.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from discovery.describe import describe_statuses
from discovery.describe_policy import describe_limits
from discovery.snapshot import Rule, Snapshot
from middleware.upstream.registry import Upstream, UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry

Json = dict[str, Any]

RULES_PER_SLICE = 50


async def describe_status(snapshot: Snapshot, *, registry: UpstreamRegistry, rules: RuleTrafficRegistry) -> list[Json]:
    """An entry for each object, for routes one for each parent. Works in slices: streams go on meanwhile."""
    # In a thread: a snapshot never changes, and one of 10,000 models takes a tenth of a second to tell.
    described = await asyncio.to_thread(describe_statuses, snapshot.routing)
    by_route: dict[tuple[str, str], list[Json]] = defaultdict(list)
    upstreams = {upstream.id: upstream for upstream in registry}
    for number, rule in enumerate(snapshot.routing.rules):
        if number % RULES_PER_SLICE == 0:
            await asyncio.sleep(0)
        by_route[rule.route_kind, rule.route].append(_describe_rule(rule, snapshot, upstreams, rules))
    for entry in described:
        traffic = by_route.get((entry["kind"], f"{entry['namespace']}/{entry['name']}"))
        if traffic is not None:
            entry["rules"] = traffic
    return described


def _describe_rule(rule: Rule, snapshot: Snapshot, upstreams: dict[str, Upstream], rules: RuleTrafficRegistry) -> Json:
    traffic = rules.known(rule.id)
    described: Json = {
        "rule": rule.id,
        "requestsRunning": traffic.in_flight if traffic is not None else 0,
        "requestsWaiting": traffic.waiting if traffic is not None else 0,
        "retriesRunning": traffic.retries_in_flight if traffic is not None else 0,
        "limits": describe_limits(rule.policy.limits),
    }
    endpoints: list[Json] = []
    for ref in rule.backend_refs:
        if ref.backend is None:
            continue
        for endpoint in snapshot.membership.get(ref.backend.id, ()):
            upstream = upstreams.get(endpoint.id)
            breaker = upstream.known_breaker(rule.policy.passive_health) if upstream is not None else None
            active = rule.policy.active_health
            health = upstream.checks.get(active) if upstream is not None and active is not None else None
            endpoints.append(
                {
                    "backend": ref.name,
                    "endpoint": f"{endpoint.address}:{endpoint.port}",
                    "requestsRunning": upstream.in_flight if upstream is not None else 0,
                    "breaker": breaker.state.value if breaker is not None else "closed",
                    "ejections": upstream.ejections if upstream is not None else 0,
                    **({"health": str(health)} if health is not None else {}),
                }
            )
    described["endpoints"] = endpoints
    return described
