"""How does a simulated model server get onto a port and off it again? The one place here that knows uvicorn."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.simulator.application import SimulatorApplication
from app.simulator.engine import Engine
from app.simulator.gathered_writes import GatheringTransport
from app.simulator.request_log import RequestLog
from app.simulator.settings import SimulatorSettings

_DATE_SECONDS = 1.0  # how often uvicorn's date header is made anew
_BACKLOG = 2048


class SimulatedModelServer:
    """`async with SimulatedModelServer(settings) as server:` is one pod in this event loop, at `server.url`.

    Port 0 takes a free one. Raises OSError when the port is taken. Leaving the block cuts every connection at once;
    when it returns, no task and no socket is left.
    """

    def __init__(self, settings: SimulatorSettings, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.engine = Engine(settings)
        self.requests = RequestLog(limit=settings.recorded_requests)
        self._application = SimulatorApplication(settings=settings, engine=self.engine, requests=self.requests)

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._application,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        is_up = asyncio.create_task(self._server.is_up.wait())
        await asyncio.wait([self._serving, is_up], return_when=asyncio.FIRST_COMPLETED)
        is_up.cancel()
        if self._serving.done():
            listener.close()
            await self._serving
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop.set()
        await self._serving


async def serve(
    settings: SimulatorSettings, *, host: str, port: int, stop: asyncio.Event, ready: asyncio.Event | None = None
) -> None:
    """Serve until `stop` is set; `ready` is set once connections are taken. Raises OSError when the port is taken."""
    async with SimulatedModelServer(settings, host=host, port=port):
        if ready is not None:
            ready.set()
        await stop.wait()


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport, loop=self.loop))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers and without its patience."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()
        self.stop = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        while not self.stop.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(_DATE_SECONDS):
                    await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # Each request sees its connection go and ends by itself.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)
        for server in self.servers:
            await server.wait_closed()
