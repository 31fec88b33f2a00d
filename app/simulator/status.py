"""What does the server say of itself, beside its models and metrics?"""

from app.simulator.call import Call
from app.simulator.engine import Engine
from app.simulator.settings import VERSION


class Status:
    """/health, /ping, /version and /load."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    async def health(self, call: Call) -> None:
        await call.respond(b"", content_type=None)

    async def version(self, call: Call) -> None:
        await call.respond(b'{"version":"%b"}' % VERSION.encode())

    async def load(self, call: Call) -> None:
        """As with --enable-server-load-tracking; without that flag vLLM always says 0."""
        await call.respond(b'{"server_load":%d}' % (self._engine.running + self._engine.waiting))
