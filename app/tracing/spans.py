"""What does a trace of a request look like? A SERVER span, an INTERNAL child for the decision, a CLIENT span per
attempt; copies for mirrors in linked traces of their own.

The SERVER span begins with the request, since the sampler decides then, and an attempt's with the attempt, since its
headers must name it. Everything they say is added when the request is over. A request that is not sampled costs its
identifiers and nothing else. The HTTP attributes follow OpenTelemetry's stable HTTP conventions; ours begin with
`pointsman.` and have the access log's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace import set_span_in_context as put
from opentelemetry.util.types import AttributeValue

from app.logs import final_status
from app.tracing.counts import DeliveryCounts
from app.tracing.genai import Fact, Value, api_of, genai_attributes, request_facts
from app.tracing.settings import GenAiVersion
from middleware.errors import Reason
from middleware.exchange import Exchange
from middleware.headers import MODEL_HEADER, RawHeaders, find_header
from middleware.pick_explanation import PickScores
from middleware.traffic_mirroring import MirrorRecord
from middleware.upstream.outcome import Attempt, Outcome

_ROOT = Context()
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})

Attributes = dict[str, AttributeValue]


class _ReadHeaders(Getter[Mapping[bytes, bytes]]):
    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode("ascii"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


class _WriteHeaders(Setter[RawHeaders]):
    def set(self, carrier: RawHeaders, key: str, value: str) -> None:
        carrier.append((key.lower().encode("ascii"), value.encode("latin-1")))


_READ = _ReadHeaders()
_WRITE = _WriteHeaders()


class Tracing:
    """An observer of exchanges and mirrors that makes spans of them.

    ``copies`` is the tracer of mirrors: it samples everything, since a copy is sampled when its request is.
    """

    def __init__(
        self,
        *,
        tracer: Tracer,
        copies: Tracer,
        propagator: TextMapPropagator,
        counts: DeliveryCounts,
        genai: GenAiVersion = GenAiVersion.NEWEST,
    ) -> None:
        self.tracer = tracer
        self.copies = copies
        self.propagator = propagator
        self.counts = counts
        self.genai = genai
        self.fields = frozenset(field.lower().encode("ascii") for field in propagator.fields)

    def started(self, exchange: Exchange) -> None:
        """A request came: its trace begins, or goes on."""
        parent = _ROOT
        if not self.fields.isdisjoint(exchange.by_name):
            parent = self.propagator.extract(exchange.by_name, context=_ROOT, getter=_READ)
        span = self.tracer.start_span(
            exchange.method if exchange.method in _METHODS else "HTTP",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=_request_line(exchange),
            start_time=_nanoseconds(exchange, exchange.started_at),
        )
        exchange.trace = _Trace(self, span)

    def finished(self, exchange: Exchange) -> None:
        """A request is over: everything is said now."""
        trace = exchange.trace
        if isinstance(trace, _Trace) and trace.is_sampled:
            trace.end(exchange)

    def mirrored(self, record: MirrorRecord) -> None:
        """A copy is over."""
        if isinstance(record.span, _CopySpan):
            record.span.end(record)
            self.counts.ended += 1


class _Trace:
    """One request's trace (middleware.trace.RequestTrace)."""

    __slots__ = ("_attempts", "_context", "_parameters", "_scores", "_span", "_tracing", "is_sampled")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._context = put(span, _ROOT)
        self._attempts: list[tuple[Attempt, Span]] = []
        self._scores: list[PickScores | None] = []  # of each attempt's pick
        self._parameters: dict[Fact, Value | None] | None = None
        self.is_sampled = span.is_recording()

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def attempt_headers(self, exchange: Exchange, attempt: Attempt, headers: RawHeaders) -> RawHeaders:
        if not self.is_sampled:
            return self._named(headers, self._context)
        tracing = self._tracing
        name, facts = _call(exchange, headers)
        if self._parameters is None:
            self._parameters = request_facts(exchange.body)
        endpoint = attempt.pick.endpoint
        attributes: Attributes = {
            **genai_attributes(facts | self._parameters, tracing.genai),
            "server.address": endpoint.address,
            "server.port": endpoint.port,
            "http.request.method": exchange.method,
            "pointsman.backend": attempt.pick.backend_ref.name,
            "pointsman.endpoint": attempt.pick.upstream.label,
        }
        if endpoint.pod is not None:
            attributes["pointsman.pod"] = endpoint.pod
        if self._attempts:
            attributes["http.request.resend_count"] = len(self._attempts)
        span = tracing.tracer.start_span(
            name,
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(exchange, attempt.started_at),
        )
        self._attempts.append((attempt, span))
        self._scores.append(exchange.pick_scores)
        return self._named(headers, put(span, _ROOT))

    def copy_headers(self, exchange: Exchange, record: MirrorRecord, headers: RawHeaders) -> RawHeaders:
        tracing = self._tracing
        if not self.is_sampled:
            ids = tracing.copies.id_generator  # type: ignore[attr-defined]  # the SDK's tracer has it, the API's has not
            context = SpanContext(ids.generate_trace_id(), ids.generate_span_id(), is_remote=False)
            return self._named(headers, put(NonRecordingSpan(context), _ROOT))
        name, facts = _call(exchange, headers)
        span = tracing.copies.start_span(
            f"mirror {name}",
            context=_ROOT,
            kind=SpanKind.CLIENT,
            attributes={
                **genai_attributes(facts, tracing.genai),
                "http.request.method": exchange.method,
                "pointsman.request_id": exchange.request_id,
                "pointsman.route": record.rule.route,
                "pointsman.rule": record.rule.name,
                "pointsman.backend": record.backend,
                "pointsman.is_mirror": True,
            },
            links=[Link(self._span.get_span_context())],
            start_time=_nanoseconds(exchange, record.started_at),
        )
        record.span = _CopySpan(span, exchange.started_unix - exchange.started_at)
        return self._named(headers, put(span, _ROOT))

    def _named(self, headers: RawHeaders, context: Context) -> RawHeaders:
        # What filters did to them comes first: removing traceparent cannot end a trace that is ours.
        fields = self._tracing.fields
        named = [pair for pair in headers if pair[0] not in fields]
        self._tracing.propagator.inject(named, context=context, setter=_WRITE)
        return named

    def end(self, exchange: Exchange) -> None:
        """End every span of the request."""
        previous: Attempt | None = None
        for (attempt, span), scores in zip(self._attempts, self._scores, strict=True):
            self._end_attempt(exchange, attempt, span)
            if previous is not None and previous.ended_at is not None:
                retried: Attributes = {
                    "pointsman.outcome": previous.outcome.value,
                    "pointsman.endpoint": previous.pick.upstream.label,
                    "pointsman.waited_seconds": round(max(0.0, attempt.started_at - previous.ended_at), 6),
                }
                if previous.status is not None:
                    retried["http.response.status_code"] = previous.status
                if scores is not None:
                    retried["pointsman.scores"] = scores.lines()
                self._event(exchange, "retry", attempt.started_at, retried)
            previous = attempt
        if exchange.rule is not None:
            self._decision(exchange)
        if exchange.read_at is not None and exchange.body_size:
            self._event(exchange, "request read", exchange.read_at, {"http.request.body.size": exchange.body_size})
        if exchange.first_byte_at is not None:
            self._event(exchange, "first byte", exchange.first_byte_at)
        if exchange.client_left and exchange.ended_at is not None:
            self._event(exchange, "client left", exchange.ended_at)
        self._end_server(exchange)
        self._tracing.counts.ended += len(self._attempts) + 1 + (exchange.rule is not None)

    def _event(self, exchange: Exchange, name: str, at: float, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes, _nanoseconds(exchange, at))

    def _decision(self, exchange: Exchange) -> None:
        assert exchange.rule is not None
        until = exchange.attempts[0].started_at if exchange.attempts else exchange.ended_at
        began = exchange.started_at if exchange.read_at is None else exchange.read_at
        attributes: Attributes = {
            "pointsman.route": exchange.rule.route,
            "pointsman.route_kind": exchange.rule.route_kind,
            "pointsman.rule": exchange.rule.name,
            "pointsman.arms": [f"{arm.name} weight={arm.weight} priority={arm.priority}" for arm in exchange.arms],
            "pointsman.is_sticky": exchange.session is not None,
        }
        if exchange.snapshot is not None:
            attributes["pointsman.snapshot"] = exchange.snapshot.version
        if exchange.attempts:
            attributes["pointsman.backend"] = exchange.attempts[0].pick.backend_ref.name
            attributes["pointsman.endpoint"] = exchange.attempts[0].pick.upstream.label
            attributes["pointsman.pick_seconds"] = exchange.attempts[0].pick_seconds
        if self._scores and self._scores[0] is not None:
            attributes["pointsman.scores"] = self._scores[0].lines()
        elif exchange.reason is not Reason.OK:
            attributes["pointsman.reason"] = exchange.reason.value
        span = self._tracing.tracer.start_span(
            "decide", context=self._context, attributes=attributes, start_time=_nanoseconds(exchange, began)
        )
        span.end(_nanoseconds(exchange, began if until is None else max(began, until)))

    def _end_attempt(self, exchange: Exchange, attempt: Attempt, span: Span) -> None:
        attributes: Attributes = {"pointsman.outcome": attempt.outcome.value}
        facts: dict[Fact, Value | None] = {}
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        if attempt.first_byte_at is not None:
            span.add_event("first byte", None, _nanoseconds(exchange, attempt.first_byte_at))
            facts[Fact.TIME_TO_FIRST_CHUNK] = attempt.first_byte_at - attempt.started_at
        if attempt is exchange.attempts[-1]:
            facts[Fact.INPUT_TOKENS] = exchange.input_tokens
            facts[Fact.OUTPUT_TOKENS] = exchange.output_tokens
            facts[Fact.CACHE_READ_TOKENS] = exchange.cache_read_tokens
            facts[Fact.CACHE_WRITE_TOKENS] = exchange.cache_write_tokens
        ended_at = attempt.started_at if attempt.ended_at is None else attempt.ended_at
        if attempt.is_ejecting:
            where = {"pointsman.endpoint": attempt.pick.upstream.label}
            span.add_event("ejection", where, _nanoseconds(exchange, ended_at))
        error = _attempt_error(attempt)
        if error is not None:
            attributes["error.type"] = error
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(attributes | genai_attributes(facts, self._tracing.genai))
        span.end(_nanoseconds(exchange, ended_at))

    def _end_server(self, exchange: Exchange) -> None:
        span = self._span
        attributes: Attributes = {
            "pointsman.request_id": exchange.request_id,
            "pointsman.attempts": len(exchange.attempts),
            "http.request.body.size": exchange.body_size,
            "http.response.body.size": exchange.bytes_sent,
        }
        optional: dict[str, AttributeValue | None] = {
            "http.response.status_code": exchange.status,
            "pointsman.model": exchange.model,
            "pointsman.reason": exchange.reason.value or None,
            "pointsman.flag": exchange.flag or None,
        }
        if exchange.rule is not None:
            optional["pointsman.route"] = exchange.rule.route
            optional["pointsman.rule"] = exchange.rule.name
        if exchange.attempts:
            pick = exchange.attempts[-1].pick
            optional["pointsman.backend"] = pick.backend_ref.name
            optional["pointsman.endpoint"] = pick.upstream.label
            optional["pointsman.pod"] = pick.endpoint.pod
        api = api_of(exchange.path)
        if api is not None and exchange.path == f"/v1/{api.path}":
            optional["http.route"] = exchange.path
            span.update_name(f"{exchange.method} {exchange.path}")
        status = final_status(exchange)
        broke_off = exchange.reason is not Reason.OK and exchange.reason is not Reason.CLIENT_CLOSED and status < 400
        if status >= 500 or broke_off:
            optional["error.type"] = exchange.reason.value or str(status)
            span.set_status(Status(StatusCode.ERROR, exchange.message or None))
        elif exchange.reason is not Reason.OK:
            optional["error.type"] = exchange.reason.value
        span.set_attributes(attributes | {name: value for name, value in optional.items() if value is not None})
        span.end(None if exchange.ended_at is None else _nanoseconds(exchange, exchange.ended_at))


class _CopySpan:
    """The span of a copy while it runs, and the offset from the gateway's clock to the wall's, in seconds."""

    __slots__ = ("_offset", "_span")

    def __init__(self, span: Span, offset: float) -> None:
        self._span = span
        self._offset = offset

    def end(self, record: MirrorRecord) -> None:
        """End it with what became of the copy."""
        span = self._span
        if record.first_byte_at is not None:
            span.add_event("first byte", None, int((record.first_byte_at + self._offset) * 1e9))
        if record.status is not None:
            span.set_attribute("http.response.status_code", record.status)
        if record.is_dropped or record.status is None or record.status >= 400:
            error = "dropped" if record.is_dropped else "no_answer" if record.status is None else str(record.status)
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(None if record.ended_at is None else int((record.ended_at + self._offset) * 1e9))


def _nanoseconds(exchange: Exchange, at: float) -> int:
    """A moment of the gateway's clock on the wall's, in ns."""
    return int((exchange.started_unix - exchange.started_at + at) * 1e9)


def _request_line(exchange: Exchange) -> Attributes:
    """What is known with the head, for samplers too. Never the query: it can hold keys."""
    method = exchange.method
    attributes: Attributes = {
        "http.request.method": method if method in _METHODS else "_OTHER",
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


def _call(exchange: Exchange, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, dict[Fact, Value | None]]:
    """The name of an attempt's span, and what it asks of which model. The model is the one that the pod is asked
    for."""
    api = api_of(exchange.path)
    named = find_header(headers, MODEL_HEADER)
    model = None if named is None else named.decode("utf-8", "replace")
    if api is None or model is None:
        return (exchange.method if exchange.method in _METHODS else "HTTP"), {}
    return f"{api.operation} {model}", {
        Fact.OPERATION: api.operation,
        Fact.PROVIDER: api.provider,
        Fact.REQUEST_MODEL: model,
    }


def _attempt_error(attempt: Attempt) -> str | None:
    if attempt.outcome is Outcome.ANSWERED:
        return str(attempt.status) if attempt.status is not None and attempt.status >= 400 else None
    return attempt.outcome.value
