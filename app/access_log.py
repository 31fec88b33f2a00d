"""What is logged of a request? One line when it is over: where it went, how it ended and what it took.

The path is logged without its query, and no header, body or credential ever is.
"""

from __future__ import annotations

import msgspec

from app.logs import LineWriter, printable, timestamp
from middleware.exchange import Exchange
from middleware.upstream.outcome import Attempt


class AccessLine(msgspec.Struct):
    """The fields of a request's line, in their order. Times are in milliseconds since the request's head was read.

    A Struct, since a request pays for its line: a dict of as many fields takes eight times as long to make.
    """

    time: str
    level: str
    message: str
    request_id: str
    client: str
    method: str
    host: str
    path: str
    model: str | None
    upstream_model: str | None
    route: str | None
    rule: str | None
    backend: str | None
    endpoint: str | None
    pod: str | None
    attempts: int
    retried: list[str] | None
    status: int
    reason: str
    flag: str
    error: str | None
    bytes_received: int
    bytes_sent: int
    duration_ms: float | None
    read_ms: float | None
    attempt_ms: float | None
    first_byte_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    trace_id: str | None


_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes one line per request."""

    def __init__(self, writer: LineWriter, *, is_readable: bool) -> None:
        self._write = writer.write
        self._format = _readable if is_readable else _encode

    def started(self, exchange: Exchange) -> None:
        """Nothing: the line is written when all is known."""

    def finished(self, exchange: Exchange) -> None:
        """Write the request's line."""
        self._write(self._format(access_line(exchange)))


def final_status(exchange: Exchange) -> int:
    """The status that a request is logged and counted with: its answer's, or 499 when the client left."""
    return 499 if exchange.client_left or exchange.status is None else exchange.status


def access_line(exchange: Exchange) -> AccessLine:
    """What is logged of a request."""
    rule, attempts, started_at = exchange.rule, exchange.attempts, exchange.started_at
    last = attempts[-1] if attempts else None
    pick = last.pick if last is not None else None
    return AccessLine(
        timestamp(exchange.started_unix),
        "info",
        "request",
        exchange.request_id,
        exchange.peer,
        exchange.method,
        exchange.host.decode("latin-1"),
        exchange.raw_path.decode("latin-1"),
        exchange.model,
        last.model if last is not None else None,
        rule.route if rule is not None else None,
        rule.name if rule is not None else None,
        pick.backend_ref.name if pick is not None else None,
        pick.upstream.label if pick is not None else None,
        pick.endpoint.pod if pick is not None else None,
        len(attempts),
        [_failed(attempt) for attempt in attempts[:-1]] if len(attempts) > 1 else None,
        final_status(exchange),
        exchange.reason,
        exchange.flag,
        exchange.message or None,
        exchange.body_size,
        exchange.bytes_sent,
        _milliseconds(started_at, exchange.ended_at),
        _milliseconds(started_at, exchange.read_at),
        _milliseconds(started_at, last.started_at) if last is not None else None,
        _milliseconds(started_at, exchange.first_byte_at),
        exchange.input_tokens,
        exchange.output_tokens,
        exchange.cache_read_tokens,
        None if exchange.trace is None else exchange.trace.trace_id,
    )


def _milliseconds(since: float, until: float | None) -> float | None:
    return None if until is None else int((until - since) * 100_000) / 100


def _failed(attempt: Attempt) -> str:
    """An attempt that was followed by another: where, and its status or else how it ended."""
    why = attempt.outcome.value if attempt.status is None else str(attempt.status)
    return f"{attempt.pick.upstream.label} {why}"


def _readable(line: AccessLine) -> bytes:
    parts = [line.time[11:23], f"{line.status}", line.method, line.path, f"model={line.model or '-'}"]
    if line.backend:
        parts.append(f"-> {line.backend} {line.pod or line.endpoint}")
    if line.duration_ms is not None:
        parts.append(f"{line.duration_ms:.0f} ms")
    if line.retried is not None:
        parts.append(f"{line.attempts} attempts ({', '.join(line.retried)})")
    if line.reason:
        parts.append(f"{line.reason} {line.flag}".rstrip())
    # A path or a model can hold anything; a terminal must not take it for commands.
    return printable(" ".join(parts)).encode()
