"""What is wrong with what was read, and where? One line each, in the form that `check` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

_MOST_NAMES = 5  # in one line

FieldPath = tuple[str | int, ...]


class Severity(Enum):
    """The three kinds of wrong (docs: "Three kinds of wrong" of the contract)."""

    REFUSED = "refused"  # an API server would not store it
    INVALID = "invalid"  # stored, but a controller objects
    WARNING = "warning"  # served, but not as one might think


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. ``str()`` is `file:line: kind/name: field.path: what is wrong`."""

    severity: Severity
    message: str  # never a credential: values of headers are not repeated
    file: str = ""  # as the user gave it; "" when it comes from none
    line: int = 0  # 1-based; 0 when unknown
    kind: str = ""
    namespace: str = ""
    name: str = ""
    field: str = ""
    is_expected: bool = False  # a warning with nothing to mend, since manifests cannot do without the field

    def as_dict(self) -> dict[str, str | int]:
        """Plain JSON values, for `check --json`; empty parts are left out, but never the severity and the message."""
        parts: dict[str, str | int] = {
            "file": self.file,
            "line": self.line,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "field": self.field,
        }
        given = {key: value for key, value in parts.items() if value}
        return {"severity": self.severity.value, **given, "message": self.message}

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.kind}/{self.name}" if self.name else self.kind
        text = ": ".join(part for part in (where, what, self.field, self.message) if part)
        return f"warning: {text}" if self.severity is Severity.WARNING else text


def told_once(problems: Iterable[Problem]) -> list[Problem]:
    """The problems as people are told of them: first what may have to be mended, in order, then what is expected, a
    line for all objects that have the same."""
    first: list[Problem] = []
    expected: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        if problem.is_expected:
            expected.setdefault((problem.kind, problem.field, problem.message), []).append(problem)
        else:
            first.append(problem)
    return first + [_merged(same) for same in expected.values()]


def _merged(same: list[Problem]) -> Problem:
    names = list(dict.fromkeys(problem.name for problem in same[1:]))
    if not names:
        return same[0]
    shown = ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES} more" if names[_MOST_NAMES:] else "")
    return replace(same[0], message=f"{same[0].message} (the same for {shown})")


def format_path(path: FieldPath) -> str:
    """`("spec", "rules", 0, "name")` as `spec.rules[0].name`; keys with dots or slashes are quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif any(c in step for c in "./[] "):
            text += f'["{step}"]'
        else:
            text += f".{step}" if text else step
    return text
