"""Does the log keep the streams going, whatever happens to who reads it?"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import orjson

from app.logs import LineWriter, configure_logging


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
    loggers = [root, *map(logging.getLogger, ("asyncio", "uvicorn", "python_multipart"))]
    levels = [logger.level for logger in loggers]
    handler = configure_logging(writer, is_readable=False)
    try:
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("app.test").exception("it %s", "failed")
    finally:
        root.removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        writer.close()
        os.close(descriptor)
    (record,) = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert (record["level"], record["message"], record["logger"]) == ("error", "it failed", "app.test")
    assert "ValueError: why" in record["traceback"]
    assert record["time"].endswith("Z")
