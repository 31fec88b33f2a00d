"""Do the traces arrive? Watches over the exporter: one line when the collector takes none, one when it does again.

Runs in the batch processor's thread, so that a collector that is down, slow or broken costs the requests nothing; what
does not fit into the processor's queue meanwhile is dropped there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from app.tracing.collector_session import LastStatus
from app.tracing.counts import DeliveryCounts

# They say every failed batch, every retry and every dropped span, from threads of their own.
_NOISY = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.sdk.trace.export", "urllib3")


class Delivery(SpanExporter):
    """An exporter that counts, and tells ``tell`` once when deliveries begin to fail and once when they work again."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        collector: str,
        counts: DeliveryCounts,
        tell: Callable[[int, str], None],
        status: LastStatus,
    ) -> None:
        self._exporter = exporter
        self._collector = collector
        self._counts = counts
        self._tell = tell
        self._is_failing = False
        self._status = status
        self._silence = _Silence()
        for name in _NOISY:
            logger = logging.getLogger(name)
            logger.handlers = [one for one in logger.handlers if not isinstance(one, _Silence)]
            logger.addHandler(self._silence)
            logger.propagate = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver one batch."""
        self._status.code = None
        why = "does not answer"
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # such as a certificate's file that is not there; the text may hold anything
            result = SpanExportResult.FAILURE
            why = f"cannot be sent to ({type(error).__name__})"
        if result is SpanExportResult.SUCCESS:
            self._counts.delivered += len(spans)
            if self._is_failing:
                self._is_failing = False
                self._tell(logging.INFO, f"the trace collector at {self._collector} takes traces again")
            return result
        self._counts.lost += len(spans)
        if not self._is_failing:
            self._is_failing = True
            if self._status.code is not None:
                why = f"answers {self._status.code}"
            self._tell(
                logging.WARNING,
                f"the trace collector at {self._collector} {why}: traces are lost until it takes them, requests go on",
            )
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()  # its thread may still have something to say: the noise goes on being taken

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)


class _Silence(logging.Handler):
    """Takes the noise."""

    def emit(self, record: logging.LogRecord) -> None:
        pass
