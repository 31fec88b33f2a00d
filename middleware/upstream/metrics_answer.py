"""What does an endpoint's answer to `GET /metrics` say? Its reading, that it has no metrics, or why it cannot be read
(pure)."""

from __future__ import annotations

import zlib

from discovery.model_servers.engines import read_metrics
from discovery.model_servers.exposition import Places
from discovery.model_servers.server_load import ServerLoad
from middleware.upstream.transport import Answer

MAX_METRICS_BYTES = 4 * 1024 * 1024
_NO_METRICS = frozenset({404, 405, 501})


class UnreadableError(Exception):
    """An answer that gave nothing; the message says why."""


def read_answer(answer: Answer, engine: str | None, places: Places) -> tuple[ServerLoad | None, str | None]:
    """The reading, None where there are no metrics; and the engine. Both arguments are as for `read_metrics`.

    Raises UnreadableError and UnusableMetricsError.
    """
    if answer.status in _NO_METRICS:
        return None, engine
    if answer.status != 200:
        raise UnreadableError(f"status {answer.status}")
    if not answer.is_whole:
        raise UnreadableError(f"more than {MAX_METRICS_BYTES // 2**20} MiB of metrics")
    text = answer.body
    for name, value in answer.headers:
        if name == b"content-encoding":
            text = _decoded(text, value)
    return read_metrics(text, engine, places)


def _decoded(content: bytes, coding: bytes) -> bytes:
    """What was said, without its coding: some servers and sidecars compress for those who do not ask for it, too.

    Raises UnreadableError: what cannot be read must not be taken for the metrics of an idle server.
    """
    coding = coding.strip().lower()
    if not content or coding in (b"", b"identity"):
        return content
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise UnreadableError("metrics in a coding that was not asked for")
    decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)  # gzip or zlib, by the header
    try:
        text = decoder.decompress(content, MAX_METRICS_BYTES)
    except zlib.error:
        raise UnreadableError("the metrics' compression is broken") from None
    if decoder.unconsumed_tail:
        raise UnreadableError(f"more than {MAX_METRICS_BYTES // 2**20} MiB of metrics")
    if not decoder.eof:
        raise UnreadableError("the metrics' compression is broken")
    return text
