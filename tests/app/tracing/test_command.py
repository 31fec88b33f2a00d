"""Does `pointsman serve` trace by its environment? As a process, with a real collector."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.gateway import route_to
from tests.support.otlp import receiving
from tests.support.ports import free_port
from tests.support.processes import run_command, running_command
from tests.support.raw_client import ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 16\r\n\r\n" + b'{"model":"qwen"}'


async def answering(peer: Conversation) -> None:
    await peer.request()
    await peer.answer()


async def test_what_is_not_delivered_yet_is_delivered_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "routes.yaml"
    async with receiving() as collector, RawUpstream(answering) as upstream:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
        path.write_text(route_to((upstream.host, upstream.port)))
        port = free_port()
        arguments = ["serve", str(path), "--host", "127.0.0.1", "--port", str(port), "--admin-port", "0"]
        async with running_command(*arguments, "--drain-grace", "0s") as command:
            assert f"127.0.0.1:{collector.port}" in await command.wait_line("traces go to")
            await command.wait_line("serving")
            assert (await ask(port, REQUEST)).status == 200
            command.signal()
            async with asyncio.timeout(20):
                assert await command.process.wait() == 0
        names = sorted(span.name for span in await collector.wait_spans(3))
    assert names == ["POST /v1/completions", "decide", "text_completion qwen"]


async def test_a_variable_that_cannot_be_followed_is_a_line() -> None:
    code, _, err = await run_command(
        "serve",
        "--model",
        "qwen=http://127.0.0.1:1",
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
    )
    assert code == 2
    assert err.startswith("pointsman: OTEL_EXPORTER_OTLP_PROTOCOL=http/json")
    assert "Traceback" not in err


async def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    program = "import sys, app.cli, app.lifespan, app.tracing.settings; sys.exit('opentelemetry' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
