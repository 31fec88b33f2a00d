"""What do the last bytes of an answer tell?"""

from __future__ import annotations

import pytest

from middleware.answer_stream import is_event_stream, is_mid_event, read_last_words

VLLM_DEATH = (
    b'data: {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": null,'
    b' "code": 500}}\n\ndata: [DONE]\n\n'
)

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
PLAIN = [(b"content-type", b"application/json")]


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        pytest.param([b'{"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}'], (7, 10), id="chat"),
        pytest.param([b'{"usage": {"input_tokens": 3, "output_tokens": 4}}'], (3, 4), id="responses"),
        pytest.param(
            [b'data: {"usage":{"prompt_to', b'kens":7,"completion_tokens":1', b"0}}\n\n"], (7, 10), id="split"
        ),
        pytest.param([b'{"usage":null}'], (None, None), id="null"),
        pytest.param([b"{}"], (None, None), id="none"),
        pytest.param([b'{"text":"\\"usage\\":{\\"prompt_tokens\\":9}"}'], (None, None), id="inside-generated-text"),
        pytest.param([b'{"usage":{"prompt_tokens":1}}', b"x" * 4096], (None, None), id="too-far-from-the-end"),
    ],
)
def test_usage_is_read_from_the_end(chunks: list[bytes], tokens: tuple[int | None, int | None]) -> None:
    words = read_last_words(chunks, EVENTS)
    assert (words.input_tokens, words.output_tokens) == tokens


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        pytest.param(VLLM_DEATH, True, id="vllm"),
        pytest.param(b'event: error\ndata: {"type":"error","error":{}}\n\n', True, id="anthropic"),
        pytest.param(b"event:error\r\ndata: {}\r\n\r\n", True, id="crlf"),
        pytest.param(b'data: {"object":"error","message":"x"}\n\n', True, id="old-vllm"),
        pytest.param(b'data: {"error":null,"choices":[]}\n\n', False, id="null-error"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"\\nevent: error\\n"}}]}\n\n', False, id="generated-text"),
        pytest.param(b"data: [DONE]\n\n", False, id="done"),
    ],
)
def test_an_error_event_is_seen(chunk: bytes, expected: bool) -> None:
    assert read_last_words([chunk], EVENTS).is_error_event is expected
    assert read_last_words([chunk], PLAIN).is_error_event is False


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(b"content-type", b"text/event-stream; charset=utf-8")], True, id="stream"),
        pytest.param([(b"content-type", b"application/json")], False, id="json"),
        pytest.param([(b"content-type", b"text/event-stream"), (b"content-length", b"9")], False, id="length"),
        pytest.param([(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")], False, id="encoded"),
        pytest.param(
            [(b"content-type", b"text/event-stream"), (b"content-encoding", b"identity")], True, id="identity"
        ),
    ],
)
def test_an_event_of_ours_fits_behind_a_plain_stream_only(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_event_stream(headers) is expected


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"data: 1\n\n"], False),
        ([b"data: 1\r\n\r\n"], False),
        ([b"data: 1\n", b"\n"], False),
        ([b"data: 1\n"], True),
        ([b"data: 1"], True),
        ([b""], False),
    ],
)
def test_the_middle_of_an_event_is_known(chunks: list[bytes], expected: bool) -> None:
    assert is_mid_event(chunks) is expected
