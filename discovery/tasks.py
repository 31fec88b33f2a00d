"""How does a task end with its owner? Cancelled, and waited for, so that nothing of it runs on behind a `close`."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks that there are and wait for all of them. Raises what one has failed with before."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in running:
        if not task.cancelled():
            task.result()
