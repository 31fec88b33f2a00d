"""What do texts hold, each by itself and all together? Objects with their places, problems, and what was skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from discovery.resources.collection import Origin, Resources, gather_steps
from discovery.resources.meta import ObjectKey, Resource
from discovery.resources.problem import Problem, Severity
from discovery.slices import Steps, run_at_once


@dataclass(slots=True, kw_only=True)
class Decoded:
    """What one text holds."""

    objects: list[tuple[Resource, Origin]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: list[Problem] = field(default_factory=list)  # one for each object of a kind that we do not read

    def add(self, document: Decoded, *, file: str, line: int) -> None:
        """Take over what a document of a file holds, ``line`` lines below its start."""
        for resource, origin in document.objects:
            self.objects.append((resource, Origin(file=file, line=origin.line + line)))
        for mine, its in ((self.problems, document.problems), (self.skipped, document.skipped)):
            mine.extend(replace(problem, file=file, line=problem.line + line) for problem in its)


def combine(parts: Iterable[Decoded]) -> tuple[Resources, list[Problem]]:
    """All objects together. A second object of the same key is refused; skipped kinds are listed once each."""
    return run_at_once(combine_steps(parts))


def combine_steps(parts: Iterable[Decoded]) -> Steps[tuple[Resources, list[Problem]]]:
    """``combine`` in steps."""
    origins: dict[ObjectKey, Origin] = {}
    objects: list[tuple[Resource, Origin]] = []
    problems: list[Problem] = []
    skipped: dict[str, list[Problem]] = {}
    for part in parts:
        problems.extend(part.problems)
        for problem in part.skipped:
            skipped.setdefault(problem.message, []).append(problem)
        for number, (resource, origin) in enumerate(part.objects):
            if number % 64 == 0:
                yield
            first = origins.setdefault(resource.key, origin)
            if first is origin:
                objects.append((resource, origin))
                continue
            problems.append(
                Problem(
                    severity=Severity.REFUSED,
                    message=f"is there twice: namespace {resource.namespace}, first at {first.file}:{first.line}",
                    file=origin.file,
                    line=origin.line,
                    kind=resource.kind,
                    namespace=resource.namespace,
                    name=resource.name,
                )
            )
    problems.extend(_skipped_once(skipped))
    resources = yield from gather_steps(objects)
    return resources, problems


def _skipped_once(skipped: dict[str, list[Problem]]) -> Iterator[Problem]:
    for same in skipped.values():
        first = same[0]
        others = f" ({len(same)} objects)" if len(same) > 1 else ""
        yield Problem(
            severity=Severity.WARNING,
            message=first.message + others,
            file=first.file,
            line=first.line,
            kind=first.kind,
            namespace=first.namespace,
            name=first.name,
        )
