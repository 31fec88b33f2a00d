"""How does a test see the spans that left the process? An OTLP/HTTP receiver that decodes what it gets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.tracing.settings import read_tracing_settings
from app.tracing.setup import TracingPipeline

Value = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event of a span."""

    name: str
    at: int  # ns
    attributes: dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpan:
    """A span as a collector gets it."""

    name: str
    kind: str  # SERVER, CLIENT, INTERNAL
    trace_id: str
    span_id: str
    parent_id: str  # "" for none
    trace_state: str
    start: int  # ns
    end: int
    attributes: dict[str, Value]
    events: tuple[SeenEvent, ...]
    links: tuple[tuple[str, str], ...]  # trace id and span id
    is_error: bool


@dataclass
class Receiver:
    """What came, and how the receiver answers."""

    spans: list[SeenSpan] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)  # every body, unpacked
    resource: dict[str, Value] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    is_silent: bool = False  # takes requests and never answers
    port: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_spans(self, count: int) -> list[SeenSpan]:
        """Wait until so many spans came; in the order of their start."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: len(self.spans) >= count)
        return sorted(self.spans, key=lambda span: span.start)

    async def wait_requests(self, count: int) -> None:
        """Wait until so many deliveries were tried."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: len(self.paths) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of an exporter."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = [line.partition(":") for line in head[1:] if line]
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                self.paths.append(head[0].split(" ")[1])
                self.headers.append(headers)
                self.raw += body
                if self.status == 200:
                    self._decode(body)
                async with self.changed:
                    self.changed.notify_all()
                if self.is_silent:
                    await reader.read()
                    return
                writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _decode(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            self.resource = {pair.key: _value(pair.value) for pair in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans.extend(_seen(span) for span in of_scope.spans)


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [item.string_value for item in value.array_value.values]
    assert kind in ("string_value", "int_value", "double_value", "bool_value"), kind
    found: str | int | float | bool = getattr(value, kind)
    return found


def _seen(span: Span) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        trace_state=span.trace_state,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        events=tuple(
            SeenEvent(
                name=event.name,
                at=event.time_unix_nano,
                attributes={pair.key: _value(pair.value) for pair in event.attributes},
            )
            for event in span.events
        ),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        is_error=span.status.code == 2,
    )


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of 127.0.0.1."""
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await receiver.serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def tracing_to(port: int, **variables: str) -> AsyncIterator[TracingPipeline]:
    """Tracing as OTEL_* variables have it; what the SDK reads itself must be set in the environment."""
    settings = read_tracing_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **variables})
    assert settings is not None
    pipeline = TracingPipeline(settings)
    try:
        yield pipeline
    finally:
        await pipeline.close()
