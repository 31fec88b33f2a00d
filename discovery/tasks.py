"""How does a task end with its owner? Cancelled, and waited for, so that nothing of it runs on behind a `close`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks that there are and wait for them. Raises what one has failed with before."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    for task in running:
        with contextlib.suppress(asyncio.CancelledError):
            await task
