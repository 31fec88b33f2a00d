"""Do Prometheus' own parsers read what is written, and does writing leave the event loop room?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from app.exposition import Family, Histogram, Row, exposition, lines, single, wants_openmetrics

ODD = 'a "quoted" \\ back\nslash'


def families() -> list[Family | Metric]:
    histogram = Histogram((0.5, 1.0))
    for value in (0.1, 0.5, 0.7):
        histogram.observe(value)
    histogram.observe_traced(3.0, "0af7651916cd43dd8448eb211c80319c", 1790000000.5)
    library = CounterMetricFamily("of_library", "From elsewhere.", labels=["kind"])
    library.add_metric([ODD], 4)
    return [
        Family(
            name="asked_total",
            kind="counter",
            help="A \\ help\nof two lines.",
            labels=("z", "a"),
            rows=[((ODD, "é"), 2)],
        ),
        single("level", "gauge", "A level.", 0.25),
        Family(name="took_seconds", kind="histogram", help="Time.", labels=("rule",), rows=[(("0",), histogram), None]),
        Family(name="bare_seconds", kind="histogram", help="Time.", rows=[((), Histogram((1.0,)))]),
        library,
    ]


@pytest.mark.parametrize("is_openmetrics", [False, True], ids=["text", "OpenMetrics"])
def test_the_parsers_of_the_standard_library_read_it(is_openmetrics: bool) -> None:
    text = "".join(lines(families(), is_openmetrics=is_openmetrics))
    read = {family.name: family for family in (read_openmetrics if is_openmetrics else read_text)(text)}
    assert {name: family.type for name, family in read.items()} == {
        "asked": "counter",
        "level": "gauge",
        "took_seconds": "histogram",
        "bare_seconds": "histogram",
        "of_library": "counter",
    }
    (asked,) = read["asked"].samples
    assert (asked.name, asked.labels, asked.value) == ("asked_total", {"z": ODD, "a": "é"}, 2)
    assert read["asked"].documentation == "A \\ help\nof two lines."
    took = {(sample.name, sample.labels.get("le")): sample for sample in read["took_seconds"].samples}
    assert {key: sample.value for key, sample in took.items()} == {
        ("took_seconds_bucket", "0.5"): 2,
        ("took_seconds_bucket", "1.0"): 3,
        ("took_seconds_bucket", "+Inf"): 4,
        ("took_seconds_count", None): 4,
        ("took_seconds_sum", None): pytest.approx(4.3),
    }
    example = took["took_seconds_bucket", "+Inf"].exemplar
    if is_openmetrics:
        assert example is not None
        assert (example.labels, example.value) == ({"trace_id": "0af7651916cd43dd8448eb211c80319c"}, 3.0)
    else:
        assert "#" not in text.replace("# HELP", "").replace("# TYPE", "")
    assert read["of_library"].samples[0].labels == {"kind": ODD}
    assert "_created" not in text


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        pytest.param("", False, id="nothing"),
        pytest.param("*/*", False, id="anything"),
        pytest.param("text/plain", False, id="text"),
        pytest.param(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
            id="Prometheus",
        ),
        pytest.param("text/plain, application/openmetrics-text;q=0.5", False, id="text rather"),
        pytest.param("application/openmetrics-text;q=0", False, id="not at all"),
        pytest.param("application/openmetrics-text;q=x", False, id="nonsense"),
    ],
)
def test_negotiation(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


@pytest.mark.anyio
async def test_others_have_their_turn_after_every_slice() -> None:
    now = 0.0
    turns: list[float] = []

    def rows() -> Iterator[Row | None]:
        nonlocal now
        for number in range(1_000):
            now += 0.0001
            yield ((str(number),), number)

    async def other() -> None:
        while True:
            turns.append(now)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    family = Family(name="n", kind="gauge", help="", labels=("i",), rows=rows())
    text = b"".join(
        [part async for part in exposition([family], is_openmetrics=False, slice_seconds=0.001, clock=lambda: now)]
    )
    task.cancel()
    assert text.count(b"\n") == 1_002
    gaps = [after - before for before, after in pairwise(turns)]
    assert len(turns) >= 90
    assert max(gaps) < 0.0012


@pytest.mark.anyio
async def test_a_large_exposition_comes_in_parts() -> None:
    family = Family(name="n", kind="gauge", help="", labels=("i",), rows=[((str(i),), i) for i in range(10_000)])
    sizes = [len(part) async for part in exposition([family], is_openmetrics=True)]
    assert len(sizes) > 2
    assert max(sizes) < 70_000
