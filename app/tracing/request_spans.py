"""What do the spans of a sampled request say? A SERVER span, an INTERNAL child for the decision, a CLIENT span per
attempt; copies for mirrors in linked traces of their own.

An attempt's span begins with the attempt, since its headers must name it. Everything that spans say is added when the
request is over. The HTTP attributes follow OpenTelemetry's stable HTTP conventions; ours begin with `pointsman.` and
have the access log's words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace import set_span_in_context as put
from opentelemetry.util.types import AttributeValue

from app.access_log import final_status
from app.tracing.facts import Attributes, attempt_error, call, method_name, method_of, nanoseconds
from app.tracing.genai import Fact, Value, api_of, genai_attributes, request_facts
from middleware.errors import Reason
from middleware.exchange import Exchange
from middleware.headers import RawHeaders
from middleware.pick_explanation import PickScores
from middleware.traffic_mirroring import MirrorRecord
from middleware.upstream.outcome import Attempt

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

_ROOT = Context()


class SampledTrace:
    """The trace of a request that somebody will look at (middleware.trace.RequestTrace)."""

    __slots__ = ("_attempts", "_context", "_parameters", "_scores", "_span", "_tracing")

    is_sampled = True

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._context = put(span, _ROOT)
        self._attempts: list[tuple[Attempt, Span]] = []
        self._scores: list[PickScores | None] = []  # of each attempt's pick
        self._parameters: dict[Fact, Value | None] | None = None

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def attempt_headers(self, exchange: Exchange, attempt: Attempt, headers: RawHeaders) -> RawHeaders:
        tracing = self._tracing
        name, facts = call(exchange, headers)
        if self._parameters is None:
            self._parameters = request_facts(exchange.body)
        endpoint = attempt.pick.endpoint
        attributes: Attributes = {
            **genai_attributes(facts | self._parameters, tracing.genai),
            "server.address": endpoint.address,
            "server.port": endpoint.port,
            **method_of(exchange),
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
            start_time=nanoseconds(exchange, attempt.started_at),
        )
        self._attempts.append((attempt, span))
        self._scores.append(exchange.pick_scores)
        return tracing.named_by(headers, span)

    def copy_headers(self, exchange: Exchange, record: MirrorRecord, headers: RawHeaders) -> RawHeaders:
        tracing = self._tracing
        name, facts = call(exchange, headers)
        span = tracing.copies.start_span(
            f"mirror {name}",
            context=_ROOT,
            kind=SpanKind.CLIENT,
            attributes={
                **genai_attributes(facts, tracing.genai),
                **method_of(exchange),
                "pointsman.request_id": exchange.request_id,
                "pointsman.route": record.rule.route,
                "pointsman.rule": record.rule.name,
                "pointsman.backend": record.backend,
                "pointsman.is_mirror": True,
            },
            links=[Link(self._span.get_span_context())],
            start_time=nanoseconds(exchange, record.started_at),
        )
        record.span = CopySpan(span, exchange.started_unix - exchange.started_at)
        return tracing.named_by(headers, span)

    def end(self, exchange: Exchange) -> None:
        """End every span of the request."""
        if exchange.read_at is not None and exchange.body_size:
            self._event(exchange, "request read", exchange.read_at, {"http.request.body.size": exchange.body_size})
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
        if exchange.first_byte_at is not None:
            self._event(exchange, "first byte", exchange.first_byte_at)
        if exchange.client_left and exchange.ended_at is not None:
            self._event(exchange, "client left", exchange.ended_at)
        self._end_server(exchange)
        self._tracing.counts.ended += len(self._attempts) + 1 + (exchange.rule is not None)

    def _event(self, exchange: Exchange, name: str, at: float, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes, nanoseconds(exchange, at))

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
            "decide", context=self._context, attributes=attributes, start_time=nanoseconds(exchange, began)
        )
        span.end(nanoseconds(exchange, began if until is None else max(began, until)))

    def _end_attempt(self, exchange: Exchange, attempt: Attempt, span: Span) -> None:
        attributes: Attributes = {"pointsman.outcome": attempt.outcome.value}
        facts: dict[Fact, Value | None] = {}
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        if attempt.first_byte_at is not None:
            span.add_event("first byte", None, nanoseconds(exchange, attempt.first_byte_at))
            facts[Fact.TIME_TO_FIRST_CHUNK] = attempt.first_byte_at - attempt.started_at
        if attempt is exchange.attempts[-1]:
            facts[Fact.INPUT_TOKENS] = exchange.input_tokens
            facts[Fact.OUTPUT_TOKENS] = exchange.output_tokens
            facts[Fact.CACHE_READ_TOKENS] = exchange.cache_read_tokens
            facts[Fact.CACHE_WRITE_TOKENS] = exchange.cache_write_tokens
        ended_at = attempt.started_at if attempt.ended_at is None else attempt.ended_at
        if attempt.is_ejecting:
            where = {"pointsman.endpoint": attempt.pick.upstream.label}
            span.add_event("ejection", where, nanoseconds(exchange, ended_at))
        error = attempt_error(attempt)
        if error is not None:
            attributes["error.type"] = error
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(attributes | genai_attributes(facts, self._tracing.genai))
        span.end(nanoseconds(exchange, ended_at))

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
            span.update_name(f"{method_name(exchange)} {exchange.path}")
        status = final_status(exchange)
        broke_off = exchange.reason is not Reason.OK and exchange.reason is not Reason.CLIENT_CLOSED and status < 400
        if status >= 500 or broke_off:
            optional["error.type"] = exchange.reason.value or str(status)
            span.set_status(Status(StatusCode.ERROR, exchange.message or None))
        span.set_attributes(attributes | {name: value for name, value in optional.items() if value is not None})
        span.end(None if exchange.ended_at is None else nanoseconds(exchange, exchange.ended_at))


class CopySpan:
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
