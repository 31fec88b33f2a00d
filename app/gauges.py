"""What is true of the gateway at the moment of a scrape? Read then, and kept nowhere else."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from app.exposition import Family, Row, single
from discovery.describe_policy import describe_limits
from discovery.snapshot import Snapshot, SnapshotStore
from middleware.model_extraction import BodyMemory
from middleware.rate_limits import RateLimiter
from middleware.scheduling.load import Knowledge
from middleware.upstream.breaker import State
from middleware.upstream.health_check import HealthChecks
from middleware.upstream.registry import Upstream, UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry

if TYPE_CHECKING:
    from app.tracing.counts import DeliveryCounts

_RULE = ("route", "rule")
_STEP = 100  # rules that are looked at before the event loop may have its turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Tells the state of what it is given."""

    store: SnapshotStore
    registry: UpstreamRegistry
    rules: RuleTrafficRegistry
    limiter: RateLimiter
    health: HealthChecks
    memory: BodyMemory
    spans: DeliveryCounts | None = None  # where traces are on
    clock: Callable[[], float] = time.monotonic  # that of the endpoints' readings

    def families(self) -> Iterator[Family]:
        """All of them."""
        snapshot = self.store.current
        yield Family(
            name="pointsman_build_info",
            kind="gauge",
            help="Always 1; its labels tell what runs.",
            labels=("version", "python"),
            rows=[((version("pointsman"), platform.python_version()), 1)],
        )
        yield single(
            "pointsman_config_version",
            "gauge",
            "The number of the configuration in use, endpoints included: it grows with every change.",
            snapshot.version,
        )
        yield single("pointsman_body_memory_bytes", "gauge", "Request bodies in memory.", self.memory.used_bytes)
        yield single(
            "pointsman_body_memory_limit_bytes", "gauge", "What they may take together.", self.memory.limit_bytes
        )
        yield Family(
            name="pointsman_backend_endpoints",
            kind="gauge",
            help="Ready endpoints of each backend that a rule names; of the ports of one Service, the fewest.",
            labels=("backend", "kind"),
            rows=_of_backends(snapshot),
        )
        yield from self._of_endpoints()
        yield from self._of_rules()
        yield Family(
            name="pointsman_rate_limit_shadowed_total",
            kind="counter",
            help="Requests that a rate limit in shadow mode would have refused.",
            labels=_RULE,
            rows=list(self.limiter.shadowed.items()),
        )
        if self.spans is not None:
            yield from _of_traces(self.spans)

    def _of_endpoints(self) -> Iterator[Family]:
        labels = ("endpoint",)
        upstreams: dict[str, list[Upstream]] = {}  # an address can be the endpoint of several pods, one after the other
        for upstream in self.registry:
            upstreams.setdefault(upstream.label, []).append(upstream)
        in_order = sorted(upstreams.items())

        def rows(tell: Callable[[Upstream], float]) -> Iterator[Row]:
            return (((label,), sum(tell(each) for each in same)) for label, same in in_order)

        def of_loads(tell: Callable[[Upstream], float]) -> Iterator[Row | None]:
            # Of those that were ever read: what is not asked for its load has none.
            for label, same in in_order:
                read = [each for each in same if each.load.read_at > 0 and each.load.knowledge is not Knowledge.NONE]
                yield ((label,), tell(max(read, key=lambda each: each.load.read_at))) if read else None

        yield Family(
            name="pointsman_upstream_in_flight",
            kind="gauge",
            help="Attempts running at an endpoint now.",
            labels=labels,
            rows=rows(lambda upstream: upstream.in_flight),
        )
        yield Family(
            name="pointsman_upstream_breakers",
            kind="gauge",
            help="Breakers of an endpoint by their state; rules with equal passive health checks share one.",
            labels=("endpoint", "state"),
            rows=(
                ((label, state.value), sum(breaker.state is state for each in same for breaker in each.breakers))
                for label, same in in_order
                for state in State
            ),
        )
        yield Family(
            name="pointsman_upstream_ejections_total",
            kind="counter",
            help="How often a breaker of an endpoint tripped.",
            labels=labels,
            rows=rows(lambda upstream: upstream.ejections),
        )
        yield from self._of_checks()
        now = self.clock()
        yield Family(
            name="pointsman_upstream_load_age_seconds",
            kind="gauge",
            help="Since an endpoint's own metrics were last read; about a second at most while all is well.",
            labels=labels,
            rows=of_loads(lambda upstream: max(0.0, now - upstream.load.read_at)),
        )
        yield Family(
            name="pointsman_upstream_requests_running",
            kind="gauge",
            help="Requests that a model server said it works on.",
            labels=labels,
            rows=of_loads(lambda upstream: upstream.load.running),
        )
        yield Family(
            name="pointsman_upstream_requests_waiting",
            kind="gauge",
            help="Requests that a model server said it has in its queue.",
            labels=labels,
            rows=of_loads(lambda upstream: upstream.load.waiting),
        )
        yield Family(
            name="pointsman_upstream_kv_cache_usage",
            kind="gauge",
            help="The share of its KV cache that a model server said is in use, 0 to 1.",
            labels=labels,
            rows=of_loads(lambda upstream: upstream.load.kv_usage),
        )

    def _of_checks(self) -> Iterator[Family]:
        found: dict[str, bool] = {}
        for upstream, health in self.health.states():
            found[upstream.label] = found.get(upstream.label, True) and health.is_healthy
        yield Family(
            name="pointsman_upstream_healthy",
            kind="gauge",
            help="1 while an endpoint passes all its active health checks, 0 while it fails one; none where it is not "
            "checked.",
            labels=("endpoint",),
            rows=(((label,), is_healthy) for label, is_healthy in sorted(found.items())),
        )
        yield Family(
            name="pointsman_health_checks_total",
            kind="counter",
            help="Active health checks by what they found: well, wrong_answer, or retriable, as timeouts and failures "
            "of the network are.",
            labels=("finding",),
            rows=[((finding.value.replace(" ", "_"),), count) for finding, count in self.health.done.items()],
        )

    def _of_rules(self) -> Iterator[Family]:
        rules = self.store.current.routing.rules
        counts: dict[tuple[str, str], list[int]] = {}  # a rule that differs between listeners is counted as one

        def running() -> Iterator[Row | None]:
            for number, rule in enumerate(rules):
                traffic = self.rules.known(rule.id)
                if traffic is not None:
                    sums = counts.setdefault((rule.route, rule.name), [0, 0, 0])
                    for index, value in enumerate((traffic.in_flight, traffic.waiting, traffic.retries_in_flight)):
                        sums[index] += value
                if number % _STEP == 0:
                    yield None
            for key, sums in counts.items():
                yield key, sums[0]

        def limits() -> Iterator[Row | None]:
            seen: set[tuple[str, str]] = set()
            for rule in rules:
                key = (rule.route, rule.name)
                if key not in seen:
                    seen.add(key)
                    for name, limit in describe_limits(rule.policy.limits).items():
                        yield (*key, name), limit
                yield None

        yield Family(
            name="pointsman_rule_requests_running",
            kind="gauge",
            help="Requests of a rule under way.",
            labels=_RULE,
            rows=running(),
        )
        yield Family(
            name="pointsman_rule_requests_waiting",
            kind="gauge",
            help="Requests of a rule that wait for their turn.",
            labels=_RULE,
            rows=((key, sums[1]) for key, sums in counts.items()),
        )
        yield Family(
            name="pointsman_rule_retries_running",
            kind="gauge",
            help="Retries of a rule under way.",
            labels=_RULE,
            rows=((key, sums[2]) for key, sums in counts.items()),
        )
        yield Family(
            name="pointsman_rule_limit",
            kind="gauge",
            help="What a rule may have at once, by the policy's field.",
            labels=(*_RULE, "limit"),
            rows=limits(),
        )


def _of_backends(snapshot: Snapshot) -> Iterator[Row | None]:
    # A Service is a backend once for each port that is named, a pool for each API group: a series must be written once.
    fewest: dict[tuple[str, str], int] = {}
    for number, backend in enumerate(snapshot.routing.backends.values()):
        key = (f"{backend.namespace}/{backend.name}", backend.kind)
        ready = len(snapshot.membership.get(backend.id, ()))
        fewest[key] = min(ready, fewest.get(key, ready))
        if number % _STEP == 0:
            yield None
    yield from fewest.items()


def _of_traces(spans: DeliveryCounts) -> Iterator[Family]:
    yield single("pointsman_trace_spans_total", "counter", "Spans that ended, of sampled requests.", spans.ended)
    yield single("pointsman_trace_spans_delivered_total", "counter", "Spans that the collector took.", spans.delivered)
    yield single("pointsman_trace_spans_lost_total", "counter", "Spans that the collector did not take.", spans.lost)
