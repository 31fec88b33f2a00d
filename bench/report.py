"""How are the figures shown? Medians over the rounds with their spread, as a table and as JSON (pure)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.client import Measurement
from bench.loads import Load
from bench.memory import IDLE_LIMIT_BYTES, STREAM_LIMIT_BYTES, MemoryUse

DIRECT, OURS, ENVOY, OTHER = "direct", "pointsman", "envoy", "other"


@dataclass(slots=True, kw_only=True)
class LoadResult:
    """One load's measurements, a list per server, in the order of the rounds."""

    load: Load
    under_load: dict[str, list[Measurement]] = field(default_factory=dict)
    alone: dict[str, list[Measurement]] = field(default_factory=dict)
    """With one client instead of many; none for streams that are paced anyway."""

    def costs(self, server: str) -> list[float]:
        """Microseconds of CPU per request or event."""
        return [measured.cpu_per_unit * 1e6 for measured in self.under_load[server]]

    def ratios(self, server: str) -> list[float]:
        """Our cost in multiples of another server's, each of one round: drift of the machine hits both."""
        return [ours / other for ours, other in zip(self.costs(OURS), self.costs(server), strict=True)]

    def latency(self, server: str, share: float) -> float:
        """A percentile under load in milliseconds; of the rounds the median."""
        return statistics.median(m.percentile(share) * 1e3 for m in self.under_load[server])

    def latency_alone(self, server: str) -> float:
        """The median of a single client in milliseconds."""
        return statistics.median(m.percentile(0.5) * 1e3 for m in self.alone[server])


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    table = list(rows)
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def cpu_table(results: Sequence[LoadResult]) -> list[str]:
    """CPU per request, and the ratios beside what issue 2 allows."""
    servers = [name for name in results[0].under_load if name != DIRECT]
    others = [name for name in servers if name != OURS]
    rows = [["CPU, µs", *servers, *(f"{OURS} / {name}" for name in others), "allowed" if ENVOY in others else ""]]
    for result in results:
        row = [f"{result.load.title}, per {result.load.unit}"]
        row += [_spread(result.costs(name), 0) for name in servers]
        row += [_spread(result.ratios(name), 2) for name in others]
        verdict = ""
        if ENVOY in others:
            is_kept = statistics.median(result.ratios(ENVOY)) <= result.load.ratio_target
            verdict = f"{result.load.ratio_target} {'kept' if is_kept else 'MISSED'}"
        rows.append([*row, verdict])
    return _columns(rows)


def latency_table(results: Sequence[LoadResult]) -> list[str]:
    """What a gateway adds to a direct answer."""
    servers = list(results[0].under_load)
    rows = [["latency, ms: direct, then what is added", *(f"{name} p50 / p99" for name in servers)]]
    for result in results:
        cells = (" / ".join(_added(result, name, share) for share in (0.5, 0.99)) for name in servers)
        rows.append([result.load.title, *cells])
        if result.alone:
            added = [result.latency_alone(name) - result.latency_alone(DIRECT) for name in servers[1:]]
            rows.append(["   one client", f"{result.latency_alone(DIRECT):.2f}", *(f"{value:+.2f}" for value in added)])
    return _columns(rows)


def _added(result: LoadResult, server: str, share: float) -> str:
    if server == DIRECT:
        return f"{result.latency(DIRECT, share):.2f}"
    return f"{result.latency(server, share) - result.latency(DIRECT, share):+.2f}"


def memory_table(memory: Mapping[str, MemoryUse]) -> list[str]:
    """Resident memory, and what issue 2 allows."""
    rows = [["memory", "idle, MB", "per open stream, KB"]]
    for name, use in memory.items():
        rows.append([name, f"{use.idle / 1e6:.1f}", f"{use.per_stream / 1e3:.1f} ({use.streams} streams)"])
    ours = memory[OURS]
    idle = f"{IDLE_LIMIT_BYTES / 1e6:.0f} {'kept' if ours.idle < IDLE_LIMIT_BYTES else 'MISSED'}"
    stream = f"{STREAM_LIMIT_BYTES / 1e3:.0f} {'kept' if ours.per_stream < STREAM_LIMIT_BYTES else 'MISSED'}"
    return _columns([*rows, ["allowed", idle, stream]])


def as_json(results: Sequence[LoadResult], memory: Mapping[str, MemoryUse]) -> dict[str, Any]:
    """Every round's figures: CPU in µs, latency in ms, memory in bytes."""
    return {
        "loads": {
            result.load.name: {
                "unit": result.load.unit,
                "ratio_allowed": result.load.ratio_target,
                "servers": {name: _server(result, name) for name in result.under_load},
            }
            for result in results
        },
        "memory": {
            name: {"idle": use.idle, "per_stream": use.per_stream, "streams": use.streams}
            for name, use in memory.items()
        },
    }


def _server(result: LoadResult, name: str) -> dict[str, Any]:
    measured = result.under_load[name]
    return {
        "count": [m.count for m in measured],
        "seconds": [m.seconds for m in measured],
        "cpu_us": result.costs(name),
        "p50_ms": [m.percentile(0.5) * 1e3 for m in measured],
        "p99_ms": [m.percentile(0.99) * 1e3 for m in measured],
        "alone_p50_ms": [m.percentile(0.5) * 1e3 for m in result.alone.get(name, ())],
        "ratio": result.ratios(name) if name not in (DIRECT, OURS) else None,
    }
