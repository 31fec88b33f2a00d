"""How does a member of a JSON object change without touching the rest? Replaces, adds and removes bytes (pure).

Only the bytes of what changes are new: the order of the members, white space and the way in which numbers and strings
are written stay. Of a name that is there several times every member changes, since parsers do not agree on which one
counts; a name is known in every way of writing it, `"m\\u006fdel"` too.

The text must be a JSON object that a strict parser has accepted. It is walked over by one regular expression that skips
whole members, so that what Python does per step does not grow with what a client nests or repeats elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from middleware.errors import InvalidBodyError

MAX_DEPTH = 64  # of arrays and objects in a member's value
MAX_SAME_NAME = 64  # members of names that change, together

_WHITE = b" \t\r\n"
# Sets written as ranges are looked up in a bitmap, three times as fast as a negated set.
_PLAIN = rb"[\x00-!#-\[\]-\xff]"  # all but quotes and backslashes
_UNSTRUCTURED = rb"[\x00-!#-Z\\^-z|~-\xff]"  # all but quotes and brackets
STRING = rb'"' + _PLAIN + rb"*+(?:\\." + _PLAIN + rb'*+)*+"'
_SHORT_ESCAPES = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", '"': '"', "\\": "\\", "/": "/"}
_MODEL_KEY = b'"model"'
_MODEL_VALUE = re.compile(rb"\s*+:\s*+(" + STRING + rb")", re.DOTALL)


def replace_model(body: bytes, name: bytes) -> bytes:
    """The body with ``name``, a JSON string, as the value of each member `model`. There must be one.

    Raises InvalidBodyError for what is nested or repeated beyond reason.
    """
    # Nearly always the name is written once and plainly. Nothing else can then be the member that the caller has found.
    start = body.find(_MODEL_KEY)
    if start >= 0 and body.find(_MODEL_KEY, start + 1) < 0 and b"\\u00" not in body:
        value = _MODEL_VALUE.match(body, start + len(_MODEL_KEY))
        if value is not None:
            return b"".join((body[: value.start(1)], name, body[value.end(1) :]))
    return change_members(body, {"model": name})


def change_members(body: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """The body with each member of a name in ``changes`` at its value, as JSON text, or without it where that is None.

    What is not there and has a value comes behind the last member. Raises InvalidBodyError as above.
    """
    finder = _finder(frozenset(changes))
    parts: list[bytes] = []
    position = body.index(b"{") + 1
    parts.append(body[:position])
    missing = {name: value for name, value in changes.items() if value is not None}
    for _ in range(MAX_SAME_NAME + 1):
        found = finder.match(body, position)
        if found is None:
            raise InvalidBodyError("the request body is nested too deep to be changed as the configuration says")
        index = found.lastindex
        if index is None:  # the end of the object
            _add(parts, body[position : found.end() - 1], missing)
            parts.append(body[found.end() - 1 :])
            return b"".join(parts)
        name = _names(frozenset(changes))[index // 2 - 1]
        value = changes[name]
        missing.pop(name, None)
        if value is not None:
            parts += (body[position : found.start(index)], value)
            position = found.end(index)
            continue
        parts.append(body[position : found.start(index - 1)])
        position = found.end()
        if body[position - 1 : position] != b",":
            _drop_comma(parts)
        # A comma behind the member goes with it, and so does the white space before the next.
    raise InvalidBodyError("the request body repeats a member too often")


def _add(parts: list[bytes], rest: bytes, missing: Mapping[str, bytes]) -> None:
    """Put what is missing behind the last member, before the white space that ends the object."""
    members = rest.rstrip(_WHITE)
    parts.append(members)
    if missing:
        added = b",".join(_quoted(name) + b":" + value for name, value in missing.items())
        parts.append(added if _is_empty(parts) else b"," + added)
    parts.append(rest[len(members) :])


def _is_empty(parts: list[bytes]) -> bool:
    last = next((text for part in reversed(parts) if (text := part.rstrip(_WHITE))), b"")
    return last.endswith((b"{", b","))


def _drop_comma(parts: list[bytes]) -> None:
    """Take back the comma before a last member that went."""
    for index in range(len(parts) - 1, -1, -1):
        text = parts[index].rstrip(_WHITE)
        if text.endswith(b","):
            parts[index] = text[:-1]
        if text:
            return


def _quoted(name: str) -> bytes:
    escaped = "".join(
        "\\" + _SHORT_ESCAPES[c] if c in _SHORT_ESCAPES and c != "/" else f"\\u{ord(c):04x}" if c < " " else c
        for c in name
    )
    return b'"' + escaped.encode() + b'"'


@lru_cache(maxsize=256)
def _names(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


@lru_cache(maxsize=256)
def _finder(names: frozenset[str]) -> re.Pattern[bytes]:
    """Skips members of other names; then it matches one of these, in a pair of groups for its key and its value, or
    the brace that ends the object."""
    ordered = _names(names)
    any_name = b"|".join(_spellings(name) for name in ordered)
    value = _value()
    other = rb"(?!" + any_name + rb")" + STRING + rb"\s*+:\s*+" + value + rb"[\s,]*+"
    wanted = b"|".join(rb"(" + _spellings(name) + rb")\s*+:\s*+(" + value + rb")\s*+,?+" for name in ordered)
    return re.compile(rb"[\s,]*+(?:" + other + rb")*+(?:" + wanted + rb"|\})", re.DOTALL)


def _spellings(name: str) -> bytes:
    """Every way in which a JSON text can write this name, quotes included."""
    return rb'"' + b"".join(_spellings_of(character) for character in name) + rb'"'


def _spellings_of(character: str) -> bytes:
    ways = []
    if character >= " " and character not in '"\\':
        ways.append(re.escape(character.encode()))
    if character in _SHORT_ESCAPES:
        ways.append(re.escape(b"\\" + _SHORT_ESCAPES[character].encode()))
    units = character.encode("utf-16-be")
    ways.append(
        b"".join(rb"\\u(?i:" + units[index : index + 2].hex().encode() + rb")" for index in range(0, len(units), 2))
    )
    return rb"(?:" + b"|".join(ways) + rb")"


@cache
def _value() -> bytes:
    """Any value of an accepted text: brackets pair up there, so that counting them is enough."""
    inner = rb"(?:" + _UNSTRUCTURED + rb"++|" + STRING + rb")*+"
    for _ in range(MAX_DEPTH - 1):
        inner = rb"(?:" + _UNSTRUCTURED + rb"++|" + STRING + rb"|[\[{]" + inner + rb"[\]}])*+"
    return rb"(?:" + STRING + rb"|[\[{]" + inner + rb'[\]}]|[^"\[\]{},\s]++)'
