"""Structural validation: everything that is wrong at once, in words that help."""

from __future__ import annotations

import json
from typing import Any

import pytest

from discovery.resources.decode import forget_schemas
from discovery.resources.kinds import KINDS
from discovery.resources.problem import format_path
from discovery.resources.schema import CRDS, load_schema, validate
from discovery.resources.string_formats import PATTERN_NAMES


def findings(value: object, schema: dict[str, Any]) -> list[str]:
    return [f"{format_path(path)}: {message}" for path, message in validate(value, schema)[1]]


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        pytest.param("x", {"type": "integer"}, "must be an integer, not a string", id="type"),
        pytest.param(True, {"type": "integer"}, "must be an integer, not a boolean", id="a-boolean-is-no-integer"),
        pytest.param([None], {"type": "array", "items": STRING}, "must be a string, not null", id="null-in-a-list"),
        pytest.param({}, {"type": "object", "required": ["a"]}, "a: is required", id="required"),
        pytest.param("b", {"type": "string", "enum": ["a", "c"]}, '"b" is not allowed, must be one of a, c', id="enum"),
        pytest.param("exact", {"type": "string", "enum": ["Exact"]}, 'did you mean "Exact"', id="enum-by-case"),
        pytest.param("A", {"type": "string", "pattern": "^[a-z]+$"}, '"A" must match ^[a-z]+$', id="pattern"),
        pytest.param("a\n", {"type": "string", "pattern": "^[a-z]+$"}, "must match", id="no-newline-at-the-end"),
        pytest.param("", {"type": "string", "minLength": 1}, "must have at least 1 character", id="too-short"),
        pytest.param("abc", {"type": "string", "maxLength": 2}, "must have at most 2 characters, not 3", id="too-long"),
        pytest.param([], {"type": "array", "minItems": 1}, "must have at least 1 item", id="too-few-items"),
        pytest.param({}, {"type": "object", "minProperties": 1}, "at least 1 entry", id="too-few-properties"),
        pytest.param(0, {"type": "integer", "minimum": 1}, "must be at least 1, not 0", id="minimum"),
        pytest.param(70000, {"type": "integer", "maximum": 65535}, "must be at most 65535, not 70000", id="maximum"),
        pytest.param(2**31, {"type": "integer", "format": "int32"}, "must be at most 2147483647", id="int32"),
        pytest.param("soon", {"type": "string", "format": "date-time"}, "must be a time such as", id="date-time"),
        pytest.param("2026-01-01", {"type": "string", "format": "date-time"}, "must be a time", id="date-only"),
        pytest.param("?", {"type": "string", "format": "byte"}, "must be base64", id="base64"),
        pytest.param("::1", {"type": "string", "format": "ipv4"}, "must be an IPv4 address", id="ipv4"),
        pytest.param("x", {"type": "string", "format": "ipv6"}, "must be an IPv6 address", id="ipv6"),
        pytest.param(1.5, {"x-kubernetes-int-or-string": True}, "must be an integer or a string", id="int-or-string"),
        pytest.param(
            "x", {"x-kubernetes-int-or-string": True, "allOf": [{"pattern": "^1$"}]}, "must match", id="all-of"
        ),
        pytest.param("c", {"anyOf": [{"enum": ["a"]}, {"enum": ["b"]}]}, "is not allowed", id="any-of"),
        pytest.param("a", {"oneOf": [STRING, {"enum": ["a"]}]}, "must match oneOf", id="one-of-two"),
        pytest.param("a", {"type": "string", "not": {"enum": ["a"]}}, '"a" is not allowed here', id="not"),
        pytest.param(
            {"b": 1}, {"type": "object", "anyOf": [{"required": ["a"]}], "properties": {"b": {}}}, "a: is required",
            id="any-of-required",
        ),
        pytest.param(
            [{"n": "a"}, {"n": "a"}],
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": STRING}},
            },
            '[1]: is there twice: n "a"',
            id="list-map",
        ),
        pytest.param(
            ["a", "a"],
            {"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
            "[1]: is there twice",
            id="list-set",
        ),
        pytest.param({"a": {"b": 1}}, {"type": "object", "properties": {}}, "a: unknown field", id="unknown-field"),
        pytest.param(
            {"hostname": "x"},
            {"type": "object", "properties": {"hostnames": STRING, "rules": STRING}},
            'hostname: unknown field, did you mean "hostnames"?',
            id="near-name",
        ),
        pytest.param(
            {"BackendRefs": "x"},
            {"type": "object", "properties": {"backendRefs": STRING}},
            'did you mean "backendRefs"?',
            id="near-name-by-case",
        ),
    ],
)  # fmt: skip
def test_each_violation_is_named(value: object, schema: dict[str, Any], expected: str) -> None:
    (finding,) = findings(value, schema)
    assert expected in finding


def test_all_problems_are_found_at_once() -> None:
    schema = load_schema("gateway.networking.k8s.io", "v1", "HTTPRoute")
    assert schema is not None
    spec = {"hostnames": ["UPPER"], "rules": [{"backendRefs": [{"name": "x", "weight": -1, "prot": 80}]}]}
    assert len(validate({"spec": spec}, schema)[1]) == 3


def test_defaults_are_filled_in_and_nulls_are_absent_fields() -> None:
    schema = load_schema("gateway.networking.k8s.io", "v1", "HTTPRoute")
    assert schema is not None
    value, found = validate({"spec": {"rules": [{"matches": None, "backendRefs": [{"name": "x"}]}]}}, schema)
    assert found == []
    (rule,) = value["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["backendRefs"] == [{"name": "x", "group": "", "kind": "Service", "weight": 1}]


def test_two_objects_do_not_share_a_default() -> None:
    schema = load_schema("gateway.networking.k8s.io", "v1", "HTTPRoute")
    assert schema is not None
    one, two = (validate({"spec": {}}, schema)[0] for _ in range(2))
    one["spec"]["rules"][0]["matches"].clear()
    assert two["spec"]["rules"][0]["matches"]


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        pytest.param("aGk=", {"type": "string", "format": "byte"}, id="base64"),
        pytest.param("2026-01-31T12:00:00.5+01:00", {"type": "string", "format": "date-time"}, id="date-time"),
        pytest.param("::1", {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}, id="any-of"),
        pytest.param({"a": 1}, {"oneOf": [{"properties": {"a": {"enum": [1]}}}, {"required": ["b"]}]}, id="one-of"),
        pytest.param(1.5, {"type": "number"}, id="number"),
        pytest.param("20Mi", {"x-kubernetes-int-or-string": True}, id="int-or-string"),
    ],
)
def test_what_is_right_passes(value: object, schema: dict[str, Any]) -> None:
    schema = {**schema, "x-kubernetes-preserve-unknown-fields": True}
    assert validate(value, schema) == (value, [])


def test_a_whole_float_is_an_integer() -> None:
    assert validate(8000.0, {"type": "integer"}) == (8000, [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"timeouts": {"request": "1.5s"}}, '"1.5s" must be a duration such as 30s', id="duration"),
        pytest.param({"backendRefs": [{"name": "x", "kind": "A b"}]}, '"A b" must be a kind such as', id="kind"),
        pytest.param({"backendRefs": [{"name": "x", "group": "A/b"}]}, '"A/b" must be an API group', id="group"),
        pytest.param({"backendRefs": [{"name": "x", "namespace": "a.b"}]}, "digits and dashes, with", id="namespace"),
        pytest.param({"matches": [{"headers": [{"name": "a b", "value": "c"}]}]}, "must be a header name", id="header"),
    ],
)
def test_what_a_pattern_stands_for_is_said_in_words(value: dict[str, Any], expected: str) -> None:
    schema = load_schema("gateway.networking.k8s.io", "v1", "HTTPRoute")
    assert schema is not None
    (finding,) = findings({"spec": {"rules": [value]}}, dict(schema))
    assert expected in finding


def test_every_pattern_that_has_a_name_is_in_a_shipped_schema() -> None:
    shipped = "".join(file.read_text("utf-8") for file in CRDS.glob("*.json"))
    assert [pattern for pattern in PATTERN_NAMES if json.dumps(pattern)[1:-1] not in shipped] == []


def test_values_of_headers_are_not_repeated_in_messages() -> None:
    schema = {"type": "object", "properties": {"value": {"type": "string", "pattern": "^x$"}}}
    assert findings({"value": "Bearer sk-secret"}, schema) == ["value: must match ^x$"]


def test_a_hostile_value_does_not_make_a_pattern_run_away() -> None:
    schema = {"type": "string", "pattern": "^[!-~]+([\\t ]?[!-~]+)*$"}
    assert findings("a" * 5_000 + "\n", schema) != []


def test_every_kind_with_a_schema_has_its_file_and_every_file_its_kind() -> None:
    needed = {
        f"{kind.group}_{version}_{kind.kind}.json"
        for kind in KINDS.values()
        if kind.has_schema
        for version in kind.versions.values()
    }
    assert needed == {file.name for file in CRDS.glob("*.json")}


def test_schemas_are_loaded_one_by_one_and_can_be_forgotten() -> None:
    forget_schemas()
    assert load_schema.cache_info().currsize == 0
    load_schema("gateway.networking.k8s.io", "v1", "Gateway")
    assert load_schema.cache_info().currsize == 1
    assert load_schema("../x", "v1", "Gateway") is None
    forget_schemas()
