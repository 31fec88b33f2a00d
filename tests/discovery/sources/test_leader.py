"""Is there one leader, and soon another when it goes? Over a real socket, with clocks that the tests move."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discovery.sources.kube_client import KubeClient
from discovery.sources.leader import LeaderElection
from tests.support.clusters import kube_client
from tests.support.kube_api import KubeApi

pytestmark = pytest.mark.anyio


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """A part in the election, round by round."""

    def __init__(self, client: KubeClient, identity: str, clock: Clock) -> None:
        self.rounds: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.election = LeaderElection(
            client,
            namespace=lambda: "default",
            name="leader",
            identity=identity,
            clock=clock,
            sleep=self._sleep,
        )
        self.task: asyncio.Task[None] | None = None
        self._paused: asyncio.Future[None] | None = None

    async def _sleep(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.rounds.put(over)
        await over

    async def round(self) -> bool:
        """Let it do one round; whether it leads then."""
        if self.task is None:
            self.task = asyncio.create_task(self.election.run())
        if self._paused is not None:
            self._paused.set_result(None)
        self._paused = await self.rounds.get()
        return self.election.is_leader

    async def stop(self) -> None:
        """End it without a word."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})


@contextlib.asynccontextmanager
async def replicas(api: KubeApi, folder: Path, clock: Clock, *names: str) -> AsyncIterator[list[Replica]]:
    async with kube_client(api, folder, request_seconds=1, connect_seconds=1) as client:
        found = [Replica(client, name, clock) for name in names]
        try:
            yield found
        finally:
            for replica in found:
                await replica.stop()


def holder(api: KubeApi) -> str:
    return str(api.get("leases", "leader")["spec"]["holderIdentity"])


async def test_the_first_one_leads_and_renews(tmp_path: Path) -> None:
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a", "b") as (a, b):
        assert await a.round()
        assert not await b.round()
        assert holder(api) == "a"
        for _ in range(5):
            clock.now += 8
            assert await a.round()
            assert not await b.round()


async def test_one_that_goes_away_is_followed_after_its_time(tmp_path: Path) -> None:
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a", "b") as (a, b):
        assert await a.round()
        assert not await b.round()
        clock.now += 11
        assert not a.election.is_leader  # by its own clock, before anybody else takes over
        assert not await b.round()
        clock.now += 5
        assert await b.round()
        assert holder(api) == "b"
        assert api.get("leases", "leader")["spec"]["leaseTransitions"] == 1
        assert not await a.round()


async def test_a_holder_keeps_it_for_as_long_as_the_lease_says(tmp_path: Path) -> None:
    """Whatever its clock says: its times may be of a year ago or to come."""
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a") as (a,):
        spec = {"holderIdentity": "z", "leaseDurationSeconds": 60, "renewTime": "2001-01-01T00:00:00.000000Z"}
        api.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "leader", "namespace": "default"},
                "spec": spec,
            }
        )
        assert not await a.round()
        clock.now += 40
        assert not await a.round()
        api.update({**api.get("leases", "leader"), "spec": {**spec, "leaseDurationSeconds": 3, "renewTime": None}})
        assert not await a.round()
        clock.now += 4
        assert await a.round()
        assert holder(api) == "a"


async def test_a_renewal_counts_from_when_it_was_asked_for(tmp_path: Path) -> None:
    """Its answer may be late, and others wait from when the server had it."""
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a") as (a,):
        assert await a.round()
        api.freeze()
        later = asyncio.create_task(a.round())
        for _ in range(5):  # it has looked at the clock, and asks
            await asyncio.sleep(0)
        clock.now += 12
        api.thaw()
        assert not await later


async def test_one_that_releases_is_followed_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a", "b") as (a, b):
        assert await a.round()
        assert not await b.round()
        await a.stop()
        await a.election.release()
        assert not a.election.is_leader
        assert await b.round()


async def test_of_two_that_take_it_at_once_one_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a", "b", "c") as (a, b, c):
        assert await a.round()
        await asyncio.gather(b.round(), c.round())
        clock.now += 16
        leaders = await asyncio.gather(b.round(), c.round())
        assert sorted(leaders) == [False, True]


async def test_an_api_server_that_is_away_ends_the_leadership_in_time(tmp_path: Path) -> None:
    clock = Clock()
    async with KubeApi() as api, replicas(api, tmp_path, clock, "a") as (a,):
        assert await a.round()
        api.refuse()
        api.restart()
        clock.now += 5
        assert await a.round()  # it may still renew
        clock.now += 6
        assert not await a.round()
        await a.election.release()
        await api.listen()
        assert await a.round()


async def test_without_permission_nobody_leads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with KubeApi() as api, replicas(api, tmp_path, Clock(), "a") as (a,):
        api.denied.add(("get", "leases", None))
        assert not await a.round()
        assert "needs get, create and update of leases" in caplog.text
