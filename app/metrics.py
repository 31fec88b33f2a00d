"""What is counted? Requests, durations, attempts and state, in Prometheus' words.

Counters and histograms are kept as children per (rule, backend, model, code, reason), so that a request costs no label
look-up by name; state (what is in flight) is read by a collector at scrape time.
"""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.logs import LineWriter, logged_status
from discovery.snapshot import Snapshot, SnapshotStore
from middleware.exchange import Exchange
from middleware.upstream.registry import UpstreamRegistry

MAX_MODEL_LABELS = 1_000
OTHER = "other"

# Model answers take from milliseconds (an embedding) to many minutes (a long reasoning answer).
_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series beside each counter would double what is scraped


class _StateCollector(Collector):
    """Reads what is true now, when it is asked for."""

    def __init__(self, metrics: Metrics, registry: UpstreamRegistry, writer: LineWriter) -> None:
        self._metrics = metrics
        self._registry = registry
        self._writer = writer

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "pointsman_requests_in_flight", "Requests being answered now.", value=self._metrics.requests_in_flight
        )
        upstreams = GaugeMetricFamily(
            "pointsman_upstream_in_flight", "Attempts running at an endpoint now.", labels=["endpoint"]
        )
        totals: dict[str, int] = {}
        for upstream in self._registry:
            totals[upstream.label] = totals.get(upstream.label, 0) + upstream.in_flight
        for label, total in sorted(totals.items()):
            upstreams.add_metric([label], total)
        yield upstreams
        dropped = prometheus_client.metrics_core.CounterMetricFamily(
            "pointsman_log_lines_dropped_total", "Log lines that found the buffer full.", value=self._writer.dropped
        )
        yield dropped


class Metrics:
    """An observer of exchanges that counts them. One per gateway, with a registry of its own."""

    def __init__(self, *, store: SnapshotStore, registry: UpstreamRegistry, writer: LineWriter) -> None:
        self.prometheus = CollectorRegistry()
        self._store = store
        self.requests_in_flight = 0
        self._requests = Counter(
            "pointsman_requests_total",
            "Requests by rule, backend and how they ended.",
            ["route", "rule", "backend", "model", "code", "reason"],
            registry=self.prometheus,
        )
        self._duration = Histogram(
            "pointsman_request_duration_seconds",
            "From the request's head to the end of its answer.",
            ["route", "rule"],
            buckets=_DURATION_BUCKETS,
            registry=self.prometheus,
        )
        self._first_byte = Histogram(
            "pointsman_time_to_first_byte_seconds",
            "From the request's head to the first byte of its answer's body.",
            ["route", "rule"],
            buckets=_DURATION_BUCKETS,
            registry=self.prometheus,
        )
        self._attempts = Counter(
            "pointsman_attempts_total",
            "Tries at an endpoint and how they ended.",
            ["route", "rule", "backend", "outcome"],
            registry=self.prometheus,
        )
        self.config_rejected = Counter(
            "pointsman_config_rejected_total",
            "Configurations that were refused, once per new content.",
            registry=self.prometheus,
        )
        self.config_last_reload_successful = Gauge(
            "pointsman_config_last_reload_successful",
            "Whether the configuration that was read last is the one in use.",
            registry=self.prometheus,
        )
        self.prometheus.register(_StateCollector(self, registry, writer))
        self._model_labels: set[str] = set()
        self._request_children: dict[tuple[str, str, str, int, str], Counter] = {}
        self._attempt_children: dict[tuple[str, str, str], Counter] = {}
        self._histogram_children: dict[str, tuple[Histogram, Histogram]] = {}
        store.subscribe(self._follow)

    def _follow(self, snapshot: Snapshot) -> None:
        # Children are looked up anew: a rule id may mean another rule.
        self._request_children.clear()
        self._attempt_children.clear()
        self._histogram_children.clear()

    def started(self, exchange: Exchange) -> None:
        """A request came."""
        self.requests_in_flight += 1

    def finished(self, exchange: Exchange) -> None:
        """Count a request that is over."""
        self.requests_in_flight -= 1
        rule = exchange.rule
        rule_id, route, name = (rule.id, rule.route, rule.name) if rule is not None else ("", "", "")
        attempts = exchange.attempts
        backend = attempts[-1].pick.backend_ref.name if attempts else ""
        status = 499 if exchange.client_left else logged_status(exchange)
        model = self._model_label(exchange.model)
        key = (rule_id, backend, model, status, exchange.reason.value)
        child = self._request_children.get(key)
        if child is None:
            child = self._requests.labels(route, name, backend, model, str(status), exchange.reason.value)
            self._request_children[key] = child
        child.inc()
        for attempt in attempts:
            attempt_key = (rule_id, attempt.pick.backend_ref.name, attempt.outcome.value)
            attempt_child = self._attempt_children.get(attempt_key)
            if attempt_child is None:
                attempt_child = self._attempts.labels(route, name, attempt_key[1], attempt_key[2])
                self._attempt_children[attempt_key] = attempt_child
            attempt_child.inc()
        histograms = self._histogram_children.get(rule_id)
        if histograms is None:
            histograms = (self._duration.labels(route, name), self._first_byte.labels(route, name))
            self._histogram_children[rule_id] = histograms
        assert exchange.ended_at is not None
        histograms[0].observe(exchange.ended_at - exchange.started_at)
        if exchange.first_byte_at is not None:
            histograms[1].observe(exchange.first_byte_at - exchange.started_at)

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

    def render(self) -> bytes:
        """Everything, in the text format."""
        return prometheus_client.generate_latest(self.prometheus)
