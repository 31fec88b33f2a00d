"""What do signals do to a gateway? SIGTERM and SIGINT drain it, a second one cuts, SIGHUP reads the files again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from app.lifespan import Gateway

logger = logging.getLogger(__name__)


async def run_until_signal(gateway: Gateway) -> None:
    """Serve until SIGTERM or SIGINT, then drain and close; a second signal cuts what is left.

    ``gateway.start`` comes first. Raises OSError when the data port cannot be opened after all.
    """
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    loop.add_signal_handler(signal.SIGHUP, gateway.reread)
    try:
        await _wait(signals, gateway)
        draining = asyncio.create_task(gateway.drain())
        second = asyncio.create_task(signals.get())
        await asyncio.wait({draining, second}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            logger.warning("a second signal: cutting %d requests", gateway.requests_running)
            draining.cancel()
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining
        await gateway.close()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _wait(signals: asyncio.Queue[None], gateway: Gateway) -> None:
    """Until the first signal, or until the data port cannot be opened."""
    signalled = asyncio.create_task(signals.get())
    opening = asyncio.create_task(gateway.wait_serving())
    try:
        await asyncio.wait({signalled, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            await opening
        await signalled
    finally:
        signalled.cancel()
        opening.cancel()
