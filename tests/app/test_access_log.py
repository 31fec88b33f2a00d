"""What does a request's line tell, and what does it keep to itself?"""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from app.access_log import AccessLog
from app.logs import LineWriter
from middleware.errors import Reason
from middleware.exchange import Exchange
from middleware.upstream.outcome import Outcome
from tests.support.exchanges import make_attempt, make_endpoint, make_exchange, make_pick, make_rule


def written(folder: Path, exchange: Exchange, *, is_readable: bool = False) -> bytes:
    descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(file_descriptor=descriptor)
    AccessLog(writer, is_readable=is_readable).finished(exchange)
    writer.close()
    os.close(descriptor)
    return (folder / "log").read_bytes()


def test_a_request_is_a_line_with_where_it_went_and_what_was_retried(tmp_path: Path) -> None:
    first, second = (
        make_pick(make_endpoint(address, pod=f"default/{address}")) for address in ("192.0.2.1", "192.0.2.2")
    )
    attempts = [
        make_attempt(first),
        make_attempt(first, Outcome.ANSWERED, status=503),
        make_attempt(second, status=200),
    ]
    attempts[-1].started_at = 0.25
    attempts[-1].model = "qwen-2"
    exchange = make_exchange(
        target=b"/v1/x?key=secret",
        model="qwen",
        rule=make_rule(),
        attempts=attempts,
        status=200,
        reason=Reason.UPSTREAM_ERROR_EVENT,
        flag="SI",
        message="why",
        body_size=5,
        read_at=0.1,
        first_byte_at=0.5,
        ended_at=1.0,
        bytes_sent=7,
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
    )
    line = orjson.loads(written(tmp_path, exchange))
    assert list(line.items()) == [
        ("time", "1970-01-01T00:00:00.000Z"),
        ("level", "info"),
        ("message", "request"),
        ("request_id", "id-1"),
        ("client", "192.0.2.7"),
        ("method", "POST"),
        ("host", "gateway.example"),
        ("path", "/v1/x"),
        ("model", "qwen"),
        ("upstream_model", "qwen-2"),
        ("route", "default/llm"),
        ("rule", "0"),
        ("backend", "default/qwen"),
        ("endpoint", "192.0.2.2:8000"),
        ("pod", "default/192.0.2.2"),
        ("attempts", 3),
        ("retried", ["192.0.2.1:8000 connect_failed", "192.0.2.1:8000 503"]),
        ("status", 200),
        ("reason", "upstream_error_event"),
        ("flag", "SI"),
        ("error", "why"),
        ("bytes_received", 5),
        ("bytes_sent", 7),
        ("duration_ms", 1000.0),
        ("read_ms", 100.0),
        ("attempt_ms", 250.0),
        ("first_byte_ms", 500.0),
        ("input_tokens", 1),
        ("output_tokens", 2),
        ("cached_tokens", 3),
        ("trace_id", None),
    ]


def test_a_request_that_nobody_served_has_a_line_too(tmp_path: Path) -> None:
    line = orjson.loads(written(tmp_path, make_exchange(client_left=True, ended_at=0.5)))
    assert line["status"] == 499
    assert {name for name, value in line.items() if value is None} == {
        "model", "upstream_model", "route", "rule", "backend", "endpoint", "pod", "retried", "error", "read_ms",
        "attempt_ms", "first_byte_ms", "input_tokens", "output_tokens", "cached_tokens", "trace_id",
    }  # fmt: skip


def test_on_a_terminal_the_line_is_readable_and_holds_no_commands_for_it(tmp_path: Path) -> None:
    attempts = [make_attempt(make_pick()), make_attempt(make_pick(make_endpoint("192.0.2.2")), status=200)]
    exchange = make_exchange(
        target=b"/v1/\x1b[2J",
        model="qwen",
        rule=make_rule(),
        attempts=attempts,
        status=503,
        reason=Reason.UPSTREAM_UNAVAILABLE,
        flag="UF",
        ended_at=0.012,
    )
    assert written(tmp_path, exchange, is_readable=True).decode() == (
        "00:00:00.000 503 POST /v1/?[2J model=qwen -> default/qwen 192.0.2.2:8000 12 ms 2 attempts "
        "(192.0.2.1:8000 connect_failed) upstream_unavailable UF\n"
    )
