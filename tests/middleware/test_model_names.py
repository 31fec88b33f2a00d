"""Does an answer show the client's name where it says the model's, and nowhere else, in whatever pieces it comes?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from middleware.model_names import AnswerNames, names_for, without_length

RECORDED = sorted((Path(__file__).parent / "vllm_answers").glob("*.txt"))
ASKED, SENT = "food-review", "qwen"


def pieces_through(pieces: Iterable[bytes], *, is_stream: bool, sent: str = SENT) -> Iterator[bytes]:
    """What goes on for each piece, and last what was held back."""
    names = AnswerNames(asked=ASKED, sent=sent, is_stream=is_stream)
    for piece in pieces:
        yield names.feed(piece)
    yield names.flush()


def through(*pieces: bytes, is_stream: bool, sent: str = SENT) -> bytes:
    return b"".join(pieces_through(pieces, is_stream=is_stream, sent=sent))


def recorded(path: Path) -> tuple[bytes, bool]:
    """The body of a recorded answer, and whether it is a stream."""
    head, _, body = path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    return body, b"event-stream" in head


# -- recorded answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_answers_cut_at_every_byte(path: Path) -> None:
    body, is_stream = recorded(path)
    expected = body.replace(b'"model":"qwen"', b'"model":"food-review"')
    assert expected != body
    assert through(body, is_stream=is_stream) == expected
    for position in range(len(body) + 1):
        assert through(body[:position], body[position:], is_stream=is_stream) == expected
    for size in (1, 2, 3, 7, 100):
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        assert through(*parts, is_stream=is_stream) == expected


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_answers_with_other_line_ends_cut_at_every_byte(path: Path) -> None:
    body, is_stream = recorded(path)
    body = body.replace(b"\n", b"\r\n")
    expected = body.replace(b'"model":"qwen"', b'"model":"food-review"')
    for position in range(len(body) + 1):
        assert through(body[:position], body[position:], is_stream=is_stream) == expected


@pytest.mark.parametrize("path", [p for p in RECORDED if "stream" in p.stem], ids=lambda path: path.stem)
def test_whole_events_are_never_held_back(path: Path) -> None:
    body, _ = recorded(path)
    events = [event + b"\n\n" for event in body.removesuffix(b"\n\n").split(b"\n\n")]
    expected = [event.replace(b'"model":"qwen"', b'"model":"food-review"') for event in events]
    assert list(pieces_through(events, is_stream=True)) == [*expected, b""]
    for size in (2, 3, 5):
        joined = [b"".join(events[start : start + size]) for start in range(0, len(events), size)]
        assert b"".join(pieces_through(joined, is_stream=True)) == b"".join(expected)


# -- what is the answer's own, and what is text ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        pytest.param(b'{"model":"qwen"}', b'{"model":"food-review"}', id="alone"),
        pytest.param(b'{"a":1, "model" : "qwen" }', b'{"a":1, "model" : "food-review" }', id="spaces"),
        pytest.param(b'{\n  "model": "qwen"\n}', b'{\n  "model": "food-review"\n}', id="lines"),
        pytest.param(b'{"data":[{"x":[1]}],"model":"qwen"}', b'{"data":[{"x":[1]}],"model":"food-review"}', id="end"),
        pytest.param(b'{"model":"qw\\u0065n"}', b'{"model":"food-review"}', id="escaped"),
        pytest.param(b'{"model":"qwen2"}', None, id="longer"),
        pytest.param(b'{"model":"qwe"}', None, id="shorter"),
        pytest.param(b'{"model":"QWEN"}', None, id="case"),
        pytest.param(b'{"model":["qwen"]}', None, id="list"),
        pytest.param(b'{"model":null,"id":"qwen"}', None, id="null"),
        pytest.param(b'{"models":"qwen","the model":"qwen"}', None, id="other-keys"),
        pytest.param(b'{"object":"model","qwen":"model"}', None, id="as-a-value"),
        pytest.param(b'{"error":{"param":"model","model":"qwen"}}', None, id="nested"),
        pytest.param(b'[{"model":"qwen"}]', None, id="in-a-list"),
        pytest.param(b'{"message":{"model":"qwen"}}', None, id="a-message-outside-of-a-stream"),
        pytest.param(b'{"content":[{"type":"tool_use","input":{"model":"qwen"}}]}', None, id="tool-input"),
        pytest.param(b'{"text":"\\"model\\":\\"qwen\\""}', None, id="quoted-in-text"),
        pytest.param(b'{"text":"{\\"model\\":\\"qwen\\"}\\\\","x":0}', None, id="text-that-ends-in-a-backslash"),
        pytest.param(b'{"\\"model":"qwen"}', None, id="a-key-that-ends-like-it"),
        pytest.param(b'{"text":"\\\\\\"model","x":"qwen"}', None, id="text-that-ends-like-it"),
        pytest.param(b'"model":"qwen"', None, id="no-object"),
        pytest.param(b'}]{"model":"qwen"}', b'}]{"model":"food-review"}', id="brackets-too-many"),
        pytest.param(b"", None, id="nothing"),
    ],
)  # fmt: skip
def test_of_json_the_top_levels_model_is_renamed(body: bytes, changed: bytes | None) -> None:
    for position in range(len(body) + 1):
        assert through(body[:position], body[position:], is_stream=False) == (body if changed is None else changed)


@pytest.mark.parametrize(
    ("events", "changed"),
    [
        pytest.param(b'data: {"model":"qwen"}\n\n', b'data: {"model":"food-review"}\n\n', id="alone"),
        pytest.param(b'data:{"model":"qwen"}\n\n', b'data:{"model":"food-review"}\n\n', id="no-space"),
        pytest.param(b'data: {"model":"qwen"}\r\r', b'data: {"model":"food-review"}\r\r', id="carriage-returns"),
        pytest.param(
            b'data: {"message":{"content":[],"model":"qwen"}}\n\n',
            b'data: {"message":{"content":[],"model":"food-review"}}\n\n',
            id="message",
        ),
        pytest.param(
            b'event: response.created\ndata: {"response" : { "model" : "qwen" } }\n\n',
            b'event: response.created\ndata: {"response" : { "model" : "food-review" } }\n\n',
            id="response",
        ),
        pytest.param(
            b'data: {\ndata:   "a": {},\ndata:   "model": "qwen"\ndata: }\n\n',
            b'data: {\ndata:   "a": {},\ndata:   "model": "food-review"\ndata: }\n\n',
            id="data-on-several-lines",
        ),
        pytest.param(
            b': a "comment {\n\ndata: {"model":"qwen"}\n\ndata: {"model":"qwen"}\n\n',
            b': a "comment {\n\ndata: {"model":"food-review"}\n\ndata: {"model":"food-review"}\n\n',
            id="behind-a-stray-comment",
        ),
        pytest.param(
            b'data: {"model":"qwen","text":"a \\"model"}\n\ndata: {"model":"qwen","text":"model"}\n\n',
            b'data: {"model":"food-review","text":"a \\"model"}\n\ndata: {"model":"food-review","text":"model"}\n\n',
            id="text-that-looks-like-a-key",
        ),
        pytest.param(b'data: {"delta":{"model":"qwen"}}\n\n', None, id="below-another-key"),
        pytest.param(b'data: {"response":{"text":{"model":"qwen"}}}\n\n', None, id="deeper"),
        pytest.param(b'data: {"response":[{"model":"qwen"}]}\n\n', None, id="in-a-list-of-responses"),
        pytest.param(b'data: {"response":null,"x":{"model":"qwen"}}\n\n', None, id="beside-an-empty-response"),
        pytest.param(b'data: {"x":"response","y":{"model":"qwen"}}\n\n', None, id="response-as-a-value"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"{\\"model\\":\\"qwen\\"}"}}]}\n\n', None, id="text"),
        pytest.param(b'data: {"content_block":{"input":{"model":"qwen"}}}\n\n', None, id="tool-input"),
        pytest.param(b"data: [DONE]\n\n", None, id="done"),
        pytest.param(b'event: error\ndata: {"error":{"message":"no \\"model\\""}}\n\n', None, id="error"),
    ],
)
def test_of_events_the_answers_own_model_is_renamed(events: bytes, changed: bytes | None) -> None:
    # The second time with an event before it, so that beginnings are known.
    known, renamed = b'data: {"model":"qwen"}\n\n', b'data: {"model":"food-review"}\n\n'
    for before, shown in ((b"", b""), (known, renamed), (known * 2, renamed * 2)):
        body, expected = before + events, shown + (events if changed is None else changed)
        for position in range(len(body) + 1):
            assert through(body[:position], body[position:], is_stream=True) == expected


def test_little_is_held_back() -> None:
    long = "q" * 256
    names = AnswerNames(asked=ASKED, sent=long, is_stream=False)
    assert names.feed(b'{"model":"') == b'{"model":'
    held = 1
    for _ in range(20):
        held += 1000 - len(names.feed(b"x" * 1000))
        assert held <= 12 * 256 + 2
    assert through(b'{"mod', is_stream=False) == b'{"mod'  # an answer that ends in the middle
    assert through(b'{"model":"qw', is_stream=False) == b'{"model":"qw'


# -- any answer -----------------------------------------------------------------------------------------------------

keys = st.sampled_from(["model", "response", "message", "id", "input", '"model', "mod", "model\\"])
texts = st.sampled_from(["qwen", "qwen2", "model", '"model":"qwen"', 'a"model', "\\", "\\\\", "\n\n", "ö", ""])


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=4).map(Pairs),
    max_leaves=12,
)
documents = st.lists(st.tuples(keys, values), max_size=5).map(Pairs)


class Writer:
    """Writes a document twice: as the upstream does, and as the client is to see it."""

    def __init__(self, draw: st.DrawFn, *, is_stream: bool) -> None:
        self.space = draw(st.sampled_from(["", " "]))
        self.is_ascii = draw(st.booleans())
        self.is_stream = is_stream
        self.is_passed = False

    def write(self, value: Any, path: tuple[str, ...]) -> tuple[str, str]:
        if not isinstance(value, list):
            text = json.dumps(value, ensure_ascii=self.is_ascii)
            if self.is_answers_own(path):
                self.is_passed = True
                return text, json.dumps(ASKED) if value == SENT else text
            return text, text
        is_object = isinstance(value, Pairs)
        if self.is_answers_own(path):
            self.is_passed = True
        written = []
        for number, item in enumerate(value):
            name, inner = item if is_object else (str(number), item)
            own, shown = self.write(inner, (*path, name) if is_object else (*path, "[]"))
            key = f"{json.dumps(name)}:{self.space}" if is_object else ""
            written.append((key + own, key + shown))
        comma = "," + self.space
        opening, closing = "{}" if is_object else "[]"
        joined = [opening + comma.join(parts) + closing for parts in zip(*written, strict=True)] or [opening + closing]
        return joined[0], joined[-1]

    def is_answers_own(self, path: tuple[str, ...]) -> bool:
        if self.is_passed:
            return False
        return path == ("model",) or (self.is_stream and path in (("response", "model"), ("message", "model")))


@st.composite
def answers(draw: st.DrawFn, *, is_stream: bool) -> tuple[bytes, bytes]:
    """An answer and what the client is to see."""
    if not is_stream:
        own, shown = Writer(draw, is_stream=False).write(draw(documents), ())
        return own.encode(), shown.encode()
    line = draw(st.sampled_from(["\n", "\r\n"]))
    own = shown = ""
    found = draw(st.lists(documents, min_size=1, max_size=4))
    found += found[: draw(st.integers(0, 2))]  # events that begin alike
    for document in found:
        before = draw(st.sampled_from(["data: ", "data:", f"event: x{line}data: ", f": ping{line}{line}data: "]))
        upstreams, clients = Writer(draw, is_stream=True).write(document, ())
        own += f"{before}{upstreams}{line}{line}"
        shown += f"{before}{clients}{line}{line}"
    return own.encode(), shown.encode()


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(answer=answers(is_stream=True), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_any_stream_in_any_pieces(answer: tuple[bytes, bytes], cuts: list[int]) -> None:
    own, shown = answer
    assert through(*in_pieces(own, cuts), is_stream=True) == shown
    assert through(*(own[i : i + 1] for i in range(len(own))), is_stream=True) == shown


@given(answer=answers(is_stream=False), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_any_json_in_any_pieces(answer: tuple[bytes, bytes], cuts: list[int]) -> None:
    own, shown = answer
    assert through(*in_pieces(own, cuts), is_stream=False) == shown
    assert through(*(own[i : i + 1] for i in range(len(own))), is_stream=False) == shown


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5), is_stream=st.booleans())
@example(data=b'{"model":"a\nb"}', cuts=[], is_stream=True)
@example(data=b'{"x":"a\nb","model":"qwen', cuts=[5], is_stream=False)
@example(data=b'{"x\\\n', cuts=[4], is_stream=True)
def test_what_is_no_json_passes_as_it_is(data: bytes, cuts: list[int], is_stream: bool) -> None:
    if b'"qwen"' not in data:
        assert through(*in_pieces(data, cuts), is_stream=is_stream) == data


# -- which answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "is_edited"),
    [
        pytest.param([(b"content-type", b"application/json")], True, id="json"),
        pytest.param([(b"content-type", b"Application/Problem+JSON; charset=utf-8")], True, id="json-suffix"),
        pytest.param([(b"content-type", b"text/event-stream; charset=utf-8")], True, id="events"),
        pytest.param([(b"content-type", b"text/plain")], False, id="text"),
        pytest.param([(b"content-type", b"audio/mpeg")], False, id="audio"),
        pytest.param([], False, id="no-type"),
        pytest.param([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], False, id="encoded"),
        pytest.param([(b"content-type", b"application/json"), (b"content-encoding", b"identity")], True, id="identity"),
    ],
)
def test_json_and_events_in_plain_text_are_looked_at(headers: list[tuple[bytes, bytes]], is_edited: bool) -> None:
    assert (names_for(headers, status=200, asked=ASKED, sent=SENT) is not None) is is_edited
    assert (names_for(headers, status=404, asked=ASKED, sent=SENT) is not None) is is_edited
    assert names_for(headers, status=206, asked=ASKED, sent=SENT) is None
    assert names_for(headers, status=200, asked=ASKED, sent=None) is None
    assert names_for(headers, status=200, asked=ASKED, sent=ASKED) is None
    assert names_for(headers, status=200, asked=None, sent=SENT) is None


def test_headers_that_speak_of_the_upstreams_bytes_go() -> None:
    kept = (b"content-type", b"application/json")
    gone = [(name, b"1") for name in (b"content-length", b"etag", b"content-md5", b"digest", b"repr-digest")]
    assert without_length([kept, *gone]) == [kept]
