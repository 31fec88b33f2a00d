"""A problem as a line and as JSON values."""

from __future__ import annotations

import pytest

from discovery.resources.problem import FieldPath, Problem, Severity, format_path


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
