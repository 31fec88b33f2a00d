"""What do files and a cluster hold together? The whole state at each change, at most ten times a second.

Files that are refused keep their last good state, and the cluster is followed on; nothing is told before everything
that routing needs was listed once. Which pods are watched follows from the pools, so a state with new pools waits a
moment for their pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from discovery.resources.collection import Resources
from discovery.resources.problem import Severity
from discovery.scope import Scope, Selection, select
from discovery.sources.files import FileSource
from discovery.sources.kubernetes import KubernetesSource
from discovery.sources.source import SourceState
from discovery.sources.watch_plans import Want, plan_watches, wants_of
from discovery.tasks import end

PACE_SECONDS = 0.1  # between two states
PODS_SECONDS = 0.5  # how long a state waits for the pods of a new pool; the first one waits for all


class CombinedSource:
    """Files and a cluster as one source. Single-threaded: used from the event loop only."""

    def __init__(
        self,
        files: FileSource,
        cluster: KubernetesSource,
        scope: Scope,
        *,
        pace_seconds: float = PACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._cluster = cluster
        self._scope = scope
        self._pace_seconds = pace_seconds
        self._clock = clock
        self._file_state: SourceState | None = None  # the last one that was not refused
        self._news: list[SourceState] = []  # of the files, not looked at yet
        self._selection: Selection | None = None
        self._selected_of: tuple[Resources, Resources] | None = None  # cluster without pods, files
        self._wants: frozenset[Want] = frozenset()
        self._wants_since = 0.0

    async def watch(self) -> AsyncGenerator[SourceState, None]:
        """The whole state once all of it is known, and whenever it has changed. Close it to stop."""
        if self._file_state is None:
            self._file_state = self._files.last
        if self._file_state is None:
            self._file_state = await asyncio.to_thread(self._files.read)
        self._cluster.rights.has_other_routes = bool(self._file_state.resources.routes)
        following = asyncio.create_task(self._follow_files())
        self._cluster.start()
        is_first = True
        try:
            while True:
                await self._wait(following)
                while self._news:
                    news = self._news.pop(0)
                    if any(problem.severity is Severity.REFUSED for problem in news.problems):
                        yield news
                    else:
                        self._file_state = news
                        self._cluster.rights.has_other_routes = bool(news.resources.routes)
                if not self._cluster.is_listed:
                    continue
                state = self._state(is_first=is_first)
                if state is None:
                    continue
                started = self._clock()
                yield state
                is_first = False
                # What takes long to take in is told less often.
                await asyncio.sleep(max(self._pace_seconds, self._clock() - started))
        finally:
            await end(following)
            await self._cluster.stop()

    async def _wait(self, following: asyncio.Task[None]) -> None:
        """Until there may be something new."""
        changed = self._cluster.changed
        if not self._cluster.is_planned_listed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PODS_SECONDS):
                    await changed.wait()
        else:
            await changed.wait()
        changed.clear()
        if following.done():
            await following  # a defect: whoever follows us starts anew

    async def _follow_files(self) -> None:
        try:
            async with aclosing(self._files.watch()) as states:
                async for state in states:
                    self._news.append(state)
                    self._cluster.changed.set()
        finally:
            self._cluster.changed.set()

    def _state(self, *, is_first: bool) -> SourceState | None:
        """What is known, or None where it is not enough yet."""
        assert self._file_state is not None
        files = self._file_state.resources
        routing = self._cluster.routing()
        before = self._selected_of
        is_membership_only = before is not None and before[0] is routing.resources and before[1] is files
        if self._selection is None or not is_membership_only:
            self._selection = select(routing.resources, files, self._scope, previous=self._selection)
            self._selected_of = (routing.resources, files)
            self._cluster.shadowed = frozenset(files.origins)
            wants = wants_of(self._selection.resources)
            if wants != self._wants:
                self._wants, self._wants_since = wants, self._clock()
                self._cluster.follow(plan_watches(wants))
        if not self._cluster.is_planned_listed:
            is_late = self._clock() - self._wants_since >= PODS_SECONDS
            if is_first or not is_late:
                self._selected_of = None if not is_membership_only else self._selected_of
                return None
        members = self._cluster.members()
        selected = self._selection
        resources = replace(
            selected.resources,
            pods=(*files.pods, *members.pods),
            endpoint_slices=(*files.endpoint_slices, *members.endpoint_slices),
        )
        return SourceState(
            resources=resources,
            problems=(*self._file_state.problems, *selected.problems, *routing.problems, *members.problems),
            fingerprint=self._file_state.fingerprint,
            deleted_pods=self._file_state.deleted_pods | self._cluster.gone.identities(),
            is_membership_only=is_membership_only and not is_first,
        )
