"""Where does one line of a watch end? Bytes as they come -> whole lines, up to a limit."""

from __future__ import annotations

MAX_LINE_BYTES = 16 * 1024 * 1024  # etcd takes 1.5 MiB; escaped as JSON that can become six times as much


class LineTooLongError(Exception):
    """A line above the limit: what comes behind it can still be read, but this event is lost."""


class LineBuffer:
    """Collects bytes into lines. What has no end when the stream ends was cut, and is never given out."""

    def __init__(self, *, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without their ends; blank ones are left out. Raises LineTooLongError."""
        first, end, rest = data.partition(b"\n")
        if not end:
            self._keep(data)
            return []
        self._keep(first)
        lines = [b"".join(self._parts)]
        self._parts.clear()
        self._size = 0
        *whole, last = rest.split(b"\n")
        lines += whole
        if last:
            self._keep(last)
        return [line for line in lines if line.strip()]

    def _keep(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._max_bytes:
            raise LineTooLongError(f"an event of more than {self._max_bytes} bytes")
