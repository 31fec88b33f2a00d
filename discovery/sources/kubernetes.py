"""What does the cluster hold? A reflector for each kind and scope, and their state put together.

Kinds that are few are followed whole; of pods and EndpointSlices those that a pool or a Service of ours selects, and
ConfigMaps where a Backend names certificate authorities, which is known only once those are listed. ``changed`` is set
whenever there may be something new.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from discovery.resources.collection import MODELS, LeftOut, Origin, Resources
from discovery.resources.core import CertificateMap, EndpointSlice, Pod
from discovery.resources.meta import ObjectKey, Resource
from discovery.resources.problem import Problem, Severity
from discovery.sources.backoff import Times
from discovery.sources.kube_client import KubeClient, KubeError
from discovery.sources.kube_kinds import PLANNED, WatchedKind, find_kind, watched_kinds
from discovery.sources.kube_objects import StoredObject, UnreadableError, peek
from discovery.sources.reflector import Reflector
from discovery.sources.watch_plans import Labels, Plan, WatchScope, is_wanted

SILENCE_SECONDS = 120.0  # of a watch whose bookmarks come about once a minute
_REMEMBERED_DELETIONS = 1_000
_ROUTES = frozenset({"HTTPRoute", "AIGatewayRoute"})
_INDISPENSABLE = frozenset({"Gateway", "HTTPRoute", "InferencePool"})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """What is known of a cluster at one moment, but for pods and EndpointSlices."""

    resources: Resources
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What is known of pods and EndpointSlices at one moment."""

    pods: tuple[Pod, ...]
    endpoint_slices: tuple[EndpointSlice, ...]
    problems: tuple[Problem, ...] = ()


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
        self.has_other_routes = False  # routes come from files, too
        self.shadowed: frozenset[ObjectKey] = (
            frozenset()
        )  # what files have: the cluster's objects of that name are not used
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._times = times
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
        self._left: deque[StoredObject] = deque(maxlen=_REMEMBERED_DELETIONS)  # pods that may be deleted, or relabelled
        self._asking: asyncio.Task[None] | None = None
        self._deleted: dict[str, None] = {}  # pods that are known to be gone, the latest ones
        self._routing: ClusterState | None = None  # without pods and EndpointSlices
        self._is_routing_changed = True
        self._terminating: set[str] = set()  # pods that an EndpointSlice says are terminating
        self.deletions = 0  # how often a pod was deleted: whether there is news

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow; an API server that is away is tried again for ever."""
        for reflector in (*self._fixed, *self._planned.values(), *self._retiring.values()):
            self._run(reflector)

    async def stop(self) -> None:
        """End every watch. What is known is kept, and ``start`` goes on from it."""
        tasks = [*self._tasks.values(), *([self._asking] if self._asking is not None else [])]
        self._tasks.clear()
        self._asking = None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

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
        return not any(True for _ in self._unlisted(self._fixed))

    @property
    def is_planned_listed(self) -> bool:
        """Whether all pods and EndpointSlices that were asked for have been listed once."""
        return not any(True for _ in self._unlisted(self._planned.values()))

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
        unlisted = (*self._unlisted(self._fixed), *self._unlisted(self._planned.values()))
        return [f"{reflector.where}: {reflector.problem or 'listing'}" for reflector in unlisted]

    def _unlisted(self, reflectors: Iterable[Reflector]) -> Iterator[Reflector]:
        for reflector in reflectors:
            is_excused = reflector.is_forbidden and self._is_optional(reflector)
            if not reflector.is_listed and not is_excused:
                yield reflector

    def _is_optional(self, reflector: Reflector) -> bool:
        """Whether a kind that we may not read can be done without, so that less is served and never more.

        Policies cannot: what they restrict would be served without them. Neither can what everything hangs on; a Role
        may come some seconds after us. But where routes come from files, and a cluster's may not be read, its policies
        have nothing to say.
        """
        kind = reflector.kind
        if kind.kind in PLANNED:
            return False
        if not kind.kind.endswith("Policy") and kind.kind not in _INDISPENSABLE:
            return True
        routes = [other for other in self._fixed if other.kind.kind in _ROUTES]
        return self.has_other_routes and all(other.is_forbidden or other.is_missing for other in routes)

    def routing(self) -> ClusterState:
        """Everything but pods and EndpointSlices; the same object as before while nothing of it has changed."""
        if self._routing is None or self._is_routing_changed:
            self._is_routing_changed = False
            self._routing = self._collect_routing()
        return self._routing

    def members(self) -> Members:
        """Pods and EndpointSlices."""
        self._retire()
        pods: dict[ObjectKey, Pod] = {}
        slices: dict[ObjectKey, EndpointSlice] = {}
        problems: list[Problem] = []
        for reflector in (*self._planned.values(), *self._retiring.values()):
            for stored in reflector.objects.values():
                problems += stored.problems
                match stored.resource:
                    case Pod() as pod:
                        pods.setdefault(pod.key, pod)
                    case EndpointSlice() as piece:
                        slices.setdefault(piece.key, piece)
                    case _ if stored.left_out is not None:
                        problems.append(_left_out_problem(stored.left_out))
        self._note_terminating(slices.values())
        return Members(pods=tuple(pods.values()), endpoint_slices=tuple(slices.values()), problems=tuple(problems))

    def deleted_pods(self) -> frozenset[str]:
        """Identities (uid) of pods that were deleted lately."""
        if self._left and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask_who_is_gone())
        return frozenset(self._deleted)

    async def _ask_who_is_gone(self) -> None:
        """Of pods that vanished without the mark of a deletion, which ones still exist, with other labels?"""
        while self._left:
            pod = self._left.popleft().resource
            if not isinstance(pod, Pod):
                continue
            try:
                found = peek(await self.client.request("GET", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"))
            except KubeError as error:
                if error.status != 404:
                    continue  # nobody knows: its answers go on, as those of any pod that says nothing
                found = None
            except UnreadableError:
                continue
            if found is None or found.uid != pod.metadata.uid:
                self._add_deleted(pod.identity)
                self.changed.set()

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

        reflector = Reflector(
            self.client,
            kind,
            namespace=namespace,
            selector=kind.selector if scope is None else selector,
            wants=wants,
            on_change=changed,
            on_status=self.status_changed.set,
            on_deleted=self._note_deleted if is_pod else lambda stored: None,
            on_left=self._left.append if is_pod else lambda stored: None,
            is_optional=lambda: self._is_optional(reflector),
            times=self._times,
            clock=self._clock,
        )
        return reflector

    def _collect_routing(self) -> ClusterState:
        found: dict[str, list[Resource]] = {name: [] for name in MODELS.values()}
        problems: list[Problem] = []
        left_out: list[LeftOut] = []
        origins: dict[ObjectKey, Origin] = {}
        for reflector in self._fixed:
            for stored in reflector.objects.values():
                resource = stored.resource
                problems += stored.problems
                if stored.left_out is not None:
                    left_out.append(stored.left_out)
                    origins[stored.left_out.key] = _origin(stored.left_out.key.namespace)
                if resource is not None:
                    found[MODELS[type(resource)]].append(resource)
                    origins[resource.key] = _origin(resource.namespace)
        for authorities in self._certificate_maps():
            if authorities.key not in origins:
                found[MODELS[CertificateMap]].append(authorities)
                origins[authorities.key] = _origin(authorities.namespace)
        arguments: dict[str, Any] = {name: tuple(items) for name, items in found.items()}
        resources = Resources(**arguments, left_out=tuple(left_out), origins=MappingProxyType(origins))
        return ClusterState(resources=resources, problems=tuple(problems))

    def _certificate_maps(self) -> Iterator[CertificateMap]:
        """ConfigMaps of the namespaces where Backends name some; adapter maps are followed by their label."""
        for scope, reflector in (*self._planned.items(), *self._retiring.items()):
            if scope.kind == "ConfigMap":
                for stored in reflector.objects.values():
                    if isinstance(stored.resource, CertificateMap):
                        yield stored.resource

    def _note_deleted(self, stored: StoredObject) -> None:
        if isinstance(stored.resource, Pod):
            self._add_deleted(stored.resource.identity)

    def _note_terminating(self, slices: Iterable[EndpointSlice]) -> None:
        """Pods that an EndpointSlice called terminating, and that no slice has any more, are gone."""
        listed: set[str] = set()
        terminating: set[str] = set()
        for piece in slices:
            for endpoint in piece.endpoints:
                target = endpoint.target_ref
                if target is not None and target.kind == "Pod" and target.name:
                    identity = target.uid or f"{target.namespace or piece.namespace}/{target.name}"
                    listed.add(identity)
                    if endpoint.conditions.terminating:
                        terminating.add(identity)
        for identity in self._terminating - listed:
            self._add_deleted(identity)
        self._terminating = terminating

    def _add_deleted(self, identity: str) -> None:
        self.deletions += 1
        self._deleted.pop(identity, None)
        self._deleted[identity] = None
        if len(self._deleted) > _REMEMBERED_DELETIONS:
            del self._deleted[next(iter(self._deleted))]


def _staleness(reflector: Reflector, now: float) -> float:
    return now - (reflector.synced_at if reflector.synced_at is not None else reflector.started_at)


def _origin(namespace: str) -> Origin:
    return Origin(file=f"namespace {namespace}" if namespace else "cluster", line=0)


def _left_out_problem(lost: LeftOut) -> Problem:
    return Problem(
        severity=Severity.INVALID,
        message=f"left out: {lost.message}",
        file=_origin(lost.key.namespace).file,
        kind=lost.key.kind,
        namespace=lost.key.namespace,
        name=lost.key.name,
    )
