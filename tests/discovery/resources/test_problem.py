"""A problem as a line and as JSON values."""

from __future__ import annotations

import pytest

from discovery.resources.problem import FieldPath, Problem, Severity, format_path, told_once


def test_a_problem_is_a_line_and_plain_json_values() -> None:
    problem = Problem(
        severity=Severity.REFUSED,
        message="is required",
        file="routes.yaml",
        line=12,
        kind="HTTPRoute",
        namespace="default",
        name="r",
        field="spec.rules",
    )
    assert str(problem) == "routes.yaml:12: HTTPRoute/r: spec.rules: is required"
    assert problem.as_dict() == {
        "severity": "refused",
        "file": "routes.yaml",
        "line": 12,
        "kind": "HTTPRoute",
        "namespace": "default",
        "name": "r",
        "field": "spec.rules",
        "message": "is required",
    }


def test_what_is_not_known_is_left_out() -> None:
    problem = Problem(severity=Severity.WARNING, message="odd")
    assert str(problem) == "warning: odd"
    assert problem.as_dict() == {"severity": "warning", "message": "odd"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(("spec", "rules", 0, "name"), "spec.rules[0].name", id="plain"),
        pytest.param(("metadata", "labels", "a.b/c"), 'metadata.labels["a.b/c"]', id="a-key-with-dots"),
        pytest.param((), "", id="the-object"),
    ],
)
def test_a_path_reads_like_code(path: FieldPath, expected: str) -> None:
    assert format_path(path) == expected


def pool(name: str, line: int, *, is_expected: bool = True, message: str = "read, never called") -> Problem:
    return Problem(
        severity=Severity.WARNING,
        message=message,
        file="routes.yaml",
        line=line,
        kind="InferencePool",
        name=name,
        field="spec.endpointPickerRef",
        is_expected=is_expected,
    )


def test_what_is_expected_is_one_line_behind_what_may_have_to_be_mended() -> None:
    odd = pool("a", 8, is_expected=False, message="odd")
    lines = [str(problem) for problem in told_once([pool("a", 3), odd, pool("b", 9), pool("b", 12), pool("c", 15)])]
    assert lines == [
        "warning: routes.yaml:8: InferencePool/a: spec.endpointPickerRef: odd",
        "warning: routes.yaml:3: InferencePool/a: spec.endpointPickerRef: read, never called (the same for b, c)",
    ]


def test_of_many_names_some_are_told() -> None:
    (problem,) = told_once(pool(f"p{number}", number) for number in range(10_000))
    assert problem.message == "read, never called (the same for p1, p2, p3, p4, p5 and 9994 more)"


def test_a_single_one_is_told_as_it_is() -> None:
    assert told_once([pool("a", 3)]) == [pool("a", 3)]
