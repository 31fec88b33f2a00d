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
    attributes: Attributes = {
        **method_of(exchange),
        "url.path": exchange.raw_path.decode("latin-1"),
        "url.scheme": exchange.scheme,
        "client.address": exchange.peer,
    }
    agent = exchange.by_name.get(b"user-agent")
    if agent is not None:
        attributes["user_agent.original"] = agent.decode("latin-1")
    if exchange.host:
        whole = exchange.host.decode("latin-1")
        host, _, port = whole.rpartition(":")
        if host and port.isdigit():
            whole, attributes["server.port"] = host, int(port)
        attributes["server.address"] = whole.removeprefix("[").removesuffix("]")
    return attributes


def method_of(exchange: Exchange) -> Attributes:
    """The method, of which the conventions know a closed list."""
    method = exchange.method
    if method in METHODS:
        return {"http.request.method": method}
    original: Attributes = {"http.request.method_original": method} if method else {}
    return {"http.request.method": "_OTHER", **original}


def method_name(exchange: Exchange) -> str:
    """What a span is named by it."""
    return exchange.method if exchange.method in METHODS else "HTTP"


def call(exchange: Exchange, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, dict[Fact, Value | None]]:
    """The name of an attempt's span, and what it asks of which model. The model is the one that the pod is asked
    for."""
    api = api_of(exchange.path)
    named = find_header(headers, MODEL_HEADER)
    model = None if named is None else named.decode("utf-8", "replace")
    if api is None or model is None:
        return method_name(exchange), {}
    return f"{api.operation} {model}", {
        Fact.OPERATION: api.operation,
        Fact.PROVIDER: api.provider,
        Fact.REQUEST_MODEL: model,
    }


def attempt_error(attempt: Attempt) -> str | None:
    """Why an attempt failed, or None: it did not. A client that leaves is no failure of the pod's."""
    if attempt.outcome is Outcome.ANSWERED:
        return str(attempt.status) if attempt.status is not None and attempt.status >= 400 else None
    return None if attempt.outcome is Outcome.ABANDONED else attempt.outcome.value
