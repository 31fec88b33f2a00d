"""Which requests have spans, and by which identifiers is a trace passed on?

The SERVER span begins with the request, since the sampler decides then; what spans say is in request_spans.py. A
request that is not sampled costs its identifiers and nothing else.
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, Tracer, TraceState
from opentelemetry.trace import set_span_in_context as put
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing.carriers import READ, WRITE
from app.tracing.counts import DeliveryCounts
from app.tracing.facts import method_name, nanoseconds, request_line
from app.tracing.request_spans import CopySpan, SampledTrace
from app.tracing.settings import GenAiVersion
from middleware.exchange import Exchange
from middleware.headers import RawHeaders
from middleware.traffic_mirroring import MirrorRecord
from middleware.upstream.outcome import Attempt

_ROOT = Context()
_RANDOM = TraceFlags(TraceFlags.RANDOM_TRACE_ID)


class TraceIds(RandomIdGenerator):
    """Random identifiers; ``planned`` is the one that the tracer gets next, since the sampler was asked about it."""

    def __init__(self) -> None:
        self.planned = 0

    def generate_trace_id(self) -> int:
        """The planned one, once; else a new one."""
        planned, self.planned = self.planned, 0
        return planned or super().generate_trace_id()


class Tracing:
    """An observer of exchanges and mirrors that makes spans of them.

    ``sampler`` and ``ids`` are the tracer's own; the sampler decides by the trace's id and its parent alone, as all do
    that OTEL_TRACES_SAMPLER knows. ``copies`` is the tracer of mirrors: it samples everything, since a copy is sampled
    when its request is.
    """

    def __init__(
        self,
        *,
        tracer: Tracer,
        sampler: Sampler,
        ids: TraceIds,
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
        self.sampler = sampler
        self.ids = ids
        self.is_w3c = isinstance(propagator, TraceContextTextMapPropagator)
        self.fields = frozenset(field.lower().encode("ascii") for field in propagator.fields)

    def started(self, exchange: Exchange) -> None:
        """A request came: its trace begins, or goes on."""
        name = method_name(exchange)
        parent = _ROOT
        # W3C's alone is known by its fields; others have more than they name, as b3 has its older headers.
        if not self.fields.isdisjoint(exchange.by_name) or (self.fields and not self.is_w3c):
            parent = self.propagator.extract(exchange.by_name, context=_ROOT, getter=READ)
        else:
            # The sampler alone, before the tracer and all that it makes: most requests end here.
            trace_id = self.ids.generate_trace_id()
            sampled = self.sampler.should_sample(_ROOT, trace_id, name, SpanKind.SERVER)
            if sampled.decision is Decision.DROP:
                exchange.trace = _Unsampled(self, trace_id, self.ids.generate_span_id(), _RANDOM)
                return
            self.ids.planned = trace_id
        span = self.tracer.start_span(
            name,
            context=parent,
            kind=SpanKind.SERVER,
            start_time=nanoseconds(exchange, exchange.started_at),
        )
        if span.is_recording():
            # Not with the start: no sampler that OTEL_TRACES_SAMPLER knows looks at them.
            span.set_attributes(request_line(exchange))
            exchange.trace = SampledTrace(self, span)
        else:
            ids = span.get_span_context()
            exchange.trace = _Unsampled(self, ids.trace_id, ids.span_id, ids.trace_flags, ids.trace_state)

    def finished(self, exchange: Exchange) -> None:
        """A request is over: everything is said now."""
        trace = exchange.trace
        if isinstance(trace, SampledTrace):
            trace.end(exchange)

    def mirrored(self, record: MirrorRecord) -> None:
        """A copy is over."""
        if isinstance(record.span, CopySpan):
            record.span.end(record)
            self.counts.ended += 1

    def named_by(self, headers: RawHeaders, span: Span) -> RawHeaders:
        """Headers that name a span to who is behind us."""
        ids = span.get_span_context()
        return self.named(headers, ids.trace_id, ids.span_id, ids.trace_flags, ids.trace_state)

    def named(
        self, headers: RawHeaders, trace_id: int, span_id: int, flags: TraceFlags, state: TraceState | None = None
    ) -> RawHeaders:
        """Headers that name a span to who is behind us. What filters did to them comes first: removing traceparent
        cannot end a trace that is ours."""
        fields = self.fields
        named = [pair for pair in headers if pair[0] not in fields]
        if not self.is_w3c:
            context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags, trace_state=state)
            self.propagator.inject(named, context=put(NonRecordingSpan(context), _ROOT), setter=WRITE)
            return named
        # The same by hand: every request pays for it, sampled or not.
        named.append((b"traceparent", b"00-%032x-%016x-%02x" % (trace_id, span_id, flags)))
        if state:
            named.append((b"tracestate", state.to_header().encode("latin-1")))
        return named


class _Unsampled:
    """The trace of a request that is not sampled (middleware.trace.RequestTrace): its identifiers, passed on."""

    __slots__ = ("_flags", "_span_id", "_state", "_trace_id", "_tracing")

    is_sampled = False

    def __init__(
        self, tracing: Tracing, trace_id: int, span_id: int, flags: TraceFlags, state: TraceState | None = None
    ) -> None:
        self._tracing = tracing
        self._trace_id = trace_id
        self._span_id = span_id
        self._flags = flags
        self._state = state

    @property
    def trace_id(self) -> str:
        return f"{self._trace_id:032x}"

    def attempt_headers(self, exchange: Exchange, attempt: Attempt, headers: RawHeaders) -> RawHeaders:
        ids = self._trace_id, self._span_id, self._flags, self._state
        return self._tracing.named(headers, *ids)

    def copy_headers(self, exchange: Exchange, record: MirrorRecord, headers: RawHeaders) -> RawHeaders:
        # A trace of its own, as when it is sampled.
        ids = self._tracing.ids
        return self._tracing.named(headers, ids.generate_trace_id(), ids.generate_span_id(), _RANDOM)
