"""What does /metrics tell? Counts of requests, the state of the gateway, and how its configuration fares.

docs/metrics.md is made from the families here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector

from app.cluster_gauges import of_cluster
from app.counting import RequestCounts
from app.exposition import Family, exposition, single
from app.gauges import Gauges
from app.logs import LineWriter
from app.loop_lag import LoopLag
from discovery.sources.kubernetes import KindReport


class Metrics:
    """An observer of exchanges and mirrors that counts them, and everything that a scrape is told."""

    def __init__(self, *, gauges: Gauges, writer: LineWriter) -> None:
        self._gauges = gauges
        self._writer = writer
        self._counts = RequestCounts(store=gauges.store)
        self._process = ProcessCollector(registry=CollectorRegistry())
        self.loop_lag = LoopLag()
        self.cluster: Callable[[], Sequence[KindReport]] | None = None  # set where a cluster is followed
        self.config_rejected = 0
        self.is_config_current = False
        self.started = self._counts.started
        self.finished = self._counts.finished
        self.mirrored = self._counts.mirrored
        self.follow = self._counts.follow

    @property
    def requests_in_flight(self) -> int:
        """Requests being answered now."""
        return self._counts.in_flight

    def families(self) -> Iterator[Family | Metric]:
        """Everything, in the order in which it is written."""
        yield from self._counts.families()
        yield single("pointsman_requests_in_flight", "gauge", "Requests being answered now.", self._counts.in_flight)
        yield from self._gauges.families()
        yield single(
            "pointsman_config_rejected_total",
            "counter",
            "Configurations that were refused, once per new content.",
            self.config_rejected,
        )
        yield single(
            "pointsman_config_last_reload_successful",
            "gauge",
            "Whether the configuration that was read last is the one in use.",
            self.is_config_current,
        )
        if self.cluster is not None:
            yield from of_cluster(self.cluster())
        yield self.loop_lag.family()
        yield single(
            "pointsman_log_lines_dropped_total",
            "counter",
            "Log lines that found the buffer full.",
            self._writer.dropped,
        )
        yield from self._process.collect()

    def render(self, *, is_openmetrics: bool = False) -> AsyncIterator[bytes]:
        """The exposition in parts, made in short slices."""
        return exposition(self.families(), is_openmetrics=is_openmetrics)
