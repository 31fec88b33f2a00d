"""Where do requests come in? Listening sockets with an ASGI app behind them, and a shutdown in steps.

This file and the two it builds on, http_protocol.py and http_cycle.py, are all that knows uvicorn.
"""

from __future__ import annotations

import asyncio
import os

from starlette.types import ASGIApp
from uvicorn.config import Config

from app.http_protocol import (
    BODY_SILENCE_SECONDS,
    HEAD_LIMIT_SECONDS,
    DrainingState,
    GatewayProtocol,
    RefusalReporter,
)
from middleware.exchange import Exchange

KEEP_ALIVE_SECONDS = 620  # above every load balancer's, so that it is never we who close first


class HttpServer:
    """An ASGI app on listening sockets, with a shutdown in steps. uvicorn's own Server and its signals are not used."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        report_refusal: RefusalReporter = lambda error, peer: os.urandom(16).hex(),
        head_limit_seconds: float = HEAD_LIMIT_SECONDS,
        body_limit_seconds: float = BODY_SILENCE_SECONDS,
    ) -> None:
        self._config = Config(
            app,
            http=GatewayProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._config.load()
        self._head_limit_seconds = head_limit_seconds
        self._body_limit_seconds = body_limit_seconds
        self._state = DrainingState(report_refusal)
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int) -> int:
        """Start to take connections; port 0 means any free one. Returns the port. Raises OSError."""
        loop = asyncio.get_running_loop()

        def protocol() -> GatewayProtocol:
            return GatewayProtocol(
                self._config,
                self._state,
                {},
                loop,
                head_limit_seconds=self._head_limit_seconds,
                body_limit_seconds=self._body_limit_seconds,
            )

        listener = await loop.create_server(protocol, host, port, backlog=2048, reuse_address=True)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._state.tasks)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    def start_draining(self) -> None:
        """From now on every answer is its connection's last; requests are still taken."""
        self._state.is_draining = True

    def stop_listening(self) -> None:
        """Take no more connections, close the idle ones, and let the others end with their answers."""
        self._state.is_draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def wait_drained(self) -> None:
        """Wait until every connection is over: its request answered, and its answer taken by the client."""
        await self._until_no_connections()
        while self._state.tasks:
            await asyncio.wait(set(self._state.tasks))

    async def _until_no_connections(self) -> None:
        while self._state.connections:
            self._state.changed.clear()
            await self._state.changed.wait()

    async def cut(self, *, flush_seconds: float = 1.0) -> None:
        """End what is still running as broken answers, and then every connection: those whose clients do not take what
        was written in ``flush_seconds`` by force."""
        for connection in list(self._state.connections):
            if isinstance(connection, GatewayProtocol) and connection.current is not None:
                exchange = connection.current.scope.get("pointsman.exchange")
                if isinstance(exchange, Exchange):
                    exchange.is_cut_by_shutdown = True
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
            task.add_done_callback(self._state.tasks.discard)  # one that has not begun will never do it itself
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for connection in list(self._state.connections):
            if not connection.transport.is_closing():
                if isinstance(connection, GatewayProtocol):
                    connection.flush()
                connection.transport.close()
        try:
            async with asyncio.timeout(flush_seconds):
                await self._until_no_connections()
        except TimeoutError:
            for connection in list(self._state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Free every socket, cutting what runs."""
        self.stop_listening()
        await self.cut()
        for listener in self._listeners:
            await listener.wait_closed()
