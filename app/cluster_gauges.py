"""How well is the cluster followed? For each kind that it has, at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from app.exposition import Family
from discovery.sources.kubernetes import KindReport


def of_cluster(reports: Sequence[KindReport]) -> Iterator[Family]:
    """All of it, by kind."""

    def told(name: str, kind: Literal["counter", "gauge"], text: str, tell: Callable[[KindReport], float]) -> Family:
        rows = [((report.kind,), tell(report)) for report in reports]
        return Family(name=f"pointsman_kubernetes_{name}", kind=kind, help=text, labels=("kind",), rows=rows)

    yield told(
        "stale_seconds",
        "gauge",
        "Since the API server last said anything of a kind; about a minute at most while all is well.",
        lambda report: report.stale_seconds,
    )
    yield told("objects", "gauge", "Objects that are kept of a kind.", lambda report: report.objects)
    yield told(
        "listed",
        "gauge",
        "Whether a kind was ever listed whole; readiness needs it.",
        lambda report: report.is_listed,
    )
    yield told("events_total", "counter", "Events of watches.", lambda report: report.events)
    yield told(
        "unreadable_events_total",
        "counter",
        "Events and objects that could not be read.",
        lambda report: report.dropped,
    )
    yield told("failures_total", "counter", "Lists and watches that failed.", lambda report: report.failures)
