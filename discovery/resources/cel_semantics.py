"""What do CEL's operators, methods and macros mean? Closures over closures; cel.py parses, this evaluates.

`&&`, `||`, `all` and `exists` swallow an error when another operand decides (cel-spec, langdef.md, Logical Operators).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Variables = Mapping[str, Any]
Expression = Callable[[Variables], Any]


COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda item, container: item in container,
}
METHODS: Mapping[str, Callable[..., Any]] = {
    "size": len,
    "startsWith": lambda text, part: text.startswith(part),
    "endsWith": lambda text, part: text.endswith(part),
    "contains": lambda text, part: part in text,
    "split": lambda text, separator: text.split(separator),
    "lowerAscii": lambda text: text.lower(),
}
ERRORS = (LookupError, TypeError, ValueError, AttributeError)  # what reading a missing field or a wrong type raises


def select(owner: Expression, key: str) -> Expression:
    """`owner.key`"""
    return lambda variables: owner(variables)[key]


def index_into(owner: Expression, index: Expression) -> Expression:
    """`owner[index]`"""
    return lambda variables: owner(variables)[index(variables)]


def unescape(name: str) -> str:
    """The field that `__name__` stands for, because its name is a keyword of CEL."""
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name


def decided(parts: Sequence[Expression], *, deciding: bool) -> Expression:
    """The parts of `||` (deciding: True) or `&&` (False), joined from the left."""
    joined = parts[0]
    for part in parts[1:]:
        joined = _either(joined, part) if deciding else _both(joined, part)
    return joined


def _either(left: Expression, right: Expression) -> Expression:
    def evaluate(variables: Variables) -> bool:
        try:
            if left(variables):
                return True
        except ERRORS:
            if right(variables):
                return True
            raise
        return bool(right(variables))

    return evaluate


def _both(left: Expression, right: Expression) -> Expression:
    def evaluate(variables: Variables) -> bool:
        try:
            if not left(variables):
                return False
        except ERRORS:
            if not right(variables):
                return False
            raise
        return bool(right(variables))

    return evaluate


def _decide(parts: Iterable[tuple[Expression, Variables]], *, deciding: bool) -> bool:
    """`exists` (deciding: True) or `all` (False): an item that decides counts even beside one that fails."""
    error: Exception | None = None
    for part, variables in parts:
        try:
            if bool(part(variables)) is deciding:
                return deciding
        except ERRORS as failed:
            error = failed
    if error is not None:
        raise error
    return not deciding


def _all(owner: Expression, variable: str, body: Expression) -> Expression:
    return lambda variables: _decide(_each(owner, variable, body, variables), deciding=False)


def _exists(owner: Expression, variable: str, body: Expression) -> Expression:
    return lambda variables: _decide(_each(owner, variable, body, variables), deciding=True)


def _each(
    owner: Expression, variable: str, body: Expression, variables: Variables
) -> Iterator[tuple[Expression, Variables]]:
    for item in owner(variables):
        yield body, {**variables, variable: item}


def _exists_one(owner: Expression, variable: str, body: Expression) -> Expression:
    return lambda variables: sum(bool(body({**variables, variable: item})) for item in owner(variables)) == 1


def _filter(owner: Expression, variable: str, body: Expression) -> Expression:
    return lambda variables: [item for item in owner(variables) if body({**variables, variable: item})]


MACROS: Mapping[str, Callable[[Expression, str, Expression], Expression]] = {
    "all": _all,
    "exists": _exists,
    "exists_one": _exists_one,
    "filter": _filter,
}
