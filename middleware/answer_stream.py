"""What does the end of an answer tell? Looks once at its last 2 KiB: token usage, and an error event (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LAST_WORDS_BYTES = 2048

# A quote that generated text contains is escaped, so an unescaped key is the answer's own.
_INPUT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,15})')
_OUTPUT_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,15})')
_CACHE_READ_TOKENS = re.compile(rb'"(?:cached_tokens|cache_read_input_tokens)"\s*:\s*(\d{1,15})')
_CACHE_WRITE_TOKENS = re.compile(rb'"cache_creation_input_tokens"\s*:\s*(\d{1,15})')
# An event named error, or whose data is an object that begins as an error does: {"error":…, {"object":"error",…,
# {"type":"error",… (vLLM, OpenAI, Anthropic).
_ERROR_EVENT = re.compile(
    rb'(?:\A|\n)(?:event:[ ]?error\r?\n|data:[ ]?\{\s*"(?:error"\s*:\s*[^n\s]|(?:object|type)"\s*:\s*"error"))'
)


@dataclass(slots=True)
class LastWords:
    """What the last bytes of an answer say."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None  # of the input tokens
    cache_write_tokens: int | None
    is_error_event: bool


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an event of ours can be put behind what was sent: server-sent events, chunked, without content coding."""
    is_stream = False
    for name, value in headers:
        if name == b"content-type":
            is_stream = value[:17].lower() == b"text/event-stream"
        elif name == b"content-length" or (name == b"content-encoding" and value.lower() != b"identity"):
            return False
    return is_stream


def read_last_words(tail: Sequence[bytes], headers: Iterable[tuple[bytes, bytes]]) -> LastWords:
    """Read the end of an answer, which has these headers, from its last chunks."""
    text = b"".join(tail)[-LAST_WORDS_BYTES:]
    start = text.rfind(b'"usage"')
    input_tokens = output_tokens = cache_read_tokens = cache_write_tokens = None
    if start >= 0:
        input_tokens = _number(_INPUT_TOKENS, text, start)
        output_tokens = _number(_OUTPUT_TOKENS, text, start)
        if text.find(b"cache", start) >= 0:
            cache_read_tokens = _number(_CACHE_READ_TOKENS, text, start)
            cache_write_tokens = _number(_CACHE_WRITE_TOKENS, text, start)
    # The plain look first: the expression costs 20 µs on a stream without errors.
    is_error_event = b"error" in text and is_event_stream(headers) and _ERROR_EVENT.search(text) is not None
    return LastWords(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, is_error_event)


def _number(key: re.Pattern[bytes], text: bytes, start: int) -> int | None:
    found = key.search(text, start)
    return None if found is None else int(found.group(1))


def is_mid_event(tail: Sequence[bytes]) -> bool:
    """Whether the last event was not ended by its blank line."""
    end = b"".join(tail)[-4:]
    return bool(end) and not end.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
