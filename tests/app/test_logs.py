"""Does the log keep the streams going, whatever happens to who reads it?"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import orjson

from app.logs import AccessLog, LineWriter, access_record, configure_logging
from middleware.errors import Reason
from middleware.upstream.outcome import Outcome
from tests.support.exchanges import make_attempt, make_endpoint, make_exchange, make_pick, make_rule


def test_a_pipe_that_nobody_reads_blocks_no_writer_and_drops_are_counted() -> None:
    reader, pipe = os.pipe()
    writer = LineWriter(file_descriptor=pipe, limit_bytes=200_000)
    line = b"x" * 999
    for _ in range(1_000):  # a megabyte into a pipe of 64 KiB and a buffer of 200,000 bytes
        writer.write(line)
    assert 700 <= writer.dropped < 1_000
    received = bytearray()

    def read_all() -> None:
        while part := os.read(reader, 65536):
            received.extend(part)

    thread = threading.Thread(target=read_all)
    thread.start()
    writer.close()
    os.close(pipe)
    thread.join(10)
    os.close(reader)
    lines = bytes(received).splitlines()
    assert len(lines) == 1_000 - writer.dropped
    assert set(lines) == {line}


def test_lines_are_written_in_order_and_batched_by_the_loops_timer(tmp_path: Path) -> None:
    planned: list[tuple[float, object]] = []
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(file_descriptor=descriptor)
    writer.use_loop(lambda delay, call: planned.append((delay, call)))
    for number in range(100):
        writer.write(b"%d" % number)
    assert len(planned) == 1
    writer.close()
    os.close(descriptor)
    assert (tmp_path / "log").read_bytes().split() == [b"%d" % number for number in range(100)]


def test_records_of_the_standard_library_are_lines_of_the_same_form(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(file_descriptor=descriptor)
    root = logging.getLogger()
    level = root.level
    handler = configure_logging(writer, is_readable=False)
    try:
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("app.test").exception("it %s", "failed")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        writer.close()
        os.close(descriptor)
    (record,) = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert (record["level"], record["message"], record["logger"]) == ("error", "it failed", "app.test")
    assert "ValueError: why" in record["traceback"]
    assert record["time"].endswith("Z")


def test_a_request_is_a_line_with_where_it_went_and_what_was_retried() -> None:
    first, second = (
        make_pick(make_endpoint(address, pod=f"default/{address}")) for address in ("192.0.2.1", "192.0.2.2")
    )
    attempts = [
        make_attempt(first),
        make_attempt(first, Outcome.ANSWERED, status=503),
        make_attempt(second, status=200),
    ]
    attempts[-1].started_at = 0.25
    record = access_record(
        make_exchange(
            target=b"/v1/x?key=secret",
            model="qwen",
            rule=make_rule(),
            attempts=attempts,
            status=200,
            read_at=0.1,
            first_byte_at=0.5,
            ended_at=1.0,
            bytes_sent=7,
            input_tokens=1,
            output_tokens=2,
        )
    )
    assert record["path"] == "/v1/x"
    assert (record["route"], record["backend"], record["pod"]) == ("default/llm", "default/qwen", "default/192.0.2.2")
    assert record["retried"] == ["192.0.2.1:8000 connect_failed", "192.0.2.1:8000 503"]
    times = [record[name] for name in ("read_ms", "attempt_ms", "first_byte_ms", "duration_ms")]
    assert times == [100.0, 250.0, 500.0, 1000.0]
    assert (record["attempts"], record["status"], record["input_tokens"], record["output_tokens"]) == (3, 200, 1, 2)


def test_on_a_terminal_the_line_is_readable_and_holds_no_commands_for_it(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(file_descriptor=descriptor)
    attempts = [make_attempt(make_pick()), make_attempt(make_pick(make_endpoint("192.0.2.2")), status=200)]
    log = AccessLog(writer, is_readable=True)
    log.finished(
        make_exchange(
            target=b"/v1/\x1b[2J",
            model="qwen",
            rule=make_rule(),
            attempts=attempts,
            status=503,
            reason=Reason.UPSTREAM_UNAVAILABLE,
            flag="UF",
            ended_at=0.012,
        )
    )
    writer.close()
    os.close(descriptor)
    assert (tmp_path / "log").read_text() == (
        "00:00:00.000 503 POST /v1/?[2J model=qwen -> default/qwen 192.0.2.2:8000 12 ms 2 attempts "
        "(192.0.2.1:8000 connect_failed) upstream_unavailable UF\n"
    )
