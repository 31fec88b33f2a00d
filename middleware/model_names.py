"""Which model does an answer name? Puts the client's name where the upstream says the one that it was asked for.

Where the name is, model_name_scanner.py finds. Most events of a stream begin with the very same bytes, up to and with
the name; once seen they are replaced without being read again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from middleware.model_name_scanner import MODEL_KEY, NameScanner

if TYPE_CHECKING:
    from middleware.upstream.transport import UpstreamStream

# Headers that say something of bytes that are not those we send.
_OF_OTHER_BYTES = frozenset(
    {
        b"content-length",
        b"etag",
        b"content-md5",
        b"digest",
        b"content-digest",
        b"repr-digest",
        b"accept-ranges",
    }
)


def names_for(
    headers: Iterable[tuple[bytes, bytes]], *, status: int, asked: str | None, sent: str | None
) -> AnswerNames | None:
    """What puts the client's name into an answer with these headers; None where there is nothing to do, or where we
    cannot: an answer that is encoded all the same, a part of one, and what is neither JSON nor a stream of events."""
    if sent is None or asked is None or sent == asked or status == 206:
        return None
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value.split(b";", 1)[0].strip().lower()
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return None
    is_stream = kind == b"text/event-stream"
    if not is_stream and kind != b"application/json" and not kind.endswith(b"+json"):
        return None
    return AnswerNames(asked=asked, sent=sent, is_stream=is_stream)


def without_length(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer whose bytes are not the upstream's: without its length, digests and entity tag."""
    return [pair for pair in headers if pair[0] not in _OF_OTHER_BYTES]


class AnswerNames:
    """One answer's way through: ``feed`` takes what came and gives what goes on, ``flush`` the rest at the end."""

    __slots__ = ("_is_stream", "_scanner")

    def __init__(self, *, asked: str, sent: str, is_stream: bool) -> None:
        """``asked`` is the client's name, ``sent`` the upstream's; ``is_stream`` for server-sent events."""
        self._is_stream = is_stream
        self._scanner = NameScanner(asked=asked, sent=sent, is_stream=is_stream)

    def feed(self, data: bytes) -> bytes:
        """What of the answer can go on now."""
        scanner = self._scanner
        if not self._is_stream:
            return data if scanner.is_over else scanner.scan(data)[0]
        if scanner.is_fresh:
            return self._feed_events(data)
        out, rest = scanner.scan(data)
        return out + self._feed_events(rest) if rest else out

    def _feed_events(self, data: bytes) -> bytes:
        """What begins with an event. Where one has to be read, those behind it may begin as it does."""
        scanner = self._scanner
        parts: list[bytes] = []
        tries = 2
        while data:
            if tries:
                tries -= 1
                separator = scanner.separator
                end = len(data) if data.endswith(separator) else data.rfind(separator) + len(separator)
                events = data if end == len(data) else data[: max(0, end)]
                renamed = self._renamed(events, scanner.known, separator) if end >= len(separator) else None
                if renamed is not None:
                    parts.append(renamed)
                    data = b"" if end == len(data) else data[end:]
                    tries = 0
                    continue
            out, data = scanner.scan(data)
            parts.append(out)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _renamed(self, events: bytes, known: bytes, separator: bytes) -> bytes | None:
        """Whole events where all that have the name begin as is known; None where they have to be read."""
        if not known or not events.startswith(known):
            return None if MODEL_KEY in events else events
        renamed = self._scanner.renamed
        if events.find(MODEL_KEY, len(known)) < 0:
            return renamed + events[len(known) :]
        # Line ends cannot be inside a string, so what follows a blank line is an event's beginning.
        parts = events.split(separator + known)
        if events.count(MODEL_KEY) != len(parts):
            return None
        parts[0] = renamed + parts[0][len(known) :]
        return (separator + renamed).join(parts)

    def flush(self) -> bytes:
        """What was held back, when nothing more comes."""
        return self._scanner.flush()

    def reading(self, stream: UpstreamStream) -> Callable[[], Coroutine[Any, Any, bytes]]:
        """``stream.read``, with the client's name in what it gives."""

        async def read() -> bytes:
            data = self.feed(await stream.read())
            return data + self.flush() if stream.is_drained else data

        return read
