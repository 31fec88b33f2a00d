"""Would an API server store this object? Structural validation by the CRD's own schema, all problems at once.

What Kubernetes calls a structural schema: unknown fields are refused (an API server would prune them silently, and a
misspelt field is then one that does nothing), defaults are filled in, a null is an absent field, list-map keys are
unique. Patterns are RE2, as in the API server, so no pattern can run away on a hostile value.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import re2

from discovery.resources.problem import FieldPath

CRDS = Path(__file__).parent / "crds"

Finding = tuple[FieldPath, str]
Schema = Mapping[str, Any]

_INTEGER_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_SECRET_FIELDS = frozenset({"value", "apiKey", "password", "token", "bearer"})  # never repeated in a message


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


def forget_schemas() -> None:
    """Give back the memory of what was loaded: schemas are only needed while objects are read."""
    load_schema.cache_clear()
    compile_pattern.cache_clear()
    _has_pattern.cache_clear()


@lru_cache(maxsize=8192)
def _has_pattern(pattern: str, value: str) -> bool:
    return compile_pattern(pattern).search(value) is not None


def validate(value: object, schema: Schema, path: FieldPath = ()) -> tuple[Any, list[Finding]]:
    """The value with defaults filled in and nulls dropped, and everything that is wrong with it."""
    findings: list[Finding] = []
    return _check(value, schema, path, findings), findings


def _check(value: Any, schema: Schema, path: FieldPath, findings: list[Finding]) -> Any:
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            findings.append((path, f"must be an integer or a string, not {_name_of(value)}"))
            return value
    elif (expected := schema.get("type")) is not None:
        if expected == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not _TYPES[expected](value):
            findings.append((path, f"must be {_ARTICLES[expected]}, not {_name_of(value)}"))
            return value
    if isinstance(value, dict):
        value = _check_object(value, schema, path, findings)
    elif isinstance(value, list):
        value = _check_list(value, schema, path, findings)
    elif isinstance(value, str):
        _check_string(value, schema, path, findings)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, schema, path, findings)
    if (allowed := schema.get("enum")) is not None and value not in allowed:
        findings.append((path, _enum_message(value, allowed)))
    _check_combinations(value, schema, path, findings)
    return value


def _check_object(value: dict[str, Any], schema: Schema, path: FieldPath, findings: list[Finding]) -> dict[str, Any]:
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    result: dict[str, Any] = {}
    for key, item in value.items():
        field_schema = properties.get(key)
        if field_schema is None and isinstance(additional, dict):
            field_schema = additional
        if field_schema is None:
            if schema.get("x-kubernetes-preserve-unknown-fields"):
                result[key] = item
            else:
                findings.append(((*path, key), _unknown_message(key, properties)))
        elif item is not None:
            result[key] = _check(item, field_schema, (*path, key), findings)
    missing = (key for key in schema.get("required", ()) if key not in result)
    findings.extend(((*path, key), "is required") for key in missing if "default" not in properties.get(key, {}))
    for key, field_schema in properties.items():
        if key not in result and "default" in field_schema:
            result[key] = validate(field_schema["default"], field_schema)[0]
    _check_size(len(result), schema, "Properties", "entry", path, findings)
    return result


def _check_list(value: list[Any], schema: Schema, path: FieldPath, findings: list[Finding]) -> list[Any]:
    items: Schema = schema.get("items") or {}
    result = [_check(item, items, (*path, index), findings) for index, item in enumerate(value)]
    _check_size(len(value), schema, "Items", "item", path, findings)
    list_type = schema.get("x-kubernetes-list-type")
    if list_type in ("map", "set"):
        keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
        seen: set[str] = set()
        for index, item in enumerate(result):
            identity = {key: item.get(key) for key in keys} if list_type == "map" and isinstance(item, dict) else item
            text = json.dumps(identity, sort_keys=True, default=str)
            if text in seen:
                shown = ", ".join(f'{k} "{v}"' for k, v in identity.items()) if isinstance(identity, dict) else text
                findings.append(((*path, index), f"is there twice: {shown}"))
            seen.add(text)
    return result


def _check_string(value: str, schema: Schema, path: FieldPath, findings: list[Finding]) -> None:
    _check_size(len(value), schema, "Length", "character", path, findings)
    pattern = schema.get("pattern")
    if pattern is not None and not _has_pattern(pattern, value):
        findings.append((path, f"{_shown(value, path)}must match {pattern}"))
    expected = schema.get("format", "")
    if expected in _FORMATS and not _FORMATS[expected](value):
        findings.append((path, f"{_shown(value, path)}must be {_FORMAT_NAMES[expected]}"))


def _check_number(value: float, schema: Schema, path: FieldPath, findings: list[Finding]) -> None:
    low, high = _INTEGER_RANGES.get(schema.get("format", ""), (None, None))
    low, high = schema.get("minimum", low), schema.get("maximum", high)
    if low is not None and value < low:
        findings.append((path, f"must be at least {low}, not {value}"))
    if high is not None and value > high:
        findings.append((path, f"must be at most {high}, not {value}"))


def _check_size(
    size: int, schema: Schema, word: str, noun: str, path: FieldPath, findings: list[Finding]
) -> None:  # word: Items, Length, Properties
    low, high = schema.get(f"min{word}"), schema.get(f"max{word}")
    if low is not None and size < low:
        findings.append((path, f"must have at least {_count(low, noun)}" + (f", not {size}" if size else "")))
    if high is not None and size > high:
        findings.append((path, f"must have at most {_count(high, noun)}, not {size}"))


def _check_combinations(value: Any, schema: Schema, path: FieldPath, findings: list[Finding]) -> None:
    for part in schema.get("allOf", ()):
        findings.extend(_violations(value, part, path))
    for word, most in (("anyOf", None), ("oneOf", 1)):
        if word in schema:
            tried = [_violations(value, part, path) for part in schema[word]]
            holding = sum(not found for found in tried)
            if holding == 0 or (most is not None and holding > most):
                first = next((found[0] for found in tried if found), (path, f"must match {word} of its schema"))
                findings.append(first)
    if "not" in schema and not _violations(value, schema["not"], path):
        findings.append((path, f"{_shown(value, path)}is not allowed here"))


def _violations(value: Any, part: Schema, path: FieldPath) -> list[Finding]:
    """What a part of allOf, anyOf, oneOf or not has against the value; such a part may name some fields only."""
    if isinstance(value, dict):
        found: list[Finding] = []
        for key, field_schema in (part.get("properties") or {}).items():
            if key in value:
                found.extend(_violations(value[key], field_schema, (*path, key)))
        found.extend(((*path, key), "is required") for key in part.get("required", ()) if key not in value)
        return found
    return validate(value, part, path)[1]


def _unknown_message(key: str, properties: Mapping[str, Any]) -> str:
    folded = {name.lower(): name for name in properties}
    near = folded.get(key.lower()) or next(iter(difflib.get_close_matches(key, properties, 1)), None)
    return "unknown field" + (f', did you mean "{near}"?' if near else "")


def _enum_message(value: object, allowed: list[Any]) -> str:
    text = json.dumps(value) if not isinstance(value, dict | list) else _name_of(value)
    near = next((a for a in allowed if str(a).lower() == str(value).lower()), None)
    if near is not None:
        return f'{text} is not allowed, did you mean "{near}"?'
    return f"{text} is not allowed, must be one of {', '.join(map(str, allowed))}"


def _shown(value: object, path: FieldPath) -> str:
    """The value for a message, unless it may be a credential."""
    if not isinstance(value, str) or any(step in _SECRET_FIELDS for step in path[-2:]):
        return ""
    return json.dumps(value if len(value) <= 60 else value[:57] + "…", ensure_ascii=False) + " "


def _count(number: int, noun: str) -> str:
    plural = {"entry": "entries"}.get(noun, noun + "s")
    return f"{number} {noun if number == 1 else plural}"


def _name_of(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a float"}
    return names.get(type(value), "null")


def _is_date_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None and "T" in text.upper()
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}
_ARTICLES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
}
_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date-time": _is_date_time,
    "byte": _is_base64,
    "ipv4": lambda text: _is_ip(text, 4),
    "ipv6": lambda text: _is_ip(text, 6),
}
_FORMAT_NAMES = {
    "date-time": "a time such as 2026-01-31T12:00:00Z",
    "byte": "base64",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
}
