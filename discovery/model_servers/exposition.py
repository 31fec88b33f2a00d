"""Which samples of one metric are in a Prometheus text? Finds their lines; nothing else of 60 KB is looked at (pure).

Reading the whole page with a client library takes ten milliseconds, and a gateway reads hundreds of pages a second. A
search for one name still takes 10 µs; and since a server prints its metrics in the same order each time, each is looked
for where it stood in that server's last page (`Places`). The text format promises that the samples of one metric stand
together.
"""

from __future__ import annotations

import math
import re

from discovery.model_servers.server_load import UnusableMetricsError

MAX_SAMPLES = 1_000  # of one metric; a hundred engines have a hundred
MAX_COUNT = 1_000_000_000  # of requests or blocks; more is no count

_AFTER_NAME = (b"{", b" ", b"\t")
_BRACE = ord("{")
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n"}
_NEAR_BYTES = 500  # what stands before may have grown or shrunk by so much; beyond it the whole page is searched
_REMEMBERED_PAGES = 32
_BELIEVED_PAGES = 8
_DIGITS = 16  # bytes by which a page grows without a new line; the shortest line of a metric is longer


class Places:
    """Where the metrics of one server stood in its last page.

    That is a hint where to look: what stands there is compared. Only that a metric was absent is believed, for 8 pages
    and while their length stays the same but for a few digits: a line more is longer than that. Lest a coincidence or a
    lie lasts, everything is looked for anew on each 32nd page.
    """

    __slots__ = ("absent", "page", "starts")

    def __init__(self) -> None:
        self.page = 0  # the number of the one that is read
        self.starts: dict[bytes, int] = {}  # by the metric's name: where its first line starts
        self.absent: dict[bytes, tuple[int, int]] = {}  # by the name: from which page on, and how long that one was

    def turn(self) -> None:
        """A page is read next."""
        self.page += 1
        if not self.page % _REMEMBERED_PAGES:
            self.starts.clear()

    def is_believed_absent(self, name: bytes, length: int) -> bool:
        """Whether a page of this length need not be searched for it."""
        known = self.absent.get(name)
        return known is not None and self.page - known[0] < _BELIEVED_PAGES and abs(length - known[1]) <= _DIGITS


class Page:
    """One answer of a server."""

    __slots__ = ("_places", "text")

    def __init__(self, text: bytes, places: Places | None = None) -> None:
        """``places`` are those of the server that said it; they are kept up to date."""
        self.text = text
        self._places = Places() if places is None else places
        self._places.turn()

    def start_of(self, name: bytes) -> int:
        """Where the first line of the metric ``name`` starts; -1 when it is absent."""
        text, places = self.text, self._places
        known = places.starts.get(name)
        if known is not None:
            start = known - _NEAR_BYTES if known > _NEAR_BYTES else 0
            found = _find(text, name, start, known + _NEAR_BYTES)
            if found >= 0 and not _is_inside(text, name, found):
                places.starts[name] = found
                return found
        elif places.is_believed_absent(name, len(text)):
            return -1
        found = _find(text, name, 0, len(text))
        if found >= 0:
            places.starts[name] = found
        else:
            places.starts.pop(name, None)
            places.absent[name] = (places.page, len(text))
        return found

    def samples(self, name: bytes) -> list[tuple[bytes, bytes]]:
        """Of each sample of the metric ``name`` the labels, which are between the braces, and what stands behind."""
        found: list[tuple[bytes, bytes]] = []
        start = self.start_of(name)
        if start < 0:
            return found
        text, size = self.text, len(name)
        while len(found) < MAX_SAMPLES:
            labels, after = b"", start + size
            end = text.find(b"\n", after)
            if end < 0:
                end = len(text)
            if text[after] == _BRACE:
                closing = text.rfind(b"}", after, end)
                if closing >= 0:
                    labels, after = text[after + 1 : closing], closing + 1
            found.append((labels, text[after:end]))
            start = end + 1
            if not text.startswith(name, start) or text[start + size : start + size + 1] not in _AFTER_NAME:
                break
        return found

    def gauge(self, name: bytes, labels: bytes = b"") -> list[float]:
        """The values of a gauge, one for each engine; none when the metric is absent.

        ``labels`` is a pair as it stands in the text that a sample must have. Raises UnusableMetricsError.
        """
        samples = self.samples(name)
        return [number(value, name) for found, value in samples if labels in found] if samples else []

    def count(self, name: bytes, labels: bytes = b"") -> int:
        """The sum of a gauge that counts things; 0 when it is absent. Raises UnusableMetricsError."""
        return int(min(sum(self.gauge(name, labels)), MAX_COUNT))

    def share(self, name: bytes, labels: bytes = b"") -> float | None:
        """The mean of a gauge that is a share, 0..1; None when it is absent. Raises UnusableMetricsError."""
        values = self.gauge(name, labels)
        return min(1.0, sum(values) / len(values)) if values else None


def _is_inside(text: bytes, name: bytes, start: int) -> bool:
    """Whether the line before this one is of the same metric, so that this is not its first."""
    return start > 0 and text.startswith(name, text.rfind(b"\n", 0, start - 1) + 1)


def _find(text: bytes, name: bytes, start: int, end: int) -> int:
    """Where the first line starts, between the two, that is of exactly this metric; -1 when none is."""
    size = len(name)
    if not start and text.startswith(name) and text[size : size + 1] in _AFTER_NAME:
        return 0
    needle = b"\n" + name
    while start := text.find(needle, start, end) + 1:
        if text[start + size : start + size + 1] in _AFTER_NAME:
            return start
        # The name goes on: it is another metric's.
    return -1


def number(value: bytes, name: bytes) -> float:
    """What stands behind a sample's labels: a number, and maybe a time. Raises UnusableMetricsError for one that is no
    number, NaN, infinite or negative."""
    try:
        found = float(value)
    except ValueError:
        words = value.split(None, 1)
        try:
            found = float(words[0]) if words else math.nan
        except ValueError:
            found = math.nan
    if 0 <= found < math.inf:
        return found
    raise UnusableMetricsError(f"{name.decode()} is not a number from 0 on")


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
