"""Durations of GEP-2257 and quantities of Kubernetes."""

from __future__ import annotations

import pytest

from discovery.resources.quantities import parse_duration, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("0s", 0, id="zero"),
        pytest.param("24h", 86400, id="hours"),
        pytest.param("1h30m", 5400, id="hours-and-minutes"),
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("1m1s1ms", 61.001, id="all"),
    ],
)
def test_durations_add_up_to_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "1.5h", "-1s", "1us", "100000s", "1h1h1h1h1h", "1d"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        pytest.param("20Mi", 20 * 1024**2, id="binary"),
        pytest.param("1G", 10**9, id="decimal"),
        pytest.param("1Ei", 1024**6, id="largest"),
        pytest.param("1.5Ki", 1536, id="fraction"),
        pytest.param("1e6", 10**6, id="exponent"),
        pytest.param("25E-1", 3, id="negative-exponent-rounded-up"),
        pytest.param("1500m", 2, id="thousandths-rounded-up"),
        pytest.param("5.", 5, id="trailing-point"),
        pytest.param("32768", 32768, id="plain-string"),
        pytest.param(32768, 32768, id="plain-integer"),
    ],
)
def test_quantities_are_whole_bytes(value: int | str, size: int) -> None:
    assert parse_quantity(value) == size


@pytest.mark.parametrize("value", ["", "Mi", "-1", -1, "1 Mi", "1KB"])
def test_other_quantities_are_refused(value: int | str) -> None:
    with pytest.raises(ValueError, match=r"not a quantity|negative"):
        parse_quantity(value)
