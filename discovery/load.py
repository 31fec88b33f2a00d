"""What do these files come to? One call from paths to resources, problems and the two halves of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery.check import problems_of, warnings_of
from discovery.compile import compile_membership, compile_routing
from discovery.resources.collection import Resources
from discovery.resources.problem import Problem, Severity
from discovery.snapshot import Membership, Routing
from discovery.sources.files import FileSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What is served, and all that is wrong with it: of the text, of the objects together, sorted by place."""

    routing: Routing
    membership: Membership
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was read. ``problems`` are those of the text (refused, warnings), sorted by file and line."""

    resources: Resources
    problems: tuple[Problem, ...]
    ignored_policies: frozenset[str] = frozenset()

    @property
    def is_refused(self) -> bool:
        """Whether there is something that an API server would not store: `serve` does not start with it."""
        return any(problem.severity is Severity.REFUSED for problem in self.problems)

    def compile(self, *, routing: Routing | None = None, membership: Membership | None = None) -> Compiled:
        """Both halves of a snapshot; given the previous ones, those are returned where nothing has changed."""
        new_routing = compile_routing(self.resources, previous=routing, ignored_policies=self.ignored_policies)
        new_membership = compile_membership(self.resources, previous=membership)
        problems = (
            *self.problems,
            *problems_of(new_routing, self.resources),
            *warnings_of(new_membership, self.resources, ignored_policies=self.ignored_policies),
        )
        return Compiled(routing=new_routing, membership=new_membership, problems=sort_problems(problems))


def load(
    paths: Sequence[Path | str], *, models: Sequence[str] = (), ignored_policies: frozenset[str] = frozenset()
) -> Loaded:
    """Read files, folders and `--model` options. Never raises for what is in them."""
    state = FileSource(paths, models=models).read()
    return Loaded(resources=state.resources, problems=sort_problems(state.problems), ignored_policies=ignored_policies)


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By file and line, otherwise in the order in which they were found."""
    return tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
