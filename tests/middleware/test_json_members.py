"""Does a member change without anything else changing? Objects of any shape, with names written in any way."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.errors import InvalidBodyError
from middleware.json_members import MAX_DEPTH, MAX_SAME_NAME, change_members, replace_model

NEW = b'"new/name"'


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        pytest.param(b'{"model":"a"}', b'{"model":"new/name"}', id="alone"),
        pytest.param(
            b' {\n "model" : "a" ,\t"n": 1.50 }\n', b' {\n "model" : "new/name" ,\t"n": 1.50 }\n', id="spaces"
        ),
        pytest.param(b'{"model":"a","model":"b"}', b'{"model":"new/name","model":"new/name"}', id="twice"),
        pytest.param(b'{"model":7,"model":"b"}', b'{"model":"new/name","model":"new/name"}', id="first-is-a-number"),
        pytest.param(b'{"model":[{"model":1}],"model":"b"}', b'{"model":"new/name","model":"new/name"}', id="a-list"),
        pytest.param(b'{"m\\u006fdel":"a"}', b'{"m\\u006fdel":"new/name"}', id="escaped-key"),
        pytest.param(
            b'{"\\u006D\\u006f\\u0064\\u0065\\u006C":"a","model":"b"}',
            b'{"\\u006D\\u006f\\u0064\\u0065\\u006C":"new/name","model":"new/name"}',
            id="both-spellings",
        ),
        pytest.param(b'{"model":"a\\"b\\\\"}', b'{"model":"new/name"}', id="escapes-in-the-value"),
        pytest.param(b'{"x":"model","model":"a"}', b'{"x":"model","model":"new/name"}', id="as-a-value"),
        pytest.param(b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"new/name"}', id="nested"),
        pytest.param(
            b'{"x":"\\"model\\":\\"a\\"","model":"a"}', b'{"x":"\\"model\\":\\"a\\"","model":"new/name"}', id="in-text"
        ),
        pytest.param(b'{"\\"model":"x","model":"a"}', b'{"\\"model":"x","model":"new/name"}', id="quote-in-a-key"),
        pytest.param(b'{"x\\\\":"\\\\","model":"a"}', b'{"x\\\\":"\\\\","model":"new/name"}', id="backslashes"),
        pytest.param('{"é":"ü","model":"ö"}'.encode(), '{"é":"ü","model":"new/name"}'.encode(), id="not-ascii"),
    ],
)
def test_the_models_value_is_replaced_and_nothing_else(body: bytes, changed: bytes) -> None:
    assert replace_model(body, NEW) == changed


@pytest.mark.parametrize(
    ("body", "changes", "changed"),
    [
        pytest.param(b"{}", {"a": b"1"}, b'{"a":1}', id="into-nothing"),
        pytest.param(b"{ }", {"a": b"1", "b": b"[2]"}, b'{"a":1,"b":[2] }', id="two-into-nothing"),
        pytest.param(b'{"x":1 }', {"a": b"null"}, b'{"x":1,"a":null }', id="behind-the-last"),
        pytest.param(b'{"a":1,"x":2}', {"a": b'{"y":1}'}, b'{"a":{"y":1},"x":2}', id="in-place"),
        pytest.param(b'{"a":1,"x":2}', {"a": None}, b'{"x":2}', id="first-goes"),
        pytest.param(b'{"x":2, "a":1}', {"a": None}, b'{"x":2}', id="last-goes"),
        pytest.param(b'{"x":2,"a":1,"y":[3]}', {"a": None}, b'{"x":2,"y":[3]}', id="middle-goes"),
        pytest.param(b'{"a":1}', {"a": None}, b"{}", id="only-one-goes"),
        pytest.param(b'{"a":1,"a":[2],"b":{}}', {"a": None, "b": None}, b"{}", id="all-go"),
        pytest.param(b'{"x":0,"a":1,"b":2}', {"a": None, "b": None}, b'{"x":0}', id="last-two-go"),
        pytest.param(b'{"a":1}', {"a": None, "c": b"3"}, b'{"c":3}', id="one-goes-one-comes"),
        pytest.param(b'{"x":1,"a":1}', {"a": None, "c": b"3"}, b'{"x":1,"c":3}', id="last-goes-one-comes"),
        pytest.param(b'{"x":1}', {"y": None}, b'{"x":1}', id="what-is-not-there-need-not-go"),
        pytest.param(b'{"A":1}', {"a": b"2"}, b'{"A":1,"a":2}', id="case-counts"),
        pytest.param(b'{"a.b":1}', {"a.b": b"2"}, b'{"a.b":2}', id="a-dot-is-a-dot"),
        pytest.param(b'{"\\u00e9\\/":1}', {"é/": b"2"}, b'{"\\u00e9\\/":2}', id="escapes"),
        pytest.param(b'{"\\ud83d\\ude00":1}', {"😀": b"2"}, b'{"\\ud83d\\ude00":2}', id="surrogates"),
        pytest.param(b'{"x":1}', {'"\\\n\x01': b"2"}, b'{"x":1,"\\"\\\\\\n\\u0001":2}', id="a-name-that-needs-escapes"),
    ],
)
def test_members_come_change_and_go(body: bytes, changes: dict[str, bytes | None], changed: bytes) -> None:
    assert change_members(body, changes) == changed


# -- any object -----------------------------------------------------------------------------------------------------

names = st.sampled_from(["model", "user", "a", "", 'mo"del', "model\\", "é", "😀"]) | st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just('"model":"x"')
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
spaces = st.sampled_from(["", " ", "\n ", "\t"])


@st.composite
def objects(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Members as (text before the value, name, value's text)."""
    members = []
    for number, (name, value) in enumerate(draw(st.lists(st.tuples(names, values), max_size=6))):
        comma = "," if number else ""
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        if draw(st.booleans()):
            key = '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 0x10000 else c for c in name) + '"'
        before = f"{draw(spaces)}{comma}{draw(spaces)}{key}{draw(spaces)}:{draw(spaces)}"
        members.append((before, name, json.dumps(value, ensure_ascii=draw(st.booleans()))))
    return members


@given(members=objects(), changes=st.dictionaries(names, st.none() | values.map(lambda v: json.dumps(v).encode())))
def test_an_object_of_any_shape_changes_as_a_parser_sees_it(
    members: list[tuple[str, str, str]], changes: dict[str, bytes | None]
) -> None:
    body = ("{" + "".join(before + value for before, _, value in members) + " }").encode()
    pairs: list[tuple[str, Any]] = []
    for _, name, value in members:
        new = changes.get(name, value.encode())
        if new is not None:
            pairs.append((name, json.loads(new)))
    kept = {name for name, _ in pairs}
    pairs += [(name, json.loads(new)) for name, new in changes.items() if new is not None and name not in kept]
    changed = change_members(body, changes) if changes else body
    assert json.loads(changed, object_pairs_hook=lambda found: found) == _as_pairs(pairs)
    msgspec.json.decode(changed)


@given(members=objects(), name=st.text(min_size=1, max_size=20))
def test_what_is_not_the_model_keeps_its_bytes(members: list[tuple[str, str, str]], name: str) -> None:
    members = [*members, ("," * bool(members) + '"model":', "model", '"asked"')]
    new = msgspec.json.encode(name)
    body = "{" + "".join(before + value for before, _, value in members) + "}"
    expected = "{" + "".join(
        before + (new.decode() if key == "model" else value) for before, key, value in members
    ) + "}"  # fmt: skip
    assert replace_model(body.encode(), new) == expected.encode()


def _as_pairs(value: Any) -> Any:
    """As json.loads gives it with a hook that keeps pairs; the outermost level are pairs already."""

    def inner(found: Any) -> Any:
        if isinstance(found, dict):
            return [(key, inner(item)) for key, item in found.items()]
        return [inner(item) for item in found] if isinstance(found, list) else found

    return [(key, inner(item)) for key, item in value]


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_what_is_nested_beyond_reason_is_refused_and_what_is_not_is_taken() -> None:
    def nested(depth: int) -> bytes:
        return b'{"x":' + b"[" * depth + b"]" * depth + b',"model":1,"model":"a"}'

    assert replace_model(nested(MAX_DEPTH), NEW).endswith(b'"model":"new/name","model":"new/name"}')
    with pytest.raises(InvalidBodyError):
        replace_model(nested(MAX_DEPTH + 1), NEW)


def test_a_name_repeated_beyond_reason_is_refused() -> None:
    def repeated(count: int) -> bytes:
        return b"{" + b",".join([b'"model":"a"'] * count) + b"}"

    assert replace_model(repeated(MAX_SAME_NAME), NEW).count(NEW) == MAX_SAME_NAME
    with pytest.raises(InvalidBodyError):
        replace_model(repeated(MAX_SAME_NAME + 1), NEW)


def test_a_large_value_is_skipped_without_objects() -> None:
    body = b'{"messages":[' + b'{"content":"\\n\\"x"},' * 50_000 + b'{}],"model":"a","tools":{"model":1}}'
    assert re.search(b'"new/name"', replace_model(body, NEW)) is not None
