"""Where do log lines go? To stdout, through a bounded buffer and one writer thread: a full pipe must not stop the
streams.

One JSON object per line; a readable line instead when stdout is a terminal.
"""

from __future__ import annotations

import datetime
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from functools import lru_cache

import orjson

BUFFER_LIMIT_BYTES = 8 * 1024 * 1024
FLUSH_INTERVAL_SECONDS = 0.05

CallLater = Callable[[float, Callable[[], None]], object]


class LineWriter:
    """Collects lines and hands them to its thread in batches: waking a thread per request would cost more than the
    line.

    ``write`` is called from one thread only (the event loop's). Lines over the limit are dropped and counted.
    """

    def __init__(self, *, file_descriptor: int = 1, limit_bytes: int = BUFFER_LIMIT_BYTES) -> None:
        self._fd = file_descriptor
        self._limit = limit_bytes
        self._lines: list[bytes] = []
        self._batches: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Each is changed by one thread alone, so that no lock is needed: bytes taken and lines refused by the event
        # loop's, bytes that are done with and lines lost by the writer.
        self._taken = self._refused = 0
        self._done = self._lost = 0
        self._is_flush_planned = False
        self._call_later: CallLater | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were."""
        return self._refused + self._lost

    def use_loop(self, call_later: CallLater) -> None:
        """From here on batches are flushed by the loop's timer; before, every line is written at once."""
        self._call_later = call_later

    def write(self, line: bytes) -> None:
        """Take a line without its line break. Never blocks, never raises."""
        size = len(line)
        if self._taken - self._done + size > self._limit:
            self._refused += 1
            return
        self._taken += size + 1
        self._lines.append(line)
        if self._call_later is None:
            self.flush()
        elif not self._is_flush_planned:
            self._is_flush_planned = True
            self._call_later(FLUSH_INTERVAL_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand what was collected to the thread."""
        self._is_flush_planned = False
        if self._lines:
            self._lines.append(b"")
            self._batches.put(b"\n".join(self._lines))
            self._lines.clear()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is left, for at most the given time: nobody may read the pipe any more."""
        self._call_later = None
        self.flush()
        self._batches.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            view = memoryview(batch)
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:  # a stdout that somebody has made non-blocking
                    select.select([], [self._fd], [])
                except OSError:  # nobody reads any more
                    self._lost += bytes(view).count(b"\n")
                    break
            self._done += len(batch)


@lru_cache(maxsize=2)
def _second(unix: int) -> str:
    return datetime.datetime.fromtimestamp(unix, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(unix: float) -> str:
    """A moment as RFC 3339 with milliseconds. The part that changes once a second is kept."""
    second = int(unix)
    return f"{_second(second)}.{int((unix - second) * 1000):03d}Z"


def printable(text: str) -> str:
    """The text without what a terminal could take for commands."""
    return "".join(character if character.isprintable() else "?" for character in text)


class LineHandler(logging.Handler):
    """The stdlib's log records, in the same form and through the same writer as the access log."""

    def __init__(self, writer: LineWriter, *, is_readable: bool) -> None:
        super().__init__()
        self._writer = writer
        self._is_readable = is_readable

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            trace = self._trace(record)
            moment = timestamp(record.created)
            if self._is_readable:
                line = f"{moment[11:23]} {record.levelname.lower()} {printable(text)}"
                self._writer.write((line + (f"\n{trace}" if trace else "")).encode())
                return
            fields = {"time": moment, "level": record.levelname.lower(), "message": text, "logger": record.name}
            if trace:
                fields["traceback"] = trace
            self._writer.write(orjson.dumps(fields))
        except Exception:  # logging's own rule: a log line never breaks the program
            self.handleError(record)

    def _trace(self, record: logging.LogRecord) -> str | None:
        if not record.exc_info:
            return None
        return (self.formatter or logging.Formatter()).formatException(record.exc_info)


def configure_logging(writer: LineWriter, *, is_readable: bool, level: int = logging.INFO) -> logging.Handler:
    """Send the stdlib's records of our packages and of uvicorn to the writer. Returns the handler, for its removal."""
    handler = LineHandler(writer, is_readable=is_readable)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's malformed form is no news to an operator
    return handler
