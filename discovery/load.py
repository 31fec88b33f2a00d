"""What do files and a cluster come to? Resources, problems and both halves of a snapshot, once or at each change."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from discovery.backend import Membership
from discovery.check import membership_warnings, problem_steps, routing_warning_steps
from discovery.compile.membership import membership_steps
from discovery.compile.routing import routing_steps
from discovery.resources.collection import Resources
from discovery.resources.problem import Problem, Severity
from discovery.scope import Scope
from discovery.slices import Steps, collector_paused, run_at_once, run_in_slices
from discovery.snapshot import Routing
from discovery.sources.combined import CombinedSource
from discovery.sources.document_decoder import Progress
from discovery.sources.files import FileSource
from discovery.sources.kubernetes import KubernetesSource
from discovery.sources.source import SourceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What is served, and all that is wrong with it: of the text, of the objects together, sorted by place."""

    routing: Routing
    membership: Membership
    problems: tuple[Problem, ...]
    routing_problems: tuple[Problem, ...] = ()  # those that only change with the routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was read. ``problems`` are those of the text (refused, warnings), sorted by file and line."""

    resources: Resources
    problems: tuple[Problem, ...]
    ignored_policies: frozenset[str] = frozenset()
    by_port: bool = False  # listeners are told apart by their ports too (--listen-on-gateway-ports)
    fingerprint: str = ""  # of the files' contents: the same text is the same news
    deleted_pods: frozenset[str] = frozenset()  # identities (uid, else namespace/name) of pods that are gone
    is_membership_only: bool = False  # nothing but pods and EndpointSlices has changed since the last state

    @property
    def is_refused(self) -> bool:
        """Whether there is something that an API server would not store: `serve` does not start with it."""
        return any(problem.severity is Severity.REFUSED for problem in self.problems)

    def compile(self, *, previous: Compiled | None = None) -> Compiled:
        """Both halves of a snapshot; of the previous ones those are returned that have not changed."""
        return run_at_once(self._compile_steps(previous))

    async def compile_in_slices(self, *, previous: Compiled | None = None) -> Compiled:
        """The same while the event loop goes on."""
        if self.is_membership_only:  # pods come and go every second: nothing large is made, nothing is to be frozen
            return await run_in_slices(self._compile_steps(previous))
        with collector_paused():
            return await run_in_slices(self._compile_steps(previous))

    def _compile_steps(self, previous: Compiled | None) -> Steps[Compiled]:
        routing = yield from routing_steps(
            self.resources,
            previous=previous.routing if previous is not None else None,
            ignored_policies=self.ignored_policies,
            by_port=self.by_port,
        )
        membership = yield from membership_steps(
            self.resources, previous=previous.membership if previous is not None else None
        )
        if previous is not None and routing is previous.routing:
            found = previous.routing_problems
        else:
            of_objects = yield from problem_steps(routing, self.resources)
            warnings = yield from routing_warning_steps(routing, self.resources, ignored_policies=self.ignored_policies)
            found = (*of_objects, *warnings)
        problems = sort_problems((*self.problems, *found, *membership_warnings(membership, self.resources)))
        return Compiled(routing=routing, membership=membership, problems=problems, routing_problems=found)


class Loader:
    """Files, folders, `--model` options, and perhaps a cluster, as one source of what is served. ``load`` first,
    ``watch`` afterwards."""

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        models: Sequence[str] = (),
        ignored_policies: frozenset[str] = frozenset(),
        by_port: bool = False,
        cluster: KubernetesSource | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._files = FileSource(paths, models=models)
        self._source: FileSource | CombinedSource = self._files
        if cluster is not None:
            self._source = CombinedSource(self._files, cluster, scope or Scope())
        self._ignored_policies = ignored_policies
        self._by_port = by_port

    def load(self, *, progress: Progress | None = None) -> Loaded:
        """Read all files now. Never raises for what is in them. A cluster is only in what ``watch`` tells."""
        return self._loaded(self._files.read(progress=progress))

    async def watch(self) -> AsyncGenerator[Loaded, None]:
        """What was read at each change of the files' contents or of the cluster, within a second; close it to stop.

        It reads aside: the event loop is held for milliseconds at a time, however much there is.
        """
        async with aclosing(self._source.watch()) as states:
            async for state in states:
                yield self._loaded(state)

    def reread(self) -> None:
        """Have ``watch`` read and tell everything again, changed or not (SIGHUP)."""
        self._files.reread()

    def _loaded(self, state: SourceState) -> Loaded:
        return Loaded(
            resources=state.resources,
            problems=sort_problems(state.problems),
            ignored_policies=self._ignored_policies,
            by_port=self._by_port,
            fingerprint=state.fingerprint,
            deleted_pods=state.deleted_pods,
            is_membership_only=state.is_membership_only,
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
