"""Which objects does a label selector select? The string form of the query, as the API server reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Selector = Callable[[Mapping[str, str]], bool]

_SET = re.compile(r"([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)")
_EQUALS = re.compile(r"([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)")
_EXISTS = re.compile(r"(!?)([\w./-]+)")


class BadSelectorError(ValueError):
    """A selector that cannot be parsed."""


def parse_selector(text: str) -> Selector:
    """`a=b,c!=d,e in (f,g),h,!i` as a function of labels. Raises BadSelectorError."""
    tests = [_parse_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda labels: all(test(labels) for test in tests)


def _parse_requirement(text: str) -> Selector:
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        return (
            (lambda labels: labels.get(key) in values)
            if operator == "in"
            else lambda labels: labels.get(key) not in values
        )
    if match := _EQUALS.fullmatch(text):
        key, operator, value = match.groups()
        return (
            (lambda labels: labels.get(key) != value) if operator == "!=" else lambda labels: labels.get(key) == value
        )
    if match := _EXISTS.fullmatch(text):
        negation, key = match.groups()
        return (lambda labels: key not in labels) if negation else lambda labels: key in labels
    raise BadSelectorError("unable to parse requirement: found '=', expected: identifier")
