"""Which samples of one metric are in a Prometheus text? Finds their lines; nothing else of 60 KB is looked at (pure).

A search for a name costs 10 µs, reading the whole page with a client library takes ten milliseconds, and a gateway
reads hundreds of pages a second. The text format promises that the samples of one metric stand together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from discovery.model_servers.server_load import UnusableMetricsError

MAX_SAMPLES = 1_000  # of one metric; a hundred engines have a hundred
MAX_COUNT = 1_000_000_000  # of requests or blocks; more is no count

_AFTER_NAME = (b"{", b" ", b"\t")
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n"}


def samples(text: bytes, name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The labels (what is between the braces) and the value of each sample of the metric ``name``, unread."""
    needle = b"\n" + name
    if text.startswith(name) and text[len(name) : len(name) + 1] in _AFTER_NAME:
        start = 0
    else:
        start = text.find(needle) + 1
        while start and text[start + len(name) : start + len(name) + 1] not in _AFTER_NAME:  # the name goes on
            start = text.find(needle, start) + 1
        if not start:
            return
    for _ in range(MAX_SAMPLES):
        end = text.find(b"\n", start)
        line = text[start : end if end >= 0 else len(text)]
        labels, value = b"", line[len(name) :]
        if value[:1] == b"{":
            closing = value.rfind(b"}")
            labels, value = value[1:closing], value[closing + 1 :]
        parts = value.split(None, 1)
        yield labels, parts[0] if parts else b""
        start = end + 1
        if (
            end < 0
            or not text.startswith(name, start)
            or text[start + len(name) : start + len(name) + 1] not in _AFTER_NAME
        ):
            return


def gauge(text: bytes, name: bytes, labels: bytes = b"") -> list[float]:
    """The values of a gauge, one for each engine; none when the metric is absent.

    ``labels`` is a pair as it stands in the text that a sample must have. Raises UnusableMetricsError.
    """
    return [number(value, name) for found, value in samples(text, name) if labels in found]


def count(text: bytes, name: bytes, labels: bytes = b"") -> int:
    """The sum of a gauge that counts things; 0 when it is absent. Raises UnusableMetricsError."""
    return int(min(sum(gauge(text, name, labels)), MAX_COUNT))


def share(text: bytes, name: bytes, labels: bytes = b"") -> float:
    """The mean of a gauge that is a share, 0..1; 0 when it is absent. Raises UnusableMetricsError."""
    values = gauge(text, name, labels)
    return min(1.0, sum(values) / len(values)) if values else 0.0


def number(value: bytes, name: bytes) -> float:
    """A sample's value. Raises UnusableMetricsError for one that is no number, NaN, infinite or negative."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise UnusableMetricsError(f"{name.decode()} is not a number from 0 on")
    return found


def read_labels(labels: bytes) -> dict[str, str]:
    """The labels of one sample."""
    return {
        name.decode(): _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), value.decode("utf-8", "replace"))
        for name, value in _LABEL.findall(labels)
    }


def whole_number(text: str | None) -> int:
    """A label's value that counts things; 0 when it is absent or no such number ("None")."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        return 0
    return int(text)
