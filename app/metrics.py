"""What is counted? Requests, durations, attempts and state, in Prometheus' words."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.logs import LineWriter, final_status
from discovery.describe import describe_limits
from discovery.snapshot import SnapshotStore
from discovery.sources.kubernetes import KindReport
from middleware.exchange import Exchange
from middleware.rate_limits import RateLimiter
from middleware.traffic_mirroring import MirrorRecord
from middleware.upstream.breaker import State
from middleware.upstream.health_check import HealthChecks
from middleware.upstream.outcome import Attempt
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry

MAX_MODEL_LABELS = 1_000
OTHER = "other"

# Model answers take from milliseconds (an embedding) to many minutes (a long reasoning answer).
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class _Timing:
    """A histogram's counts for one rule: a list to bump, a fraction of what a locked metric object costs."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bounds and how many were at most that, as the exposition format wants them."""
        bounds = [*(str(float(bound)) for bound in DURATION_BUCKETS), "+Inf"]
        return list(zip(bounds, accumulate(self.buckets), strict=True))


class _MirrorCounts:
    """What became of the copies that one rule sent to one mirror."""

    __slots__ = ("dropped", "first_byte", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.first_byte = _Timing()
        self.dropped = 0


class _RuleTimings:
    """The two histograms of one rule."""

    __slots__ = ("duration", "first_byte", "labels")

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        self.duration = _Timing()
        self.first_byte = _Timing()


class Metrics(Collector):
    """An observer of exchanges that counts them, and the collector that tells the counts when it is asked.

    Counted in plain dictionaries from the event loop alone, hence without locks: what a request costs here it pays for
    every time, what a scrape costs is paid every few seconds.
    """

    def __init__(
        self,
        *,
        store: SnapshotStore,
        registry: UpstreamRegistry,
        rules: RuleTrafficRegistry,
        limiter: RateLimiter,
        health: HealthChecks,
        writer: LineWriter,
    ) -> None:
        self._store = store
        self._rules = rules
        self._registry = registry
        self._limiter = limiter
        self._health = health
        self._writer = writer
        self.requests_in_flight = 0
        self.config_rejected = 0
        self.is_config_current = False
        self._requests: dict[tuple[str, str, str, str, int, str], int] = {}
        self._attempts: dict[tuple[str, str, str, str], int] = {}
        self._rewritten: dict[tuple[str, str, str, str, str, str], int] = {}
        self._timings: dict[tuple[str, str], _RuleTimings] = {}
        self._mirrors: dict[tuple[str, str, str], _MirrorCounts] = {}
        self._model_labels: set[str] = set()
        self.cluster: Callable[[], Sequence[KindReport]] | None = None  # set where a cluster is followed
        self.prometheus = CollectorRegistry()
        self.prometheus.register(self)

    def started(self, exchange: Exchange) -> None:
        """A request came."""
        self.requests_in_flight += 1

    def finished(self, exchange: Exchange) -> None:
        """Count a request that is over."""
        self.requests_in_flight -= 1
        rule = exchange.rule
        route, name = (rule.route, rule.name) if rule is not None else ("", "")
        attempts = exchange.attempts
        backend = attempts[-1].pick.backend_ref.name if attempts else ""
        key = (route, name, backend, self._model_label(exchange.model), final_status(exchange), exchange.reason.value)
        self._requests[key] = self._requests.get(key, 0) + 1
        for attempt in attempts:
            attempt_key = (route, name, attempt.pick.backend_ref.name, attempt.outcome.value)
            self._attempts[attempt_key] = self._attempts.get(attempt_key, 0) + 1
            if attempt.model is not None:
                self._count_rewritten(route, name, exchange, attempt)
        timings = self._timings.get((route, name))
        if timings is None:
            timings = self._timings[route, name] = _RuleTimings([route, name])
        if exchange.ended_at is not None:
            timings.duration.observe(exchange.ended_at - exchange.started_at)
        if exchange.first_byte_at is not None:
            timings.first_byte.observe(exchange.first_byte_at - exchange.started_at)

    def _count_rewritten(self, route: str, rule: str, exchange: Exchange, attempt: Attempt) -> None:
        backend, code = attempt.pick.backend_ref.name, "" if attempt.status is None else str(attempt.status)
        models = (self._model_label(exchange.model), self._model_label(attempt.model))
        key = (route, rule, backend, *models, code)
        self._rewritten[key] = self._rewritten.get(key, 0) + 1

    def mirrored(self, record: MirrorRecord) -> None:
        """Count a copy that is over."""
        key = (record.rule.route, record.rule.name, record.backend)
        counts = self._mirrors.get(key)
        if counts is None:
            counts = self._mirrors[key] = _MirrorCounts()
        if record.is_dropped:
            counts.dropped += 1
            return
        code = "" if record.status is None else str(record.status)
        counts.statuses[code] = counts.statuses.get(code, 0) + 1
        if record.first_byte_at is not None:
            counts.first_byte.observe(record.first_byte_at - record.started_at)

    def _model_label(self, model: str | None) -> str:
        """Only configured names become label values, and a bounded number of them: clients can invent any."""
        if model is None:
            return ""
        if model in self._model_labels:
            return model
        if model in self._store.current.routing.model_names and len(self._model_labels) < MAX_MODEL_LABELS:
            self._model_labels.add(model)
            return model
        return OTHER

    def collect(self) -> Iterator[Metric]:
        """What is true now, as Prometheus' client library wants it."""
        requests = CounterMetricFamily(
            "pointsman_requests_total",
            "Requests by rule, backend and how they ended.",
            labels=["route", "rule", "backend", "model", "code", "reason"],
        )
        for (route, rule, backend, model, status, reason), count in self._requests.items():
            requests.add_metric([route, rule, backend, model, str(status), reason], count)
        yield requests
        attempts = CounterMetricFamily(
            "pointsman_attempts_total",
            "Tries at an endpoint and how they ended.",
            labels=["route", "rule", "backend", "outcome"],
        )
        for labels, count in self._attempts.items():
            attempts.add_metric(list(labels), count)
        yield attempts
        rewritten = CounterMetricFamily(
            "pointsman_rewritten_attempts_total",
            "Tries where the configuration says which model a name stands for; without a status there was no answer.",
            labels=["route", "rule", "backend", "model", "target_model", "code"],
        )
        for names, count in self._rewritten.items():
            rewritten.add_metric(list(names), count)
        yield rewritten
        duration = HistogramMetricFamily(
            "pointsman_request_duration_seconds",
            "From the request's head to the end of its answer.",
            labels=["route", "rule"],
        )
        first_byte = HistogramMetricFamily(
            "pointsman_time_to_first_byte_seconds",
            "From the request's head to the first byte of its answer's body.",
            labels=["route", "rule"],
        )
        for timings in self._timings.values():
            duration.add_metric(timings.labels, timings.duration.cumulative(), timings.duration.sum)
            first_byte.add_metric(timings.labels, timings.first_byte.cumulative(), timings.first_byte.sum)
        yield duration
        yield first_byte
        yield from self._collect_mirrors()
        shadowed = CounterMetricFamily(
            "pointsman_rate_limit_shadowed_total",
            "Requests that a rate limit in shadow mode would have refused.",
            labels=["route", "rule"],
        )
        for (route, rule), count in self._limiter.shadowed.items():
            shadowed.add_metric([route, rule], count)
        yield shadowed
        yield GaugeMetricFamily(
            "pointsman_requests_in_flight", "Requests being answered now.", value=self.requests_in_flight
        )
        upstreams = GaugeMetricFamily(
            "pointsman_upstream_in_flight", "Attempts running at an endpoint now.", labels=["endpoint"]
        )
        running: dict[str, int] = {}
        for upstream in self._registry:
            running[upstream.label] = running.get(upstream.label, 0) + upstream.in_flight
        for label, count in sorted(running.items()):
            upstreams.add_metric([label], count)
        yield upstreams
        yield from self._collect_breakers()
        yield from self._collect_limits()
        yield CounterMetricFamily(
            "pointsman_config_rejected_total",
            "Configurations that were refused, once per new content.",
            value=self.config_rejected,
        )
        yield GaugeMetricFamily(
            "pointsman_config_last_reload_successful",
            "Whether the configuration that was read last is the one in use.",
            value=float(self.is_config_current),
        )
        if self.cluster is not None:
            yield from _collect_cluster(self.cluster())
        yield CounterMetricFamily(
            "pointsman_log_lines_dropped_total", "Log lines that found the buffer full.", value=self._writer.dropped
        )

    def _collect_breakers(self) -> Iterator[Metric]:
        breakers = GaugeMetricFamily(
            "pointsman_upstream_breakers",
            "Breakers of an endpoint by their state; rules with equal passive health checks share one.",
            labels=["endpoint", "state"],
        )
        ejections = CounterMetricFamily(
            "pointsman_upstream_ejections_total", "How often a breaker of an endpoint tripped.", labels=["endpoint"]
        )
        states: dict[tuple[str, State], int] = {}
        tripped: dict[str, int] = {}
        for upstream in self._registry:
            tripped[upstream.label] = tripped.get(upstream.label, 0) + upstream.ejections
            for breaker in upstream.breakers:
                key = (upstream.label, breaker.state)
                states[key] = states.get(key, 0) + 1
        for label, count in sorted(tripped.items()):
            ejections.add_metric([label], count)
            for state in State:
                breakers.add_metric([label, state.value], states.get((label, state), 0))
        yield breakers
        yield ejections
        yield from self._collect_health()

    def _collect_health(self) -> Iterator[Metric]:
        healthy = GaugeMetricFamily(
            "pointsman_upstream_healthy",
            "Whether an endpoint that is checked passes all its active health checks.",
            labels=["endpoint"],
        )
        found: dict[str, bool] = {}
        for upstream, health in self._health.states():
            found[upstream.label] = found.get(upstream.label, True) and health.is_healthy
        for label, is_healthy in sorted(found.items()):
            healthy.add_metric([label], float(is_healthy))
        yield healthy
        checks = CounterMetricFamily("pointsman_health_checks_total", "Active health checks.", labels=["finding"])
        for finding, count in self._health.done.items():
            checks.add_metric([finding.value.replace(" ", "_")], count)
        yield checks

    def _collect_limits(self) -> Iterator[Metric]:
        labels = ["route", "rule"]
        running = GaugeMetricFamily("pointsman_rule_requests_running", "Requests of a rule under way.", labels=labels)
        waiting = GaugeMetricFamily(
            "pointsman_rule_requests_waiting", "Requests of a rule that wait for their turn.", labels=labels
        )
        retries = GaugeMetricFamily("pointsman_rule_retries_running", "Retries of a rule under way.", labels=labels)
        limits = GaugeMetricFamily(
            "pointsman_rule_limit", "What a rule may have at once, by the policy's field.", labels=[*labels, "limit"]
        )
        counts: dict[tuple[str, str], list[int]] = {}
        limited: dict[tuple[str, str, str], float] = {}
        for rule in self._store.current.routing.rules:
            for name, limit in describe_limits(rule.policy.limits).items():
                limited[rule.route, rule.name, name] = limit
            traffic = self._rules.known(rule.id)
            if traffic is not None:  # a rule that differs between listeners is counted as one
                sums = counts.setdefault((rule.route, rule.name), [0, 0, 0])
                for index, value in enumerate((traffic.in_flight, traffic.waiting, traffic.retries_in_flight)):
                    sums[index] += value
        for key, (in_flight, queued, retrying) in counts.items():
            running.add_metric(list(key), in_flight)
            waiting.add_metric(list(key), queued)
            retries.add_metric(list(key), retrying)
        for limit_key, limit in limited.items():
            limits.add_metric(list(limit_key), limit)
        yield running
        yield waiting
        yield retries
        yield limits

    def _collect_mirrors(self) -> Iterator[Metric]:
        labels = ["route", "rule", "backend"]
        copies = CounterMetricFamily(
            "pointsman_mirrored_requests_total",
            "Copies of requests by mirror and status; without a status there was no answer.",
            labels=[*labels, "code"],
        )
        dropped = CounterMetricFamily(
            "pointsman_mirrors_dropped_total", "Copies that were not sent: too many were under way.", labels=labels
        )
        first_byte = HistogramMetricFamily(
            "pointsman_mirror_time_to_first_byte_seconds",
            "From a copy's start to the first byte of its answer's body.",
            labels=labels,
        )
        for key, counts in self._mirrors.items():
            for code, count in counts.statuses.items():
                copies.add_metric([*key, code], count)
            dropped.add_metric(list(key), counts.dropped)
            first_byte.add_metric(list(key), counts.first_byte.cumulative(), counts.first_byte.sum)
        yield copies
        yield dropped
        yield first_byte

    def render(self) -> bytes:
        """Everything, in the text format."""
        return prometheus_client.generate_latest(self.prometheus)


def _collect_cluster(reports: Sequence[KindReport]) -> Iterator[Metric]:
    """How well the cluster is followed, for each kind that it has."""
    stale = GaugeMetricFamily(
        "pointsman_kubernetes_stale_seconds",
        "Since the API server last said anything of a kind; about a minute at most while all is well.",
        labels=["kind"],
    )
    objects = GaugeMetricFamily("pointsman_kubernetes_objects", "Objects that are kept of a kind.", labels=["kind"])
    listed = GaugeMetricFamily(
        "pointsman_kubernetes_listed", "Whether a kind was ever listed whole; readiness needs it.", labels=["kind"]
    )
    events = CounterMetricFamily("pointsman_kubernetes_events_total", "Events of watches.", labels=["kind"])
    dropped = CounterMetricFamily(
        "pointsman_kubernetes_unreadable_events_total", "Events and objects that could not be read.", labels=["kind"]
    )
    failures = CounterMetricFamily(
        "pointsman_kubernetes_failures_total", "Lists and watches that failed.", labels=["kind"]
    )
    for report in reports:
        stale.add_metric([report.kind], report.stale_seconds)
        objects.add_metric([report.kind], report.objects)
        listed.add_metric([report.kind], float(report.is_listed))
        events.add_metric([report.kind], report.events)
        dropped.add_metric([report.kind], report.dropped)
        failures.add_metric([report.kind], report.failures)
    yield from (stale, objects, listed, events, dropped, failures)
