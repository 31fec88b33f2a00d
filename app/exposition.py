"""How are metrics written down? Prometheus' text format and OpenMetrics, in short slices.

A gateway of 10,000 models has a million lines to write. A family's rows come from a generator that is asked for one
after the other, and the event loop gets its turn whenever a slice is over: a scrape must not hold up a stream.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client.core import Metric

SLICE_SECONDS = 0.001
PART_BYTES = 64 * 1024

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exemplar(NamedTuple):
    """One observation whose trace can be looked at."""

    trace_id: str
    value: float
    unix: float


class Histogram:
    """Counts per bucket: a list to bump, a fraction of what a locked metric object costs."""

    __slots__ = ("bounds", "buckets", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] | None = None  # the newest of each bucket

    def observe(self, value: float) -> None:
        """Count one value."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_traced(self, value: float, trace_id: str, unix: float) -> None:
        """Count one value, and remember its trace as an example of its bucket."""
        index = bisect_left(self.bounds, value)
        self.buckets[index] += 1
        self.sum += value
        if self.exemplars is None:
            self.exemplars = {}
        self.exemplars[index] = Exemplar(trace_id, value, unix)


Row = tuple[tuple[str, ...], float | Histogram]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric and its rows, which are made while they are written. A counter's ``name`` ends with `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    rows: Iterable[Row | None] = ()  # None: nothing to write, but time has passed


def single(name: str, kind: Literal["counter", "gauge"], text: str, value: float) -> Family:
    """A metric without labels."""
    return Family(name=name, kind=kind, help=text, rows=[((), value)])


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept field likes OpenMetrics at least as much as text (RFC 9110 section 12.5.1)."""
    qualities = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, _, parameters = part.strip().partition(";")
        if kind.strip() in qualities:
            quality = 1.0
            for parameter in parameters.split(";"):
                name, _, value = parameter.strip().partition("=")
                if name == "q":
                    try:
                        quality = float(value)
                    except ValueError:
                        quality = 0.0
            qualities[kind.strip()] = max(qualities[kind.strip()], quality)
    openmetrics, text = qualities.values()
    return openmetrics > 0 and openmetrics >= text


def lines(families: Iterable[Family | Metric], *, is_openmetrics: bool) -> Iterator[str]:
    """The exposition piece by piece, each ending with a line break or empty."""
    for family in families:
        if isinstance(family, Family):
            name = family.name.removesuffix("_total") if is_openmetrics else family.name
            yield f"# HELP {name} {_escaped(family.help)}\n# TYPE {name} {family.kind}\n"
            # In the order of their names, as other exporters have it.
            order = sorted(range(len(family.labels)), key=family.labels.__getitem__)
            names = [f'{family.labels[index]}="' for index in order]
            for row in family.rows:
                if row is None:
                    yield ""
                    continue
                values, value = row
                labels = ",".join(
                    [f'{name}{_quoted(values[index])}"' for name, index in zip(names, order, strict=True)]
                )
                if isinstance(value, Histogram):
                    yield _histogram(family.name, labels, value, is_openmetrics=is_openmetrics)
                elif labels:
                    yield f"{family.name}{{{labels}}} {float(value)!r}\n"
                else:
                    yield f"{family.name} {float(value)!r}\n"
        else:
            yield from _of_library(family, is_openmetrics=is_openmetrics)
    if is_openmetrics:
        yield "# EOF\n"


async def exposition(
    families: Iterable[Family | Metric],
    *,
    is_openmetrics: bool,
    slice_seconds: float = SLICE_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> AsyncIterator[bytes]:
    """The same in parts; whenever a slice is over, everything else that the event loop has to do comes first."""
    parts: list[str] = []
    size = 0
    end = clock() + slice_seconds
    for line in lines(families, is_openmetrics=is_openmetrics):
        parts.append(line)
        size += len(line)
        if size >= PART_BYTES:
            yield "".join(parts).encode()
            parts.clear()
            size = 0
        if clock() >= end:
            await asyncio.sleep(0)
            end = clock() + slice_seconds
    yield "".join(parts).encode()


def _histogram(name: str, labels: str, histogram: Histogram, *, is_openmetrics: bool) -> str:
    before = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
    counts = list(accumulate(histogram.buckets))
    exemplars = histogram.exemplars if is_openmetrics else None
    if exemplars is None:
        text = "".join(
            [f'{before}le="{bound}"}} {count}.0\n' for bound, count in zip(_bounds(histogram), counts, strict=True)]
        )
    else:
        written = []
        for index, (bound, count) in enumerate(zip(_bounds(histogram), counts, strict=True)):
            example = exemplars.get(index)
            more = "" if example is None else f' # {{trace_id="{example[0]}"}} {example[1]!r} {example[2]:.3f}'
            written.append(f'{before}le="{bound}"}} {count}.0{more}\n')
        text = "".join(written)
    of = f"{{{labels}}}" if labels else ""
    return f"{text}{name}_count{of} {counts[-1]}.0\n{name}_sum{of} {histogram.sum!r}\n"


_written_bounds: dict[tuple[float, ...], list[str]] = {}


def _bounds(histogram: Histogram) -> list[str]:
    written = _written_bounds.get(histogram.bounds)
    if written is None:
        written = _written_bounds[histogram.bounds] = [*(repr(float(bound)) for bound in histogram.bounds), "+Inf"]
    return written


def _of_library(metric: Metric, *, is_openmetrics: bool) -> Iterator[str]:
    name = metric.name if is_openmetrics or metric.type != "counter" else f"{metric.name}_total"
    yield f"# HELP {name} {_escaped(metric.documentation)}\n# TYPE {name} {metric.type}\n"
    for sample in metric.samples:
        labels = ",".join(f'{key}="{_quoted(value)}"' for key, value in sorted(sample.labels.items()))
        yield (
            f"{sample.name}{{{labels}}} {float(sample.value)!r}\n"
            if labels
            else (f"{sample.name} {float(sample.value)!r}\n")
        )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    if '"' in value or "\\" in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value
