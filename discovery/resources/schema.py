"""Would an API server store this object? Validation by the CRD's own schema, all problems at once.

What Kubernetes calls a structural schema: unknown fields are refused (an API server would prune them silently, and a
misspelt field is then one that does nothing), defaults are filled in, a null is an absent field, list-map keys are
unique. When the structure is right, the CEL rules of the schema are asked (cel.py). Patterns are RE2, as in the API
server, so no pattern can run away on a hostile value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import re2

from discovery.resources.cel import compile_rule
from discovery.resources.messages import count_of, enum_message, name_of, unknown_message
from discovery.resources.problem import FieldPath
from discovery.resources.string_formats import FORMATS, PATTERN_NAMES

CRDS = Path(__file__).parent / "crds"

Finding = tuple[FieldPath, str]
Schema = Mapping[str, Any]

_INTEGER_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_SECRET_FIELDS = frozenset({"value", "apiKey", "password", "token", "bearer"})  # never repeated in a message
_COMBINATIONS = ("allOf", "anyOf", "oneOf", "not")
_MISSING = object()


@cache
def load_schema(group: str, version: str, kind: str) -> Schema | None:
    """The schema of one kind, read when its first object is met; None when there is none."""
    file = CRDS / f"{group}_{version}_{kind}.json"
    if "/" in group + version + kind or not file.is_file():
        return None
    schema: Schema = json.loads(file.read_text("utf-8"))["schema"]
    return schema


@cache
def compile_pattern(pattern: str) -> re2._Regexp[str]:
    """An RE2 expression that does not write to stderr when it is bad. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def clear_schema_caches() -> None:
    """Give back the memory of what was loaded."""
    load_schema.cache_clear()
    compile_pattern.cache_clear()
    _has_pattern.cache_clear()
    _compile_cel.cache_clear()


@lru_cache(maxsize=8192)
def _has_pattern(pattern: str, value: str) -> bool:
    return compile_pattern(pattern).search(value) is not None


@cache
def _compile_cel(rule: str) -> Callable[[Any], bool]:
    return compile_rule(rule, matches=_has_pattern)


def validate(value: object, schema: Schema) -> tuple[Any, list[Finding]]:
    """The value with defaults filled in and nulls dropped, and everything that is wrong with it."""
    return Validator(schema).validate(value)


class Validator:
    """A node of a schema, prepared for many values. Nodes below are prepared when the first value reaches them."""

    __slots__ = (
        "_additional", "_allowed", "_defaults", "_has_combinations", "_is_open", "_is_ruled", "_is_secret", "_items",
        "_keys", "_kind", "_name", "_nodes", "_properties", "_required", "_rules", "_schema", "_sizes", "_unique",
    )  # fmt: skip

    def __init__(self, schema: Schema, *, name: str = "", parent: str = "") -> None:
        self._schema = schema
        self._name = name
        self._is_secret = name in _SECRET_FIELDS or parent in _SECRET_FIELDS
        self._kind: str | None = "int-or-string" if schema.get("x-kubernetes-int-or-string") else schema.get("type")
        self._properties: Mapping[str, Schema] = schema.get("properties") or {}
        self._additional = schema.get("additionalProperties")
        self._items: Schema = schema.get("items") or {}
        self._is_open = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        self._required: tuple[str, ...] = tuple(
            key for key in schema.get("required", ()) if "default" not in self._properties.get(key, {})
        )
        self._defaults = tuple(key for key, part in self._properties.items() if "default" in part)
        self._sizes = any(
            f"{end}{word}" in schema for end in ("min", "max") for word in ("Properties", "Items", "Length")
        )
        self._allowed: list[Any] | None = schema.get("enum")
        self._has_combinations = any(word in schema for word in _COMBINATIONS)
        self._unique = schema.get("x-kubernetes-list-type") in ("map", "set")
        self._keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
        self._nodes: dict[str, Validator] = {}
        self._rules: list[tuple[Callable[[Any], bool], str]] | None = None
        self._is_ruled = True  # whether there are rules here or below; known when they are first asked

    def validate(self, value: object) -> tuple[Any, list[Finding]]:
        """The value with defaults filled in and nulls dropped, and everything that is wrong with its structure."""
        findings: list[Finding] = []
        return self._check(value, findings), findings

    def broken_rules(self, value: Any) -> list[Finding]:
        """What the CEL rules say of a value whose structure is right, in the words of the CRD.

        Rules about a change (`oldSelf`) say nothing about an object in a file.
        """
        findings: list[Finding] = []
        self._ask_rules(value, findings)
        return findings

    def _below(self, key: str, schema: Schema) -> Validator:
        node = self._nodes.get(key)
        if node is None:
            parent = self._name if key == "[]" else key
            node = self._nodes[key] = Validator(schema, name=parent, parent=self._name)
        return node

    def _check(self, value: Any, findings: list[Finding]) -> Any:
        kind = self._kind
        if kind is not None:
            if kind == "integer" and isinstance(value, float) and value.is_integer():
                value = int(value)
            if not _TYPES[kind](value):
                findings.append(((), f"must be {_ARTICLES[kind]}, not {name_of(value)}"))
                return value
        if isinstance(value, str):
            self._check_string(value, findings)
        elif isinstance(value, dict):
            value = self._check_object(value, findings)
        elif isinstance(value, list):
            value = self._check_list(value, findings)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._check_number(value, findings)
        if self._allowed is not None and value not in self._allowed:
            findings.append(((), enum_message(value, self._allowed)))
        if self._has_combinations:
            self._check_combinations(value, findings)
        return value

    def _check_object(self, value: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
        properties, additional = self._properties, self._additional
        result: dict[str, Any] = {}
        for key, item in value.items():
            schema = properties.get(key)
            if schema is None and isinstance(additional, dict):
                schema = additional
            if schema is None:
                if self._is_open:
                    result[key] = item
                else:
                    findings.append(((key,), unknown_message(key, properties)))
            elif item is not None:
                count = len(findings)
                result[key] = self._below(key if schema is not additional else "{}", schema)._check(item, findings)
                if len(findings) != count:
                    _put_below(key, findings, count)
        findings.extend(((key,), "is required") for key in self._required if key not in result)
        for key in self._defaults:
            if key not in result:
                result[key] = self._below(key, properties[key]).validate(properties[key]["default"])[0]
        if self._sizes:
            self._check_size(len(result), "Properties", "entry", findings)
        return result

    def _check_list(self, value: list[Any], findings: list[Finding]) -> list[Any]:
        node = self._below("[]", self._items)
        result = []
        for index, item in enumerate(value):
            count = len(findings)
            result.append(node._check(item, findings))
            if len(findings) != count:
                _put_below(index, findings, count)
        if self._sizes:
            self._check_size(len(value), "Items", "item", findings)
        if self._unique:
            seen: set[str] = set()
            for index, item in enumerate(result):
                identity = {key: item.get(key) for key in self._keys} if self._keys and isinstance(item, dict) else item
                text = json.dumps(identity, sort_keys=True, default=str)
                if text in seen:
                    shown = ", ".join(f'{k} "{v}"' for k, v in identity.items()) if isinstance(identity, dict) else text
                    findings.append(((index,), f"is there twice: {shown}"))
                seen.add(text)
        return result

    def _check_string(self, value: str, findings: list[Finding]) -> None:
        if self._sizes:
            self._check_size(len(value), "Length", "character", findings)
        pattern = self._schema.get("pattern")
        if pattern is not None and not _has_pattern(pattern, value):
            name = PATTERN_NAMES.get(pattern)
            findings.append(((), f"{self._shown(value)}must " + (f"be {name}" if name else f"match {pattern}")))
        expected = FORMATS.get(self._schema.get("format", ""))
        if expected is not None and not expected.accepts(value):
            findings.append(((), f"{self._shown(value)}must be {expected.name}"))

    def _check_number(self, value: float, findings: list[Finding]) -> None:
        low, high = _INTEGER_RANGES.get(self._schema.get("format", ""), (None, None))
        low, high = self._schema.get("minimum", low), self._schema.get("maximum", high)
        if low is not None and value < low:
            findings.append(((), f"must be at least {low}, not {value}"))
        if high is not None and value > high:
            findings.append(((), f"must be at most {high}, not {value}"))

    def _check_size(self, size: int, word: str, noun: str, findings: list[Finding]) -> None:
        low, high = self._schema.get(f"min{word}"), self._schema.get(f"max{word}")
        if low is not None and size < low:
            findings.append(((), f"must have at least {count_of(low, noun)}" + (f", not {size}" if size else "")))
        if high is not None and size > high:
            findings.append(((), f"must have at most {count_of(high, noun)}, not {size}"))

    def _check_combinations(self, value: Any, findings: list[Finding]) -> None:
        schema = self._schema
        for part in schema.get("allOf", ()):
            findings.extend(self._violations(value, part))
        for word, most in (("anyOf", None), ("oneOf", 1)):
            if word in schema:
                tried = [self._violations(value, part) for part in schema[word]]
                holding = sum(not found for found in tried)
                if holding == 0 or (most is not None and holding > most):
                    findings.append(
                        next((found[0] for found in tried if found), ((), f"must match {word} of its schema"))
                    )
        if "not" in schema and not self._violations(value, schema["not"]):
            findings.append(((), f"{self._shown(value)}is not allowed here"))

    def _violations(self, value: Any, part: Schema) -> list[Finding]:
        """What a part of allOf, anyOf, oneOf or not has against the value; such a part may name some fields only."""
        if not isinstance(value, dict):
            return Validator(part, name=self._name).validate(value)[1]
        found: list[Finding] = []
        for key, schema in (part.get("properties") or {}).items():
            if key in value:
                count = len(found)
                found.extend(Validator({}, name=key)._violations(value[key], schema))
                _put_below(key, found, count)
        found.extend(((key,), "is required") for key in part.get("required", ()) if key not in value)
        return found

    def _ask_rules(self, value: Any, findings: list[Finding]) -> None:
        if self._rules is None:
            self._rules = [
                (_compile_cel(rule["rule"]), rule.get("message", "").rstrip(".") or f"must keep {rule['rule']}")
                for rule in self._schema.get("x-kubernetes-validations", ())
                if "oldSelf" not in rule["rule"]
            ]
            self._is_ruled = _is_ruled(self._schema)
        if not self._is_ruled:
            return
        for holds, message in self._rules:
            if not holds(value):
                findings.append(((), message))
        if isinstance(value, dict):
            for key, item in value.items():
                node = self._nodes.get(key) or self._nodes.get("{}")
                if node is not None and node._is_ruled:
                    count = len(findings)
                    node._ask_rules(item, findings)
                    _put_below(key, findings, count)
        elif isinstance(value, list) and (node := self._nodes.get("[]")) is not None and node._is_ruled:
            for index, item in enumerate(value):
                count = len(findings)
                node._ask_rules(item, findings)
                _put_below(index, findings, count)

    def _shown(self, value: object) -> str:
        """The value for a message, unless it may be a credential."""
        if not isinstance(value, str) or self._is_secret:
            return ""
        return json.dumps(value if len(value) <= 60 else value[:57] + "…", ensure_ascii=False) + " "


def _is_ruled(schema: Schema) -> bool:
    if schema.get("x-kubernetes-validations"):
        return True
    below = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(_is_ruled(part) for part in below if isinstance(part, dict))


def _put_below(step: str | int, findings: list[Finding], start: int) -> None:
    """What was found since ``start`` is about this field or item: paths are built only for what is wrong."""
    for position in range(start, len(findings)):
        path, message = findings[position]
        findings[position] = ((step, *path), message)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "int-or-string": lambda v: isinstance(v, int | str) and not isinstance(v, bool),
}
_ARTICLES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "int-or-string": "an integer or a string",
}
