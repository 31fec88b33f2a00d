"""How do we learn that a client left, under a server that does not cancel us? One task watches `receive()`.

Under our own server (app/server.py) the connection's end cancels the request's task directly and none of this runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from middleware.exchange import Exchange


class ClientLeftError(Exception):
    """The client's connection ended while its request was being read."""


@asynccontextmanager
async def watch_for_departure(receive: Receive, exchange: Exchange) -> AsyncIterator[None]:
    """Cancel the current task when ``receive()`` says http.disconnect, and mark the exchange first."""
    task = asyncio.current_task()
    assert task is not None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        exchange.client_left = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
