"""YAML 1.2 core and JSON, with lines; and texts that are out to hurt."""

from __future__ import annotations

import math
from typing import Any

import pytest

from discovery.resources.yaml_documents import DocumentError, read_documents, split_documents


def only(text: str) -> Any:
    (document,) = read_documents(text)
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("yes", "yes", id="yes-is-a-string"),
        pytest.param("off", "off", id="off-is-a-string"),
        pytest.param("2024-01-31", "2024-01-31", id="a-date-is-a-string"),
        pytest.param("2024-01-31T12:00:00Z", "2024-01-31T12:00:00Z", id="a-time-is-a-string"),
        pytest.param("12:30:45", "12:30:45", id="no-base-60"),
        pytest.param("true", True, id="true"),
        pytest.param("False", False, id="False"),
        pytest.param("0o17", 15, id="octal"),
        pytest.param("0x1F", 31, id="hex"),
        pytest.param("017", 17, id="a-leading-zero-is-decimal"),
        pytest.param("1_000", "1_000", id="no-underscores"),
        pytest.param("-12", -12, id="negative"),
        pytest.param("1.5e3", 1500.0, id="float"),
        pytest.param("-.inf", -math.inf, id="infinity"),
        pytest.param("24h", "24h", id="duration"),
        pytest.param('"8080"', "8080", id="quoted"),
        pytest.param("!!str 8080", "8080", id="tagged-string"),
        pytest.param("!!int '12'", 12, id="tagged-integer"),
    ],
)
def test_scalars_are_those_of_yaml_1_2_core(text: str, value: object) -> None:
    assert only(f"key: {text}") == {"key": value}


@pytest.mark.parametrize("text", [pytest.param(t, id=t or "nothing") for t in ["", "~", "null", "Null"]])
def test_null_is_null(text: str) -> None:
    assert only(f"key: {text}") == {"key": None}


def test_documents_know_their_lines_and_empty_ones_are_skipped() -> None:
    documents = list(read_documents("# head\n---\na: 1\nb:\n- c: 2\n  d: 3\n---\n---\n\ne: 4\n"))
    assert [d.data for d in documents] == [{"a": 1, "b": [{"c": 2, "d": 3}]}, {"e": 4}]
    assert [d.line for d in documents] == [3, 10]
    assert documents[0].line_of(("b", 0, "d")) == 6
    assert documents[0].line_of(("b", 0, "missing", "below")) == 5
    assert documents[0].line_of(("b", 7)) == 4


def test_json_is_read_also_where_yaml_cannot() -> None:
    assert only('{"a": ["\\u00e9", true, null, 1e3], \t"b": "\\/"}') == {"a": ["é", True, None, 1000.0], "b": "/"}
    assert only('{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_anchors_and_merge_keys_work_and_explicit_keys_win() -> None:
    data = only("base: &base {a: 1, b: 2}\nnext: {<<: *base, b: 3}\nlist: [{<<: [*base, {c: 4}]}]\n")
    assert data["next"] == {"a": 1, "b": 3}
    assert data["list"] == [{"a": 1, "b": 2, "c": 4}]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", 3, 'the key "a" is there twice', id="duplicate-key"),
        pytest.param('{"a": "\\ud83d\\ude00", "a": 1}', 1, "a key is there twice", id="duplicate-key-in-json"),
        pytest.param("a: [1\nb: 2\n", 2, "not YAML", id="unclosed"),
        pytest.param("\n\n\tx: 1", 3, "not YAML", id="tab"),
        pytest.param("a: \x01", 1, "not YAML", id="control-character"),
        pytest.param('{"a": "\\ud83d\\ude00",}', 1, "not JSON", id="bad-json"),
        pytest.param('{"a": "\\ud83d\\ude00", "b": ' + "[" * 200_000, 1, "nested deeper|not JSON", id="deep-json"),
        pytest.param("? [a]\n: 1", 1, "a key must be a string", id="complex-key"),
        pytest.param("a: !!binary aGk=", 1, "is not supported", id="binary"),
        pytest.param("a: !mine {b: 1}", 1, "is not supported", id="own-tag"),
        pytest.param("a: !!int x", 1, "is not a number", id="not-a-number"),
        pytest.param("a: &a [*a]", 1, "an alias inside what it stands for", id="recursive-alias"),
        pytest.param("a: *nowhere", 1, "not YAML", id="undefined-alias"),
        pytest.param("a: {<<: 1}", 1, "only mappings can be merged", id="merge-of-a-scalar"),
        pytest.param("[" * 5_000, 1, "nested deeper", id="deep-brackets"),
        pytest.param("- " * 5_000 + "a", 1, "nested deeper", id="deep-dashes"),
        pytest.param("[" * 200_000, 1, "nested deeper", id="very-deep-brackets"),
        pytest.param(BOMB, 1, "aliases expand", id="billion-laughs"),
    ],
)
def test_what_is_not_yaml_is_an_error_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as raised:
        list(read_documents(text))
    assert raised.value.line == line


def test_the_documents_before_a_broken_one_are_read() -> None:
    documents = read_documents("a: 1\n---\nb: [\n")
    assert next(documents).data == {"a": 1}
    with pytest.raises(DocumentError):
        next(documents)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [(0, "")], id="nothing"),
        pytest.param("a: 1\n", [(0, "a: 1\n")], id="one"),
        pytest.param("a: 1\n---\nb: 2\n", [(0, "a: 1\n"), (1, "---\nb: 2\n")], id="two"),
        pytest.param("---\na: 1\n--- # more\nb: 2", [(0, "---\na: 1\n"), (2, "--- # more\nb: 2")], id="marked-first"),
        pytest.param("# c\n\n---\na: 1\n", [(0, "# c\n\n"), (2, "---\na: 1\n")], id="a-comment-first"),
        pytest.param("\n\n---\na: 1\n", [(2, "---\na: 1\n")], id="empty-lines-first"),
        pytest.param("a: 1\n---", [(0, "a: 1\n"), (1, "---")], id="an-end"),
        pytest.param("a: |\n  x\n---b\n---\tc", [(0, "a: |\n  x\n---b\n"), (3, "---\tc")], id="three-dashes-in-a-word"),
        pytest.param("a: |\n  ---\n", [(0, "a: |\n  ---\n")], id="indented"),
        pytest.param("%YAML 1.2\n---\na: 1\n---\n", [(0, "%YAML 1.2\n---\na: 1\n---\n")], id="directives"),
    ],
)
def test_a_text_is_split_where_a_document_starts(text: str, expected: list[tuple[int, str]]) -> None:
    assert list(split_documents(text)) == expected


def test_what_is_split_is_read_as_before() -> None:
    text = "# first\na: 1\n---\nb: |\n  x\n---\n---\nc: [1,\n 2]\n...\n---\n- d\n"
    split = [(line + d.line, d.data) for line, part in split_documents(text) for d in read_documents(part)]
    assert split == [(d.line, d.data) for d in read_documents(text)]
