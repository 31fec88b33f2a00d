"""Is a traced request freed with its last reference? The garbage collector has better things to do."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing.counts import DeliveryCounts
from app.tracing.spans import TraceIds, Tracing
from tests.support.cycles import no_cycles
from tests.support.exchanges import make_attempt, make_exchange, make_pick, make_rule


def pass_through(tracing: Tracing) -> None:
    exchange = make_exchange(rule=make_rule(), model="qwen", attempts=[make_attempt(make_pick())], ended_at=1.0)
    tracing.started(exchange)
    assert exchange.trace is not None
    exchange.trace.attempt_headers(exchange, exchange.attempts[0], [])
    tracing.finished(exchange)


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ALWAYS_ON], ids=["unsampled", "sampled"])
def test_a_traced_request_leaves_no_reference_cycle(sampler: Sampler) -> None:
    ids = TraceIds()
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False, id_generator=ids).get_tracer("test")
    tracing = Tracing(
        tracer=tracer,
        sampler=sampler,
        ids=ids,
        copies=tracer,
        propagator=TraceContextTextMapPropagator(),
        counts=DeliveryCounts(),
    )
    pass_through(tracing)
    with no_cycles():
        pass_through(tracing)
