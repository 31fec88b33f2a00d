"""How does a request learn that its client has left?"""

import asyncio
from types import TracebackType
from typing import Self, cast

from starlette.types import Receive

from app.simulator.call import ClientLeftError


class ClientWatch:
    """`async with ClientWatch(receive):` is left with ClientLeftError as soon as the client disconnects.

    A half-close counts as leaving: uvicorn closes the connection then. The request body must have been read.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._client_has_left = False

    async def __aenter__(self) -> Self:
        self._watched = cast("asyncio.Task[object]", asyncio.current_task())
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client_has_left:
            # The cancellation is ours unless somebody else asked for one too.
            if self._watched.uncancel() == 0 and (kind is None or issubclass(kind, asyncio.CancelledError)):
                raise ClientLeftError
            return
        self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_has_left = True
        self._watched.cancel()
