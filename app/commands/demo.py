"""What does `pointsman demo` take, and how does it end with all that it started?"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from app.commands.process import fail, run, say
from app.commands.serve import serve_until_stopped
from app.commands.values import PORT

if TYPE_CHECKING:
    from app.settings import Settings


@click.command()
@click.option("--host", envvar="POINTSMAN_HOST", show_envvar=True, default="127.0.0.1", help="Where clients connect.")
@click.option("--port", envvar="POINTSMAN_PORT", show_envvar=True, default=8080, type=PORT, help="The data port.")
@click.option(
    "--admin-port", envvar="POINTSMAN_ADMIN_PORT", show_envvar=True, default=9090, type=PORT, help="The admin port."
)
def demo(host: str, port: int, admin_port: int) -> None:
    """Show the gateway at work over simulated pods."""
    from app.demo import DemoError, demo_routes
    from app.settings import Settings

    try:
        routes = demo_routes()
    except DemoError as error:
        raise fail(str(error)) from None
    settings = Settings(
        paths=(routes,), host=host, port=port, admin_port=admin_port, drain_grace_seconds=0.0, drain_timeout_seconds=5.0
    )
    run(lambda: _demo(settings))


async def _demo(settings: Settings) -> None:
    from app.demo import WHAT_TO_TRY, DemoError, simulated_pods

    # From the first moment on a signal ends the demo with all its processes; `serve` takes the signals over.
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with simulated_pods():
            say(
                WHAT_TO_TRY.format(
                    routes=settings.paths[0],
                    url=f"http://{settings.host}:{settings.port}",
                    admin=f"http://{settings.admin_host}:{settings.admin_port}",
                )
            )
            await serve_until_stopped(settings)
    except DemoError as error:
        raise fail(str(error)) from None
    except asyncio.CancelledError:
        raise click.exceptions.Exit(0) from None
