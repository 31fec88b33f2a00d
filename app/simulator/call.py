"""What does one request bring, and how is it answered with a whole body?"""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import Receive, Send

Headers = list[tuple[bytes, bytes]]

# vLLM's CORS middleware puts this on every answer. Date and Server come from uvicorn.
VARY = (b"vary", b"Origin")


class ClientLeftError(Exception):
    """The connection is gone before the request was read or answered."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One HTTP request, its body read. `path` is decoded, without the query."""

    path: str
    headers: Headers
    body: bytes
    receive: Receive
    send: Send

    def header(self, name: bytes) -> bytes | None:
        """The first of these headers, as Starlette has it; the name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def respond(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes | None = b"application/json",
        before: Iterable[tuple[bytes, bytes]] = (),
        after: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a whole answer, its headers in the order of the recordings: `before`, length, `after`, type, vary."""
        headers = [*before, (b"content-length", b"%d" % len(body)), *after]
        if content_type is not None:
            headers.append((b"content-type", content_type))
        headers.append(VARY)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    """The whole request body. Raises ClientLeftError."""
    message = await receive()
    if message["type"] == "http.request" and not message["more_body"]:
        whole: bytes = message["body"]
        return whole
    pieces: list[bytes] = []
    while message["type"] == "http.request":
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)
        message = await receive()
    raise ClientLeftError
