"""Which model does a body name?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.errors import InvalidBodyError, InvalidModelError
from middleware.inference_request import forwarded_content_type, read_body

JSON = b"application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        pytest.param(b'{"model":"qwen"}', JSON, "qwen", id="json"),
        pytest.param(b'{"model":"qwen"}', b"application/json; charset=utf-8", "qwen", id="json-with-parameter"),
        pytest.param(b'{"model":"qwen"}', b"application/vnd.x+json", "qwen", id="json-suffix"),
        pytest.param(b'{"model":"qwen"}', None, "qwen", id="no-type"),
        pytest.param(b'{"model":"qwen"}', b"text/plain", "qwen", id="text-plain"),
        pytest.param(b'{"model":"qwen"}', b"application/x-www-form-urlencoded", "qwen", id="curls-form-type"),
        pytest.param(b' \r\n\t{"model":"qwen"} ', JSON, "qwen", id="white-space"),
        pytest.param(b'{"model":"a","model":"b"}', JSON, "b", id="the-last-of-two-counts"),
        pytest.param(b'{"m\\u006fdel":"qwen"}', JSON, "qwen", id="escaped-key"),
        pytest.param(b'{"model":"qw\\u0065n"}', JSON, "qwen", id="escaped-value"),
        pytest.param('{"model":"möglich"}'.encode(), JSON, "möglich", id="not-ascii"),
        pytest.param(b'{"Model":"qwen"}', JSON, None, id="keys-are-case-sensitive"),
        pytest.param(b'{"a":{"model":"qwen"}}', JSON, None, id="only-the-top-level-counts"),
        pytest.param(b'{"prompt":"x"}', JSON, None, id="no-model"),
        pytest.param(b"", JSON, None, id="no-body"),
        pytest.param(b'["model"]', JSON, None, id="not-an-object"),
        pytest.param(b"null", JSON, None, id="null"),
        pytest.param(b"model=qwen", b"application/x-www-form-urlencoded", None, id="a-real-form"),
        pytest.param(b"hello", b"text/plain", None, id="plain-text"),
        pytest.param(b'{"model":"qwen"}', b"application/octet-stream", None, id="another-type"),
        pytest.param(b'{"model":"' + b"x" * 256 + b'"}', JSON, "x" * 256, id="longest-name"),
    ],
)
def test_the_model_of_a_body(body: bytes, content_type: bytes | None, expected: str | None) -> None:
    assert read_body(body, content_type)[0] == expected


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b'{"model":"qwen"', JSON, id="cut-short"),
        pytest.param(b'{"model":"qwen"} x', JSON, id="trailing-garbage"),
        pytest.param(b"model=qwen", JSON, id="not-json-at-all"),
        pytest.param(b'{"model":', None, id="looks-like-json"),
        pytest.param(b'\xef\xbb\xbf{"model":"qwen"}', JSON, id="byte-order-mark"),
        pytest.param('{"model":"qwen"}'.encode("utf-16"), JSON, id="utf-16"),
        pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, id="too-deep"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, JSON, id="too-deep-list"),
        pytest.param(b'{"a":NaN}', JSON, id="nan"),
        pytest.param(b'{"model":"\xff"}', JSON, id="bad-utf-8-in-the-name"),
        pytest.param(b'{"model":"\\ud800"}', JSON, id="half-a-surrogate-pair"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused_without_being_quoted(body: bytes, content_type: bytes) -> None:
    with pytest.raises(InvalidBodyError) as caught:
        read_body(body, content_type)
    assert "qwen" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "7",
        "true",
        '""',
        '["qwen"]',
        '{"name":"qwen"}',
        '"a\\u0000b"',
        '"a\\nb"',
        '"\\u007f"',
        '"a\\u0085b"',
        f'"{"x" * 257}"',
    ],
)
def test_a_model_that_is_no_usable_name_is_refused(value: str) -> None:
    with pytest.raises(InvalidModelError):
        read_body(b'{"model":' + value.encode() + b"}", JSON)


def multipart(*parts: tuple[str, bytes], boundary: str = "xx", end: bool = True) -> bytes:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


FORM = b"multipart/form-data; boundary=xx"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(multipart(("model", b"whisper"), ("file", b"\x00\x01")), "whisper", id="model-first"),
        pytest.param(multipart(("file", b"RIFF" * 50_000), ("model", b"whisper")), "whisper", id="model-last"),
        pytest.param(multipart(("file", b"x")), None, id="no-model"),
        pytest.param(multipart(("model", b"a"), ("model", b"b")), "b", id="the-last-of-two-counts"),
    ],
)
def test_the_model_part_of_a_form(body: bytes, expected: str | None) -> None:
    assert read_body(body, FORM) == (expected, False, None)


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        pytest.param(multipart(("model", b"a")), b"multipart/form-data", InvalidBodyError, id="no-boundary"),
        pytest.param(multipart(("model", b"a"), end=False), FORM, InvalidBodyError, id="cut-short"),
        pytest.param(b"not a form", FORM, InvalidBodyError, id="no-form"),
        pytest.param(b"x", b"multipart/form-data; boundary=" + b"b" * 300, InvalidBodyError, id="absurd-boundary"),
        pytest.param(b"--xx\r\n\r\n\r\n" * 100_000, FORM, InvalidBodyError, id="absurdly-many-parts"),
        pytest.param(multipart(("model", b"")), FORM, InvalidModelError, id="empty-name"),
        pytest.param(multipart(("model", b"\xff")), FORM, InvalidModelError, id="not-utf-8"),
        pytest.param(multipart(("model", b"x" * 5000)), FORM, InvalidModelError, id="too-long"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(body: bytes, content_type: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_body(body, content_type)


def test_only_a_body_read_as_a_json_object_is_relabelled() -> None:
    assert read_body(b'{"a":1}', None)[:2] == (None, True)
    assert read_body(b"[1]", None) == (None, False, None)
    assert forwarded_content_type(b"text/plain; charset=utf-8") == JSON
    assert forwarded_content_type(None) == JSON
    assert forwarded_content_type(b"application/vnd.x+json") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=256)


@given(document=st.dictionaries(st.text(), json_values), model=names)
def test_the_model_is_found_in_any_json_object(document: dict[str, Any], model: str) -> None:
    document["model"] = model
    assert read_body(json.dumps(document).encode(), JSON)[:2] == (model, True)
    assert read_body(json.dumps(document, ensure_ascii=False).encode(), None)[:2] == (model, True)


@given(body=st.binary(max_size=200), content_type=st.sampled_from([JSON, None, FORM, b"text/plain"]))
def test_no_body_makes_reading_fail_in_another_way(body: bytes, content_type: bytes | None) -> None:
    try:
        read_body(body, content_type)
    except (InvalidBodyError, InvalidModelError):
        pass
