"""How do `kubectl get` users learn what became of their objects? One replica writes conditions and addresses.

Each replica compares; the one that holds the Lease writes, over the resourceVersion that it compared with. Where
nothing differs nothing is written and no Lease is asked for, so a gateway that serves files alone needs no permission
for it. An object that is written again and again, since somebody else keeps undoing it, is written ever more rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.status_planning import StatusPatch, StatusPlanner
from discovery.resources.meta import ObjectKey
from discovery.scope import CONTROLLER_NAME
from discovery.slices import run_in_slices
from discovery.snapshot import Routing, Snapshot, SnapshotStore
from discovery.sources.kube_client import MERGE_PATCH, KubeClient, KubeError
from discovery.sources.kube_kinds import find_kind
from discovery.sources.kubernetes import KubernetesSource
from discovery.sources.leader import LeaderElection
from discovery.tasks import end

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTimes:
    """How long the writer waits for what, in seconds."""

    settle: float = 0.3  # a change of many objects is one round
    round: float = 30.0  # without any news; also how often the addresses of our Service are asked for
    first_pause: float = 1.0  # after a write of an object, doubling while the same is written again and again
    most_pause: float = 300.0
    calm: float = 60.0  # an object that is left alone for so long is written at once again
    conflict: float = 1.0  # for the news of an object that has changed meanwhile
    forbidden: float = 60.0


class StatusWriter:
    """Writes until ``close``. ``start`` once the gateway serves."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cluster: KubernetesSource,
        store: SnapshotStore,
        election: LeaderElection,
        controller_name: str,
        gateway: tuple[str, str] | None = None,
        pod: str | None = None,
        times: StatusTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``gateway`` is the only one that we serve, if there is such. ``pod`` is our own name, by which our Service is
        found; None outside of a cluster."""
        self._client = client
        self._cluster = cluster
        self._store = store
        self._election = election
        self._controller = controller_name
        self._gateway = gateway
        self._pod = pod
        self._times = times or StatusTimes()
        self._clock = clock
        self._now = now
        self._routing: Routing | None = None
        self._wake = cluster.status_changed
        self._addresses: list[tuple[str, str]] | None = None
        self._addresses_at: float | None = None
        self._pauses: dict[ObjectKey, tuple[float, float, int]] = {}  # last write, pause after it, what it said
        self._refused: dict[ObjectKey, int] = {}  # what the API server would not take, by its hash
        self._forbidden: dict[str, float] = {}  # kinds whose status we may not write, and until when not to try
        self._tasks: list[asyncio.Task[Any]] = []
        self.writes = 0
        store.subscribe(self._follow)

    def start(self) -> None:
        """From here on statuses are written."""
        self._tasks.append(asyncio.create_task(self._run()))

    async def close(self) -> None:
        """Stop, and give the Lease up. Safe to call twice."""
        tasks, self._tasks = self._tasks, []
        await end(*tasks)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._election.release()

    def wake(self) -> None:
        """Look again: we lead now, or do not any more."""
        self._wake.set()

    def _follow(self, snapshot: Snapshot) -> None:
        if snapshot.routing is not self._routing:
            self._routing = snapshot.routing
            self._wake.set()

    async def _run(self) -> None:
        pause = self._times.round
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            await asyncio.sleep(self._times.settle)
            self._wake.clear()
            try:
                pause = await self._round()
            except KubeError as error:
                logger.warning("writing conditions: %s; trying again", error.message)
                pause = max(error.retry_after or 0.0, 5.0)
            except Exception:  # a defect here must not end the writing for good
                logger.exception("writing conditions failed; trying again")
                pause = self._times.round

    async def _round(self) -> float:
        """Write what differs. The result is how long to wait at most before the next round."""
        routing = self._routing
        if routing is None:
            return self._times.round
        if self._election.is_leader:
            await self._look_for_addresses()
        moment = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        planner = StatusPlanner(
            self._cluster,
            routing.statuses,
            controller=self._controller,
            gateway=self._gateway,
            addresses=self._addresses if self._election.is_leader else None,
            now=moment,
        )
        patches = await run_in_slices(planner.steps())
        if patches and len(self._tasks) == 1:
            self._tasks.append(asyncio.create_task(self._election.run()))
        if not self._election.is_leader:
            return self._times.round
        self._forget_calm(patches)
        next_round = self._times.round
        for patch in patches:
            if not self._election.is_leader:
                break
            next_round = min(next_round, await self._write(patch))
        return next_round

    async def _write(self, patch: StatusPatch) -> float:
        """Write one status. The result is when to look again. Raises KubeError when the API server is away."""
        key, now = patch.key, self._clock()
        kind = find_kind(key.group, key.kind)
        version = self._cluster.version_of(key.group, key.kind)
        digest = hash((patch.version, msgspec.json.encode(patch.status)))
        if version is None or self._refused.get(key) == digest or self._forbidden.get(kind.name, 0.0) > now:
            return self._times.round
        written_at, pause, said = self._pauses.get(key, (-self._times.calm, 0.0, 0))
        if patch.wanted != said:  # there is something else to say: nobody has undone anything
            pause = min(pause, self._times.first_pause)
        if now < written_at + pause:
            return written_at + pause - now
        path = f"{kind.path(version, key.namespace or None)}/{key.name}/status"
        body = {"metadata": {"resourceVersion": patch.version}, "status": patch.status}
        try:
            await self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH)
        except KubeError as error:
            if error.status == 409:
                return self._times.conflict  # it has changed meanwhile: the news are on their way
            if error.status == 404:
                return self._times.round
            if error.status == 403:
                self._forbidden[kind.name] = now + self._times.forbidden
                logger.warning("conditions of %s cannot be written: %s", kind.name, error.message)
                return self._times.forbidden
            if error.status in (400, 413, 415, 422):
                self._refused[key] = digest
                logger.warning("conditions of %s %s/%s: %s", key.kind, key.namespace, key.name, error.message)
                return self._times.round
            raise
        self.writes += 1
        self._refused.pop(key, None)
        pause = max(pause * 2, self._times.first_pause) if patch.wanted == said else self._times.first_pause
        self._pauses[key] = (now, min(pause, self._times.most_pause), patch.wanted)
        return self._times.round

    def _forget_calm(self, patches: Iterable[StatusPatch]) -> None:
        """Objects that nobody touches any more are written at once when they change."""
        now = self._clock()
        wanted = {patch.key for patch in patches}
        for key, (written_at, pause, _) in list(self._pauses.items()):
            if now - written_at > max(self._times.calm, 2 * pause):
                del self._pauses[key]
        for key in [key for key in self._refused if key not in wanted]:
            del self._refused[key]

    async def _look_for_addresses(self) -> None:
        """The addresses of the Service in front of our own pod; unknown where we may not look."""
        now = self._clock()
        if self._pod is None or (self._addresses_at is not None and now - self._addresses_at < self._times.round):
            return
        self._addresses_at = now
        root = f"/api/v1/namespaces/{self._client.access.namespace}"
        try:
            pod = msgspec.json.decode(await self._client.request("GET", f"{root}/pods/{self._pod}"))
            services = msgspec.json.decode(await self._client.request("GET", f"{root}/services"))
        except KubeError as error:
            if error.status in (403, 404):
                return
            raise
        self._addresses = service_addresses(pod, services)


def service_addresses(pod: Any, services: Any) -> list[tuple[str, str]]:
    """(type, value) of the addresses of the Service that selects this pod: a load balancer's, else cluster IPs."""
    labels = pod.get("metadata", {}).get("labels") or {}
    best: list[tuple[str, str]] = []
    ranked: list[tuple[int, str, list[tuple[str, str]]]] = []
    for service in services.get("items") or ():
        spec = service.get("spec") or {}
        selector = spec.get("selector") or {}
        if not selector or any(labels.get(key) != value for key, value in selector.items()):
            continue
        balancer = (service.get("status") or {}).get("loadBalancer") or {}
        external = [
            ("IPAddress", entry["ip"]) if entry.get("ip") else ("Hostname", entry["hostname"])
            for entry in balancer.get("ingress") or ()
            if entry.get("ip") or entry.get("hostname")
        ]
        ips = spec.get("clusterIPs") or [spec.get("clusterIP")]
        internal = [("IPAddress", ip) for ip in ips if ip and ip != "None"]
        name = str(service.get("metadata", {}).get("name", ""))
        if external or internal:
            ranked.append((0 if external else 1, name, external or internal))
    if ranked:
        best = min(ranked)[2]
    return best[:16]


def lease_name(controller_name: str, gateway: tuple[str, str] | None) -> str:
    """The Lease of gateways that write the same entries: others beside them have their own."""
    if controller_name == CONTROLLER_NAME and gateway is None:
        return "pointsman-leader"
    digest = hashlib.sha256(f"{controller_name} {gateway}".encode()).hexdigest()
    return f"pointsman-leader-{digest[:8]}"
