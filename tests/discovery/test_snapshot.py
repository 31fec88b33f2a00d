"""Listener selection by host, and the store that swaps snapshots."""

from __future__ import annotations

import asyncio

from discovery.routing_table import RoutingTable
from discovery.snapshot import Listener, Routing, Snapshot, SnapshotStore


def test_the_most_specific_listener_is_selected() -> None:
    hostnames = (None, "*.com", "*.a.com", "b.a.com")
    routing = Routing(
        listeners=tuple(
            Listener(name=str(hostname), hostname=hostname, port=80, table=RoutingTable()) for hostname in hostnames
        )
    )
    chosen = [routing.select_listener(host) for host in ("b.a.com", "c.a.com", "b.com", "b.org")]
    assert [listener.name if listener else None for listener in chosen] == ["b.a.com", "*.a.com", "*.com", "None"]
    assert routing.select_listener("b.a.com", port=81) is None
    assert Routing().select_listener("a.com") is None


async def _publish() -> None:
    store = SnapshotStore()
    told: list[Snapshot] = []
    store.subscribe(told.append)
    assert not store.is_ready
    waiting = asyncio.ensure_future(store.wait_ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    published = store.publish(Routing(), {})
    assert (await waiting) is published is store.current
    assert store.is_ready
    assert store.publish(Routing(), {}).version == 2
    assert [snapshot.version for snapshot in told] == [1, 2]


def test_waiters_and_subscribers_learn_of_a_published_snapshot() -> None:
    asyncio.run(_publish())
