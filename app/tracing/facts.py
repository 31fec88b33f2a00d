"""What do spans say of a request? The HTTP attributes of its head, the names of its attempts, and their errors (pure).

Follows OpenTelemetry's stable HTTP conventions.
"""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.util.types import AttributeValue

from app.tracing.genai import Fact, Value, api_of
from middleware.exchange import Exchange
from middleware.headers import MODEL_HEADER, find_header
from middleware.upstream.outcome import Attempt, Outcome

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})

Attributes = dict[str, AttributeValue]


def nanoseconds(exchange: Exchange, at: float) -> int:
    """A moment of the gateway's clock on the wall's, in ns."""
    return int((exchange.started_unix - exchange.started_at + at) * 1e9)


def request_line(exchange: Exchange) -> Attributes:
    """What is known with the head. Never the query: it can hold keys."""
    method = exchange.method
    attributes: Attributes = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "url.path": exchange.raw_path.decode("latin-1"),
        "url.scheme": exchange.scheme,
        "client.address": exchange.peer,
    }
    agent = exchange.by_name.get(b"user-agent")
    if agent is not None:
        attributes["user_agent.original"] = agent.decode("latin-1")
    host, _, port = exchange.host.decode("latin-1").rpartition(":")
    if host and port.isdigit():
        attributes["server.address"], attributes["server.port"] = host, int(port)
    elif exchange.host:
        attributes["server.address"] = exchange.host.decode("latin-1")
    return attributes


def call(exchange: Exchange, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, dict[Fact, Value | None]]:
    """The name of an attempt's span, and what it asks of which model. The model is the one that the pod is asked
    for."""
    api = api_of(exchange.path)
    named = find_header(headers, MODEL_HEADER)
    model = None if named is None else named.decode("utf-8", "replace")
    if api is None or model is None:
        return (exchange.method if exchange.method in METHODS else "HTTP"), {}
    return f"{api.operation} {model}", {
        Fact.OPERATION: api.operation,
        Fact.PROVIDER: api.provider,
        Fact.REQUEST_MODEL: model,
    }


def attempt_error(attempt: Attempt) -> str | None:
    if attempt.outcome is Outcome.ANSWERED:
        return str(attempt.status) if attempt.status is not None and attempt.status >= 400 else None
    return attempt.outcome.value
