"""Does a propagator that is not the W3C's get its turn? One that reads an older header beside the one it writes."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from app.tracing.counts import DeliveryCounts
from app.tracing.spans import TraceIds, Tracing
from tests.support.exchanges import make_attempt, make_exchange, make_pick, make_rule

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class LikeB3(TextMapPropagator):
    """Reads x-old-trace, as b3 reads x-b3-traceid, and names the header that it writes alone."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        context = Context() if context is None else context
        found = getter.get(carrier, "x-old-trace")
        if not found:
            return context
        parent = SpanContext(int(found[0], 16), 7, is_remote=True, trace_flags=TraceFlags(1))
        return set_span_in_context(NonRecordingSpan(parent), context)

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        setter.set(carrier, "x-trace", f"{get_current_span(context).get_span_context().trace_id:032x}")

    @property
    def fields(self) -> set[str]:
        return {"x-trace"}


def test_headers_that_a_propagator_reads_but_does_not_name_are_read() -> None:
    ids = TraceIds()
    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False, id_generator=ids).get_tracer("test")
    tracing = Tracing(
        tracer=tracer, sampler=ALWAYS_OFF, ids=ids, copies=tracer, propagator=LikeB3(), counts=DeliveryCounts()
    )
    exchange = make_exchange(
        headers=[(b"host", b"h"), (b"x-old-trace", TRACE_ID.encode())],
        rule=make_rule(),
        model="qwen",
        attempts=[make_attempt(make_pick())],
        ended_at=1.0,
    )
    tracing.started(exchange)
    assert exchange.trace is not None
    assert exchange.trace.trace_id == TRACE_ID
    assert exchange.trace.attempt_headers(exchange, exchange.attempts[0], []) == [(b"x-trace", TRACE_ID.encode())]
