"""Which requests came last? For tests that ask what a gateway really sent; asking for metrics is not among them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from app.simulator.call import Headers

MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """As it came: `target` with its query, header names in lower case as uvicorn gives them, in the order received.

    The body is empty where the server answered without reading it (unknown path, wrong method).
    """

    method: str
    target: bytes
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class RequestLog:
    """The last requests, oldest first: at most `limit`, and at most 16 MiB of bodies but always the newest."""

    def __init__(self, *, limit: int) -> None:
        self._requests: deque[ReceivedRequest] = deque()
        self._limit = limit
        self._body_bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[ReceivedRequest]:
        return iter(self._requests)

    def __getitem__(self, index: int) -> ReceivedRequest:
        return self._requests[index]

    @property
    def is_on(self) -> bool:
        return self._limit > 0

    def add(self, request: ReceivedRequest) -> None:
        self._requests.append(request)
        self._body_bytes += len(request.body)
        while len(self._requests) > self._limit or (self._body_bytes > MAX_BODY_BYTES and len(self._requests) > 1):
            self._body_bytes -= len(self._requests.popleft().body)

    def clear(self) -> None:
        self._requests.clear()
        self._body_bytes = 0
