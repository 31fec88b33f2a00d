"""What do these files come to? From paths to resources, problems and both halves of a snapshot, once or per change."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from discovery.check import problem_steps, warning_steps
from discovery.compile.membership import membership_steps
from discovery.compile.routing import routing_steps
from discovery.resources.collection import Resources
from discovery.resources.problem import Problem, Severity
from discovery.slices import Steps, collector_paused, run_at_once, run_in_slices
from discovery.snapshot import Membership, Routing
from discovery.sources.document_decoder import Progress
from discovery.sources.files import FileSource
from discovery.sources.source import SourceState


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
    by_port: bool = False  # listeners are told apart by their ports too (--listen-on-gateway-ports)
    fingerprint: str = ""  # of the files' contents: the same text is the same news

    @property
    def is_refused(self) -> bool:
        """Whether there is something that an API server would not store: `serve` does not start with it."""
        return any(problem.severity is Severity.REFUSED for problem in self.problems)

    def compile(self, *, routing: Routing | None = None, membership: Membership | None = None) -> Compiled:
        """Both halves of a snapshot; given the previous ones, those are returned where nothing has changed."""
        return run_at_once(self._compile_steps(routing, membership))

    async def compile_in_slices(
        self, *, routing: Routing | None = None, membership: Membership | None = None
    ) -> Compiled:
        """The same while the event loop goes on."""
        with collector_paused():
            return await run_in_slices(self._compile_steps(routing, membership))

    def _compile_steps(self, routing: Routing | None, membership: Membership | None) -> Steps[Compiled]:
        new_routing = yield from routing_steps(
            self.resources, previous=routing, ignored_policies=self.ignored_policies, by_port=self.by_port
        )
        new_membership = yield from membership_steps(self.resources, previous=membership)
        found = yield from problem_steps(new_routing, self.resources)
        warnings = yield from warning_steps(
            new_routing, new_membership, self.resources, ignored_policies=self.ignored_policies
        )
        problems = sort_problems((*self.problems, *found, *warnings))
        return Compiled(routing=new_routing, membership=new_membership, problems=problems)


class Loader:
    """Files, folders and `--model` options as one source of what is served. ``load`` first, ``watch`` afterwards."""

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        models: Sequence[str] = (),
        ignored_policies: frozenset[str] = frozenset(),
        by_port: bool = False,
    ) -> None:
        self._source = FileSource(paths, models=models)
        self._ignored_policies = ignored_policies
        self._by_port = by_port

    def load(self, *, progress: Progress | None = None) -> Loaded:
        """Read everything now. Never raises for what is in the files."""
        return self._loaded(self._source.read(progress=progress))

    async def watch(self) -> AsyncGenerator[Loaded, None]:
        """What was read at each change of the files' contents, within a second of it; close it to stop.

        It reads aside: the event loop is held for milliseconds at a time, however much there is.
        """
        async with aclosing(self._source.watch()) as states:
            async for state in states:
                yield self._loaded(state)

    def reread(self) -> None:
        """Have ``watch`` read and tell everything again, changed or not (SIGHUP)."""
        self._source.reread()

    def _loaded(self, state: SourceState) -> Loaded:
        return Loaded(
            resources=state.resources,
            problems=sort_problems(state.problems),
            ignored_policies=self._ignored_policies,
            by_port=self._by_port,
            fingerprint=state.fingerprint,
        )


def load(
    paths: Sequence[Path | str],
    *,
    models: Sequence[str] = (),
    ignored_policies: frozenset[str] = frozenset(),
    by_port: bool = False,
    progress: Progress | None = None,
) -> Loaded:
    """Read files, folders and `--model` options once. Never raises for what is in them.

    ``progress(decoded, in_all)`` is called from time to time with numbers of documents.
    """
    loader = Loader(paths, models=models, ignored_policies=ignored_policies, by_port=by_port)
    return loader.load(progress=progress)


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By file and line, otherwise in the order in which they were found."""
    return tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
