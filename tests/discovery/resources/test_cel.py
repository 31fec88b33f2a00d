"""The CEL of the CRDs: every rule that we ship is asked, keeps what is right and objects to what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery.resources.cel import CelSyntaxError, compile_rule
from discovery.resources.kinds import KINDS
from discovery.resources.schema import compile_pattern, load_schema
from discovery.resources.yaml_documents import read_documents

EXAMPLES = Path(__file__).parent / "cel_rules.txt"


def has_pattern(pattern: str, text: str) -> bool:
    return compile_pattern(pattern).search(text) is not None


def holds(rule: str, value: Any) -> bool:
    return compile_rule(rule, matches=has_pattern)(value)


def shipped_rules() -> set[str]:
    """Every rule of every schema, with single spaces."""

    def walk(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            yield from (" ".join(rule["rule"].split()) for rule in schema.get("x-kubernetes-validations", ()))
            for value in (schema.get("properties") or {}).values():
                yield from walk(value)
            for key in ("items", "additionalProperties"):
                yield from walk(schema.get(key))

    return {
        rule
        for kind in KINDS.values()
        if kind.has_schema
        for version in kind.versions.values()
        for rule in walk(load_schema(kind.group, version, kind.kind))
    }


def examples() -> dict[str, dict[str, str]]:
    """The text file: a rule, and below it indented lines with a mark."""
    found: dict[str, dict[str, str]] = {}
    rule = ""
    for line in EXAMPLES.read_text("utf-8").splitlines():
        if line.startswith("  "):
            mark, _, text = line.strip().partition(" ")
            found[rule][mark] = text
        elif line and not line.startswith("#"):
            rule = line
            found[rule] = {}
    return found


def data(text: str) -> Any:
    return next(document.data for document in read_documents(text))


def test_every_shipped_rule_has_an_example_or_a_reason() -> None:
    assert shipped_rules() == set(examples())
    for rule, marks in examples().items():
        assert set(marks) in ({"+", "-"}, {"?"}), rule


@pytest.mark.parametrize("rule", [pytest.param(r, id=r[:60]) for r, marks in examples().items() if "?" not in marks])
def test_a_rule_takes_what_is_right_and_objects_to_what_is_wrong(rule: str) -> None:
    marks = examples()[rule]
    assert holds(rule, data(marks["+"])) is True
    assert holds(rule, data(marks["-"])) is False


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        pytest.param("self.a || self.b", {"b": True}, True, id="or-swallows-an-error"),
        pytest.param("self.a || self.b", {"b": False}, False, id="an-error-that-nothing-swallows"),
        pytest.param("!(self.a && self.b)", {"b": False}, True, id="and-swallows-an-error"),
        pytest.param("self.all(x, x.ok)", [{"ok": True}, {}], False, id="all-with-an-error"),
        pytest.param("self.exists(x, x.ok)", [{}, {"ok": True}], True, id="exists-swallows-an-error"),
        pytest.param("self.exists_one(x, x == 1)", [1, 1], False, id="exists-one-of-two"),
        pytest.param("has(self.a.b)", {}, False, id="has-below-an-absent-field"),
        pytest.param("has(self.list[0].a)", {"list": [{"a": 1}]}, True, id="has-in-a-list"),
        pytest.param("self.a ? self.b : true", {"a": False}, True, id="the-other-branch-is-not-read"),
        pytest.param("self.__namespace__ == 'a'", {"namespace": "a"}, True, id="keyword"),
        pytest.param("self + 1 + 2 <= 4", 1, True, id="sum"),
        pytest.param("null == self", None, True, id="null"),
        pytest.param("self.size() == 1 && 'x' in self", {"x": 1}, True, id="key-in-a-map"),
        pytest.param("self", "yes", False, id="only-true-keeps-a-rule"),
    ],
)
def test_the_language(rule: str, value: Any, expected: bool) -> None:
    assert holds(rule, value) is expected


@pytest.mark.parametrize(
    "rule",
    ["self.", "self.a(", "self.foo()", "foo(self)", "has(self)", "self ~ 1", "self self", "size(self", "[1", "{'a' 1}"],
)
def test_what_is_not_known_is_found_when_the_rule_is_compiled(rule: str) -> None:
    with pytest.raises(CelSyntaxError):
        compile_rule(rule, matches=has_pattern)
