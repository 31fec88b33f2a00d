"""What may the SDK say in our log? Nothing that repeats a credential, and nothing that clients choose."""

from __future__ import annotations

import logging

# Repeats the members of a client's tracestate, on every request.
_CLIENTS_WORDS = logging.getLogger("opentelemetry.trace.span")
# Repeats entries of OTEL_EXPORTER_OTLP_HEADERS that it cannot read, keys included.
_HEADERS = logging.getLogger("opentelemetry.util.re")


def _without_the_entry(record: logging.LogRecord) -> bool:
    record.msg = "OTEL_EXPORTER_OTLP_HEADERS: an entry that is not NAME=VALUE, URL encoded, is left out"
    record.args = ()
    return True


def _nothing(record: logging.LogRecord) -> bool:
    return False


def guard_sdk_words() -> None:
    """From here on the SDK's own lines hold neither. Safe to call twice."""
    _CLIENTS_WORDS.addFilter(_nothing)
    _HEADERS.addFilter(_without_the_entry)


def release_sdk_words() -> None:
    """Undo it."""
    _CLIENTS_WORDS.removeFilter(_nothing)
    _HEADERS.removeFilter(_without_the_entry)
