"""What does the cluster hold? A reflector for each kind and scope, and their state put together.

Kinds that are few are followed whole; of pods and EndpointSlices those that a pool or a Service of ours selects, and
ConfigMaps where a Backend names certificate authorities, which is known only once those are listed. ``changed`` is set
whenever there may be something new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from discovery.resources.meta import ObjectKey
from discovery.sources.backoff import Times
from discovery.sources.cluster_state import ClusterState, Members, collect_members, collect_state
from discovery.sources.gone_pods import GonePods
from discovery.sources.kube_client import KubeClient
from discovery.sources.kube_kinds import PLANNED, WatchedKind, find_kind, watched_kinds
from discovery.sources.kube_objects import StoredObject
from discovery.sources.reflector import Reflector
from discovery.sources.rights import Rights
from discovery.sources.watch_plans import Labels, Plan, WatchScope, is_wanted
from discovery.tasks import end

SILENCE_SECONDS = 120.0  # of a watch whose bookmarks come about once a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class KindReport:
    """How well one kind is followed, over all its scopes."""

    kind: str
    objects: int
    stale_seconds: float  # since the API server last said anything of it; bookmarks come about once a minute
    failures: int  # lists and watches that failed
    events: int
    dropped: int  # events that could not be read
    is_listed: bool


class KubernetesSource:
    """Follows a cluster from ``start`` to ``close``. Single-threaded: used from the event loop only."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespaces: Sequence[str] = (),
        times: Times | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self.changed = asyncio.Event()
        self.status_changed = asyncio.Event()
        self.shadowed: frozenset[ObjectKey] = frozenset()  # what files have: the cluster's of that name are not used
        self.gone = GonePods(client, on_news=self.changed.set)
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._times = times or Times()
        self.rights = Rights(lambda: (*self._fixed, *self._planned.values()), patience_seconds=self._times.refused)
        self._clock = clock
        self._fixed = [
            self._reflector(kind, namespace)
            for kind in watched_kinds()
            if kind.kind not in PLANNED
            for namespace in (self._namespaces or (None,) if kind.is_namespaced else (None,))
        ]
        self._planned: dict[WatchScope, Reflector] = {}
        self._retiring: dict[WatchScope, Reflector] = {}  # not wanted any more, used until what replaces them is listed
        self._wanted: dict[WatchScope, frozenset[Labels]] = {}
        self._tasks: dict[Reflector, asyncio.Task[None]] = {}
        self._routing: ClusterState | None = None  # without pods and EndpointSlices
        self._is_routing_changed = True

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow; an API server that is away is tried again for ever."""
        for reflector in (*self._fixed, *self._planned.values(), *self._retiring.values()):
            self._run(reflector)

    async def stop(self) -> None:
        """End every watch. What is known is kept, and ``start`` goes on from it."""
        self.rights.close()
        tasks = list(self._tasks.values())
        self._tasks.clear()
        await end(*tasks)
        await self.gone.stop()

    def follow(self, plan: Plan) -> None:
        """Watch these pods, EndpointSlices and ConfigMaps, and no others as soon as they are listed."""
        for scope, wanted in plan.items():
            if not self._is_asked_for(scope.namespace):
                continue
            reflector = self._planned.get(scope) or self._retiring.pop(scope, None)
            if reflector is None:
                group = "discovery.k8s.io" if scope.kind == "EndpointSlice" else ""
                kind = find_kind(group, scope.kind)
                reflector = self._reflector(kind, scope.namespace, scope.selector, scope)
                self._wanted[scope] = wanted
                self._run(reflector)
            elif self._wanted[scope] != wanted:
                # What the narrower selection left out is not known here: a new watch lists it.
                self._wanted[scope] = wanted
                self._stop(reflector)
                del self._planned[scope]
                fresh = self._reflector(reflector.kind, scope.namespace, scope.selector, scope)
                fresh.objects.update(reflector.objects)
                reflector = fresh
                self._run(reflector)
            self._planned[scope] = reflector
        for scope in [scope for scope in self._planned if scope not in plan]:
            self._retiring[scope] = self._planned.pop(scope)
        self._retire()

    def _retire(self) -> None:
        if self._retiring and all(reflector.is_listed for reflector in self._planned.values()):
            for scope, reflector in self._retiring.items():
                self._stop(reflector)
                self._wanted.pop(scope, None)
            self._retiring.clear()

    def _run(self, reflector: Reflector) -> None:
        self._tasks[reflector] = asyncio.create_task(reflector.run())

    def _stop(self, reflector: Reflector) -> None:
        task = self._tasks.pop(reflector, None)
        if task is not None:
            task.cancel()

    def _is_asked_for(self, namespace: str) -> bool:
        return not self._namespaces or namespace in self._namespaces

    # -- its state ----------------------------------------------------------------------------------------------------

    @property
    def is_listed(self) -> bool:
        """Whether everything that routing needs was listed once."""
        return all(map(self.rights.is_enough, self._fixed))

    @property
    def is_planned_listed(self) -> bool:
        """Whether all pods and EndpointSlices that were asked for have been listed once."""
        return all(map(self.rights.is_enough, self._planned.values()))

    @property
    def is_uninformed(self) -> bool:
        """Whether pods may be gone without our knowing: a watch of them is broken, or has been silent for too long."""
        now = self._clock()
        return any(
            bool(reflector.problem) or _staleness(reflector, now) > SILENCE_SECONDS
            for scope, reflector in self._planned.items()
            if scope.kind in PLANNED
        )

    def waiting_for(self) -> list[str]:
        """What was never listed yet, and why."""
        return [f"{reflector.where}: {reflector.problem or 'listing'}" for reflector in self.rights.unlisted()]

    def routing(self) -> ClusterState:
        """Everything but pods and EndpointSlices; the same object as before while nothing of it has changed."""
        if self._routing is None or self._is_routing_changed:
            self._is_routing_changed = False
            objects = (stored for reflector in self._fixed for stored in reflector.objects.values())
            self._routing = collect_state(objects, self._planned_objects())
            self.rights.tell_excused()
        return self._routing

    def members(self) -> Members:
        """Pods and EndpointSlices."""
        self._retire()
        members = collect_members(self._planned_objects())
        self.gone.look_at(members.endpoint_slices)
        return members

    def _planned_objects(self) -> Iterator[StoredObject]:
        for reflector in (*self._planned.values(), *self._retiring.values()):
            yield from reflector.objects.values()

    def stored(self, key: ObjectKey) -> StoredObject | None:
        """An object of a kind that is followed whole, as it was read last."""
        for reflector in self._fixed:
            if (reflector.kind.group, reflector.kind.kind) == (key.group, key.kind):
                found = reflector.objects.get((key.namespace, key.name))
                if found is not None:
                    return found
        return None

    def all_of(self, group: str, kind: str) -> Iterator[tuple[str, str, StoredObject]]:
        """Namespace, name and object of everything of a kind that is followed whole."""
        for reflector in self._fixed:
            if (reflector.kind.group, reflector.kind.kind) == (group, kind):
                for (namespace, name), stored in reflector.objects.items():
                    yield namespace, name, stored

    def version_of(self, group: str, kind: str) -> str | None:
        """The version of the API that a kind is read in; None when the cluster does not have it."""
        for reflector in self._fixed:
            if (reflector.kind.group, reflector.kind.kind) == (group, kind) and not reflector.is_missing:
                return reflector.api_version
        return None

    def report(self) -> list[KindReport]:
        """How well each kind is followed."""
        now = self._clock()
        by_kind: dict[str, list[Reflector]] = {}
        for reflector in (*self._fixed, *self._planned.values()):
            if not reflector.is_missing:
                by_kind.setdefault(reflector.kind.name, []).append(reflector)
        return [
            KindReport(
                kind=name,
                objects=sum(len(r.objects) for r in reflectors),
                stale_seconds=max(_staleness(r, now) for r in reflectors),
                failures=sum(r.failures for r in reflectors),
                events=sum(r.events for r in reflectors),
                dropped=sum(r.dropped for r in reflectors),
                is_listed=all(r.is_listed for r in reflectors),
            )
            for name, reflectors in sorted(by_kind.items())
        ]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _reflector(
        self, kind: WatchedKind, namespace: str | None, selector: str = "", scope: WatchScope | None = None
    ) -> Reflector:
        is_pod = kind.kind == "Pod"

        def wants(stored: StoredObject) -> bool:
            if scope is None or stored.resource is None:
                return True
            return is_wanted(stored.resource.metadata.labels, self._wanted.get(scope, frozenset()))

        def changed() -> None:
            if scope is None or scope.kind == "ConfigMap":
                self._is_routing_changed = True
            self.changed.set()

        return Reflector(
            self.client,
            kind,
            namespace=namespace,
            selector=kind.selector if scope is None else selector,
            wants=wants,
            on_change=changed,
            on_status=self.status_changed.set,
            on_deleted=self.gone.deleted if is_pod else lambda stored: None,
            on_left=self.gone.left if is_pod else lambda stored: None,
            on_refused=self.rights.refused,
            times=self._times,
            clock=self._clock,
        )


def _staleness(reflector: Reflector, now: float) -> float:
    return now - (reflector.synced_at if reflector.synced_at is not None else reflector.started_at)
