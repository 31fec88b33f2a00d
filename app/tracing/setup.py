"""How do traces get out of the process? The SDK's objects: sampler, batch processor, exporter, propagators.

No global state of OpenTelemetry's is touched: the gateway has a provider of its own, and closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points, version

from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing.collector_session import CollectorSession, LastStatus
from app.tracing.counts import DeliveryCounts
from app.tracing.delivery import Delivery
from app.tracing.sdk_words import guard_sdk_words, release_sdk_words
from app.tracing.settings import TracingConfigurationError, TracingSettings
from app.tracing.spans import TraceIds, Tracing

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0  # for the traces that are not delivered yet


class TracingPipeline:
    """The tracing observer and what is behind it. Made in a running event loop; ``close`` ends its threads."""

    def __init__(self, settings: TracingSettings) -> None:
        """Raises TracingConfigurationError."""
        loop = asyncio.get_running_loop()

        def tell(level: int, line: str) -> None:
            # Called in the processor's thread; the log's writer belongs to the loop.
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(logger.log, level, "%s", line)

        guard_sdk_words()
        propagator = _propagator(settings.propagators)
        self.counts = DeliveryCounts()
        try:
            status = LastStatus()
            exporter = Delivery(
                make_exporter(settings, status),
                collector=settings.collector,
                counts=self.counts,
                tell=tell,
                status=status,
            )
            processor = BatchSpanProcessor(exporter)
        except ValueError as error:
            raise TracingConfigurationError(f"tracing: {error}") from None
        resource = _resource()
        ids = TraceIds()
        # Its sampler is what OTEL_TRACES_SAMPLER says.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=ids)
        copies = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        for provider in (self._provider, copies):
            provider.add_span_processor(processor)
        self.observer = Tracing(
            tracer=self._provider.get_tracer("pointsman", version("pointsman")),
            sampler=self._provider.sampler,
            ids=ids,
            copies=copies.get_tracer("pointsman", version("pointsman")),
            propagator=propagator,
            counts=self.counts,
            genai=settings.genai,
        )
        logger.info("traces go to %s", settings.collector)

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Deliver what is left, for at most the given time: a collector that hangs does not hold up the end."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # A daemon thread, unlike those of an executor: the interpreter does not wait for it.
        threading.Thread(target=shut_down, name="trace-shutdown", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await done.wait()
        release_sdk_words()


def make_exporter(settings: TracingSettings, status: LastStatus) -> SpanExporter:
    """What sends batches to the collector. Raises TracingConfigurationError."""
    if settings.is_grpc:
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
        except ImportError:
            raise TracingConfigurationError(
                "OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs the extra grpc: pip install 'pointsman[grpc]'"
            ) from None
        exporter: SpanExporter = GrpcExporter(endpoint=settings.endpoint, timeout=settings.timeout_seconds)
        return exporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(endpoint=settings.endpoint, timeout=settings.timeout_seconds, session=CollectorSession(status))


def _resource() -> Resource:
    """Who we are: OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME before what we say ourselves."""
    ours: Mapping[str, str] = {
        SERVICE_NAME: "pointsman",
        "service.version": version("pointsman"),
        "service.instance.id": os.environ.get("POD_NAME") or socket.gethostname(),
    }
    given = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in ours.items() if name not in given})


def _propagator(names: tuple[str, ...]) -> TextMapPropagator:
    """What carries a trace's identity in headers. Baggage needs nobody: it is never changed, and passes as it came."""
    found: list[TextMapPropagator] = []
    for name in names:
        if name == "tracecontext":
            found.append(TraceContextTextMapPropagator())
        elif name not in ("baggage", "none"):
            known = entry_points(group="opentelemetry_propagator", name=name)
            if not known:
                raise TracingConfigurationError(
                    f"OTEL_PROPAGATORS={name}: not tracecontext, baggage or none, and no installed package has it; "
                    f"those of OpenTelemetry are called opentelemetry-propagator-…"
                )
            found.append(next(iter(known)).load()())
    return found[0] if len(found) == 1 else CompositePropagator(found)
