"""Does a collector that is down, slow or broken cost the requests nothing but its traces?"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext

from app.tracing.collector_session import LastStatus
from app.tracing.counts import DeliveryCounts
from app.tracing.delivery import Delivery
from app.tracing.settings import TracingConfigurationError, TracingSettings
from app.tracing.setup import TracingPipeline, make_exporter
from tests.support.gateway import route_to, running_gateway
from tests.support.otlp import receiving, tracing_to
from tests.support.raw_client import ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

REQUEST = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 16\r\n\r\n" + b'{"model":"qwen"}'


async def answering(peer: Conversation) -> None:
    while True:
        await peer.request()
        await peer.answer()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]


@pytest.fixture
def at_root() -> Iterator[list[logging.LogRecord]]:
    """What a program's own handler would get. caplog also listens to loggers that pass nothing on."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keeping()
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


def heard(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """What the SDK and its HTTP client say themselves."""
    return [record for record in records if record.name.startswith(("opentelemetry", "urllib3"))]


async def wait_lost(pipeline: TracingPipeline, count: int) -> None:
    async with asyncio.timeout(10):
        while pipeline.counts.lost < count:
            await asyncio.sleep(0.01)


async def test_a_collector_that_refuses_is_one_line_and_another_when_it_takes_traces_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at_root: list[logging.LogRecord]
) -> None:
    caplog.set_level(logging.INFO)
    async with receiving() as collector, RawUpstream(answering) as upstream, tracing_to(collector.port) as pipeline:
        collector.status = 401
        manifests = route_to((upstream.host, upstream.port))
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
            for number in range(1, 4):
                assert (await ask(running.port, REQUEST)).status == 200
                await wait_lost(pipeline, 3 * number)
            collector.status = 200
            assert (await ask(running.port, REQUEST)).status == 200
            await collector.wait_spans(3)
            async with asyncio.timeout(10):
                while len(told(caplog)) < 2:
                    await asyncio.sleep(0.01)
    lines = told(caplog)
    assert len(lines) == 2
    assert f"127.0.0.1:{collector.port} answers 401" in lines[0]
    assert "again" in lines[1]
    assert (pipeline.counts.ended, pipeline.counts.delivered, pipeline.counts.lost) == (12, 3, 9)
    assert not heard(at_root)


async def test_nobody_listening_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with receiving() as collector:
        port = collector.port
    async with (
        RawUpstream(answering) as upstream,
        tracing_to(port, OTEL_EXPORTER_OTLP_TIMEOUT="100") as pipeline,
        running_gateway(
            route_to((upstream.host, upstream.port)), folder=tmp_path, tracing=pipeline.observer
        ) as running,
    ):
        for number in range(1, 4):
            assert (await ask(running.port, REQUEST)).status == 200
            await wait_lost(pipeline, 3 * number)
    assert len(told(caplog)) == 1
    assert "does not answer" in told(caplog)[0]


async def test_a_collector_that_never_answers_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    async with receiving() as collector, RawUpstream(answering) as upstream:
        collector.is_silent = True
        async with tracing_to(collector.port, OTEL_EXPORTER_OTLP_TIMEOUT="60000") as pipeline:
            manifests = route_to((upstream.host, upstream.port))
            async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
                assert (await ask(running.port, REQUEST)).status == 200
                await collector.wait_requests(1)
                for _ in range(20):
                    assert (await ask(running.port, REQUEST)).status == 200
            loop = asyncio.get_running_loop()
            before = loop.time()
            await pipeline.close(timeout_seconds=0.2)
            assert loop.time() - before < 5


async def test_grpc_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(TracingConfigurationError, match=r"pointsman\[grpc\]"):
        TracingPipeline(TracingSettings(endpoint="http://127.0.0.1:4317", is_grpc=True))


async def test_an_unknown_propagator_is_named() -> None:
    with pytest.raises(TracingConfigurationError, match="OTEL_PROPAGATORS=b4"):
        TracingPipeline(TracingSettings(endpoint="http://127.0.0.1:4318", propagators=("b4",)))


async def test_what_the_sdk_does_not_take_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(TracingConfigurationError, match="max_export_batch_size"):
        TracingPipeline(TracingSettings(endpoint="http://127.0.0.1:4318"))


async def test_compression_and_headers_are_the_standards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.instance.id=pod-7")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-gateway")
    async with (
        receiving() as collector,
        tracing_to(collector.port) as pipeline,
        running_gateway(route_to(("127.0.0.1", 9)), folder=tmp_path, tracing=pipeline.observer) as running,
    ):
        assert (await ask(running.port, REQUEST.replace(b"qwen", b"none"))).status == 404
        await collector.wait_spans(1)
    assert collector.headers[0]["x-tenant"] == "ours"
    assert collector.headers[0]["content-encoding"] == "gzip"
    assert collector.resource["deployment.environment.name"] == "test"
    assert (collector.resource["service.name"], collector.resource["service.instance.id"]) == ("our-gateway", "pod-7")


async def test_a_header_that_the_sdk_does_not_take_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer SECRET-KEY")
    async with tracing_to(9):
        pass
    assert "SECRET" not in caplog.text
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text


def test_a_delivery_that_raises_is_lost_and_said() -> None:
    class Raising(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no such certificate")

    said: list[str] = []
    counts = DeliveryCounts()
    delivery = Delivery(
        Raising(), collector="c:4318", counts=counts, tell=lambda _, line: said.append(line), status=LastStatus()
    )
    try:
        assert delivery.export([ReadableSpan("a"), ReadableSpan("b")]) is SpanExportResult.FAILURE
    finally:
        delivery.shutdown()
    assert counts.lost == 2
    assert said == [
        "the trace collector at c:4318 cannot be sent to (OSError): traces are lost until it takes them, requests go on"
    ]


async def test_a_clients_trace_state_does_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: PLANTED\r\n"
    async with receiving() as collector, tracing_to(collector.port) as pipeline:
        async with running_gateway(route_to(("127.0.0.1", 9)), folder=tmp_path, tracing=pipeline.observer) as running:
            request = REQUEST.replace(b"Content-Length", state.encode() + b"Content-Length").replace(b"qwen", b"none")
            assert (await ask(running.port, request)).status == 404
            await collector.wait_spans(1)
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_is_no_delivery(status: int) -> None:
    head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n".encode()
    said: list[str] = []
    with _answering_collector([head]) as port:
        counts = _deliver_one(port, said)
    assert (counts.delivered, counts.lost) == (0, 1)
    assert f"answers {status}" in said[0]


def test_a_busy_collector_is_said_to_answer() -> None:
    said: list[str] = []
    with _answering_collector([b"HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"]) as port:
        _deliver_one(port, said)
    assert "answers 503" in said[0]


@pytest.mark.parametrize("framing", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
def test_of_an_answer_without_end_little_is_read(framing: str) -> None:
    mebibyte = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with _answering_collector([f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode(), *[mebibyte] * 64]) as port:
        tracemalloc.start()
        try:
            counts = _deliver_one(port, [])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert counts.delivered == 1
    assert peak < 32 << 20


@contextmanager
def _answering_collector(parts: list[bytes]) -> Iterator[int]:
    """Takes one whole request, writes the parts as far as somebody reads them, and hangs up."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.settimeout(10)
            with connection.makefile("rb") as request:
                length = 0
                while (line := request.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                request.read(length)
            for part in parts:
                connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(20)


def _deliver_one(port: int, said: list[str]) -> DeliveryCounts:
    counts = DeliveryCounts()
    status = LastStatus()
    exporter = make_exporter(TracingSettings(endpoint=f"http://127.0.0.1:{port}/v1/traces", timeout_seconds=5), status)
    delivery = Delivery(exporter, collector="c", counts=counts, tell=lambda _, line: said.append(line), status=status)
    try:
        context = SpanContext(1, 2, is_remote=False)
        delivery.export([ReadableSpan("a", context=context, start_time=1, end_time=2)])
    finally:
        delivery.shutdown()
    return counts
