"""Does an object keep a CEL rule of its CRD? The part of CEL that CRDs are written in, compiled to closures.

Grammar and semantics follow the CEL specification (github.com/google/cel-spec, langdef.md): macros `has`, `all`,
`exists`, `exists_one` and `filter`; `&&`, `||`, `all` and `exists` swallow an error when the other side decides; any
other error means that the rule is broken, as in an API server. A field named like a CEL keyword is written `__name__`.
What this does not know raises CelSyntaxError when the rule is compiled, so a test over all shipped rules finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from discovery.resources.cel_semantics import (
    COMPARISONS,
    ERRORS,
    MACROS,
    METHODS,
    Expression,
    Variables,
    decided,
    index_into,
    select,
    unescape,
)
from discovery.resources.quantities import parse_duration

_TOKEN = re.compile(
    r'\s*(?:(?P<raw>r"""(?P<raw_text>.*?)""")|(?P<string>\'[^\'\\]*\'|"[^"\\]*")|(?P<number>[0-9]+)'
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<operator>&&|\|\||[<>=!]=|[-+<>!?:.,()\[\]{}]))",
    re.DOTALL,
)
_CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


class CelSyntaxError(Exception):
    """A rule that is not CEL, or not the part of it that is known here."""


def compile_rule(text: str, *, matches: Callable[[str, str], bool]) -> Callable[[Any], bool]:
    """Whether a value, as `self`, keeps the rule. ``matches(pattern, text)`` looks for an RE2 expression.

    Raises CelSyntaxError.
    """
    evaluate = _Parser(text, matches).parse()

    def holds(value: Any) -> bool:
        try:
            return evaluate({"self": value}) is True
        except ERRORS:
            return False

    return holds


class _Parser:
    """Recursive descent; each method reads one level of precedence and returns what evaluates it."""

    def __init__(self, text: str, matches: Callable[[str, str], bool]) -> None:
        self._matches = matches
        self._tokens: list[tuple[str, str]] = []  # kind, text
        position = 0
        text = text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise CelSyntaxError(f"not understood: {text[position : position + 20]}")
            kind = "raw" if found["raw"] else found.lastgroup or ""
            self._tokens.append((kind, found["raw_text"] if kind == "raw" else found[kind]))
            position = found.end()
        self._tokens.append(("end", ""))
        self._next = 0
        self._constants: dict[Expression, Any] = {}
        self._selected: tuple[Expression, str] | None = None  # owner and field, where the last member is a field

    def parse(self) -> Expression:
        expression = self._ternary()
        if self._tokens[self._next][0] != "end":
            raise CelSyntaxError(f"not understood: {self._tokens[self._next][1]}")
        return expression

    def _take(self, *texts: str) -> str | None:
        kind, text = self._tokens[self._next]
        if kind in ("operator", "name") and text in texts:
            self._next += 1
            return text
        return None

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            raise CelSyntaxError(f"{text} expected, not {self._tokens[self._next][1]}")

    def _name(self) -> str:
        kind, text = self._tokens[self._next]
        if kind != "name":
            raise CelSyntaxError(f"a name expected, not {text}")
        self._next += 1
        return text

    def _ternary(self) -> Expression:
        condition = self._or()
        if not self._take("?"):
            return condition
        yes = self._ternary()
        self._expect(":")
        no = self._ternary()
        return lambda variables: yes(variables) if condition(variables) else no(variables)

    def _or(self) -> Expression:
        parts = [self._and()]
        while self._take("||"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else decided(parts, deciding=True)

    def _and(self) -> Expression:
        parts = [self._comparison()]
        while self._take("&&"):
            parts.append(self._comparison())
        return parts[0] if len(parts) == 1 else decided(parts, deciding=False)

    def _comparison(self) -> Expression:
        left = self._sum()
        sign = self._take(*COMPARISONS)
        if sign is None:
            return left
        compare, right = COMPARISONS[sign], self._sum()
        return lambda variables: compare(left(variables), right(variables))

    def _sum(self) -> Expression:
        parts = [self._unary()]
        while self._take("+"):
            parts.append(self._unary())
        return parts[0] if len(parts) == 1 else lambda variables: sum(part(variables) for part in parts)

    def _unary(self) -> Expression:
        if self._take("!"):
            inner = self._unary()
            return lambda variables: not inner(variables)
        return self._member()

    def _member(self) -> Expression:
        expression = self._primary()
        selected: tuple[Expression, str] | None = None
        while True:
            if self._take("."):
                name = self._name()
                if self._take("("):
                    expression, selected = self._call(expression, name), None
                else:
                    selected = (expression, unescape(name))
                    expression = select(*selected)
            elif self._take("["):
                index = self._ternary()
                self._expect("]")
                expression, selected = index_into(expression, index), None
            else:
                self._selected = selected
                return expression

    def _primary(self) -> Expression:
        kind, text = self._tokens[self._next]
        if kind in ("raw", "string", "number"):
            self._next += 1
            return self._constant(text if kind == "raw" else int(text) if kind == "number" else text[1:-1])
        if self._take("("):
            inner = self._ternary()
            self._expect(")")
            return inner
        if self._take("["):
            items = self._list("]")
            if all(item in self._constants for item in items):
                return self._constant([self._constants[item] for item in items])
            return lambda variables: [item(variables) for item in items]
        if self._take("{"):
            return self._map()
        name = self._name()
        if self._take("("):
            return self._function(name)
        if name in _CONSTANTS:
            return lambda variables: _CONSTANTS[name]
        return lambda variables: variables[name]

    def _constant(self, value: Any) -> Expression:
        def evaluate(variables: Variables) -> Any:
            return value

        self._constants[evaluate] = value
        return evaluate

    def _list(self, end: str) -> list[Expression]:
        items: list[Expression] = []
        while not self._take(end):
            items.append(self._ternary())
            if not self._take(","):
                self._expect(end)
                break
        return items

    def _map(self) -> Expression:
        entries: list[tuple[Expression, Expression]] = []
        while not self._take("}"):
            key = self._ternary()
            self._expect(":")
            entries.append((key, self._ternary()))
            if not self._take(","):
                self._expect("}")
                break
        return lambda variables: {key(variables): value(variables) for key, value in entries}

    def _function(self, name: str) -> Expression:
        if name == "has":
            return self._has()
        arguments = self._list(")")
        if name == "size" and len(arguments) == 1:
            return lambda variables: len(arguments[0](variables))
        if name == "duration" and len(arguments) == 1:
            return lambda variables: parse_duration(arguments[0](variables))
        raise CelSyntaxError(f"unknown function {name}")

    def _has(self) -> Expression:
        """`has(a.b.c)`: the last field may be absent, those before it must be there."""
        self._member()
        self._expect(")")
        if self._selected is None:
            raise CelSyntaxError("has() needs a field")
        owner, key = self._selected
        return lambda variables: key in owner(variables)

    def _call(self, owner: Expression, name: str) -> Expression:
        if name in MACROS:
            variable = self._name()
            self._expect(",")
            body = self._ternary()
            self._expect(")")
            return MACROS[name](owner, variable, body)
        arguments = self._list(")")
        if name == "matches":
            return lambda variables: self._matches(arguments[0](variables), owner(variables))
        if name not in METHODS:
            raise CelSyntaxError(f"unknown method {name}")
        method = METHODS[name]
        return lambda variables: method(owner(variables), *(argument(variables) for argument in arguments))
