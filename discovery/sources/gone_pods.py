"""Which pods are gone for good? Those whose deletion was seen, asked for, or told by an EndpointSlice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from discovery.resources.core import EndpointSlice, Pod
from discovery.sources.kube_client import KubeClient, KubeError
from discovery.sources.kube_objects import StoredObject, UnreadableError, peek
from discovery.tasks import end

_REMEMBERED = 1_000


class GonePods:
    """Identities of the pods that were deleted lately. ``on_news`` is called when an answer of the API adds one."""

    def __init__(self, client: KubeClient, *, on_news: Callable[[], None]) -> None:
        self._client = client
        self._on_news = on_news
        self._gone: dict[str, None] = {}  # the latest ones, in order
        self._left: deque[StoredObject] = deque(maxlen=_REMEMBERED)  # deleted, or relabelled
        self._terminating: set[str] = set()  # as EndpointSlices say
        self._asking: asyncio.Task[None] | None = None

    def identities(self) -> frozenset[str]:
        """Those that are known to be gone. Whoever only left its selector is asked for, which takes a moment."""
        if self._left and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask())
        return frozenset(self._gone)

    def deleted(self, stored: StoredObject) -> None:
        """A pod was deleted."""
        if isinstance(stored.resource, Pod):
            self._add(stored.resource.identity)

    def left(self, stored: StoredObject) -> None:
        """A pod is not selected any more: deleted, or with other labels."""
        self._left.append(stored)

    def look_at(self, slices: Iterable[EndpointSlice]) -> None:
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
            self._add(identity)
        self._terminating = terminating

    async def stop(self) -> None:
        """Ask no more. What is known is kept."""
        asking, self._asking = self._asking, None
        await end(asking)

    async def _ask(self) -> None:
        """Of pods that vanished without the mark of a deletion, which ones still exist, with other labels?"""
        while self._left:
            pod = self._left.popleft().resource
            if not isinstance(pod, Pod):
                continue
            try:
                found = peek(await self._client.request("GET", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"))
            except KubeError as error:
                if error.status != 404:
                    continue  # nobody knows: its answers go on, as those of any pod that says nothing
                found = None
            except UnreadableError:
                continue
            if found is None or found.uid != pod.metadata.uid:
                self._add(pod.identity)
                self._on_news()

    def _add(self, identity: str) -> None:
        self._gone.pop(identity, None)
        self._gone[identity] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]
