"""Which metrics are there? docs/metrics.md, made from the families that /metrics tells (`make docs`)."""

from __future__ import annotations

import sys

from prometheus_client.core import Metric

from app.counting import MAX_MODEL_LABELS
from app.exposition import Family
from app.gauges import Gauges
from app.logs import LineWriter
from app.main import make_transport
from app.metrics import Metrics
from app.tracing.counts import DeliveryCounts
from discovery.snapshot import SnapshotStore
from middleware.model_extraction import BodyMemory
from middleware.rate_limits import RateLimiter
from middleware.upstream.health_check import HealthChecks
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry

_HEAD = f"""\
<!-- Made from the code by `make docs`. -->
# Metrics

`GET /metrics` on the admin port, in Prometheus' text format, or in OpenMetrics where the Accept field asks for it:
then the buckets of durations have exemplars with the `trace_id` of a sampled request. There are no `_created` series.
A histogram has `_bucket`, `_sum` and `_count`.

| label | |
|---|---|
| `route`, `rule` | the route's `namespace/name`, and the rule's name or else its index; empty where no rule matched |
| `backend` | `namespace/name` of the backendRef that had the last attempt; empty where there was none |
| `model` | as the client named it; only configured names, at most {MAX_MODEL_LABELS:,}, then `other` |
| `endpoint` | `address:port` of a pod |
| `kind` | of a backend; of Kubernetes objects, with `--kubernetes` alone |
| `code` | the status of the answer; 499 when the client left before it |
| `reason` | of [errors.md](errors.md); empty for none |

Series of a rule or a model end when the configuration does not name it any more. A request that ends later
brings those of its rule back, until the next change. A Grafana dashboard and alerts over
these metrics are in `k8s/components/` ([deploy.md](deploy.md#prometheus)).

"""


def document() -> str:
    """The page."""
    rows = ["| metric | type | labels | |", "|---|---|---|---|"]
    library = []
    for family in _metrics().families():
        if isinstance(family, Family):
            labels = ", ".join(family.labels)
            rows.append(f"| `{family.name}` | {family.kind} | {labels} | {_cell(family.help)} |")
        else:
            library.append(f"`{_name(family)}`")
    return _HEAD + "\n".join(rows) + "\n\nAnd of the process, on Linux: " + ", ".join(library) + ".\n"


def _metrics() -> Metrics:
    store = SnapshotStore()
    registry = UpstreamRegistry(make_transport=make_transport)
    gauges = Gauges(
        store=store,
        registry=registry,
        rules=RuleTrafficRegistry(),
        limiter=RateLimiter(),
        health=HealthChecks(registry=registry, make_transport=make_transport),
        memory=BodyMemory(limit_bytes=0),
        spans=DeliveryCounts(),
    )
    writer = LineWriter()
    writer.close()
    metrics = Metrics(gauges=gauges, writer=writer)
    metrics.cluster = list
    return metrics


def _name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
