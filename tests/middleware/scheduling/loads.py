"""How does a pure test say how busy an endpoint is?"""

from __future__ import annotations

from discovery.model_servers.server_load import Adapters, ServerLoad
from middleware.scheduling.load import Load


def load(
    *,
    queue: int = 0,
    running: int = 0,
    kv: float = 0.0,
    adapters: Adapters | None = None,
    in_flight: int = 0,
    at: float = 0.0,
    interval: float = 0.0,
) -> Load:
    """An endpoint whose metrics were read at ``at`` and said this, with so many of our requests among them."""
    made = Load()
    for _ in range(in_flight):
        made.begin()
    reading = ServerLoad(waiting=queue, running=running, kv_usage=kv, adapters=adapters)
    made.read(reading, mark=made.mark(), at=at, interval_seconds=interval)
    return made


def adapters(running: str = "", waiting: str = "", limit: int = 0) -> Adapters:
    """Adapters by their names, with spaces between them."""
    return Adapters(frozenset(running.split()), frozenset(waiting.split()), limit)
