"""Which upstreams are there? Endpoints as this process experiences them; they outlive snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from discovery.snapshot import BackendRef, Endpoint, Snapshot
from middleware.upstream.transport import UpstreamTransport


class Upstream:
    """One endpoint as we experience it: what is in flight there and the connections that are open to it."""

    __slots__ = ("id", "in_flight", "label", "transport")

    def __init__(self, *, endpoint: Endpoint, transport: UpstreamTransport) -> None:
        self.id = endpoint.id
        self.label = f"{endpoint.address}:{endpoint.port}"
        self.transport = transport
        self.in_flight = 0


class Candidate(NamedTuple):
    """An endpoint that may be picked now, with our experience of it."""

    endpoint: Endpoint
    upstream: Upstream


class Pick(NamedTuple):
    """Where the next attempt goes, and the backendRef that says what changes in the request on the way."""

    backend_ref: BackendRef
    endpoint: Endpoint
    upstream: Upstream


class UpstreamRegistry:
    """Keeps one Upstream per endpoint id, made at first sight and dropped when no snapshot names it and nothing runs
    there.

    Single-threaded: used from the event loop only.
    """

    def __init__(self, *, make_transport: Callable[[Endpoint], UpstreamTransport]) -> None:
        self._make_transport = make_transport
        self._upstreams: dict[str, Upstream] = {}
        self._leaving: dict[str, Upstream] = {}  # no longer named, still with requests in flight
        self._candidates: dict[str, tuple[tuple[Endpoint, ...], tuple[Candidate, ...]]] = {}

    def __iter__(self) -> Iterator[Upstream]:
        yield from self._upstreams.values()
        yield from self._leaving.values()

    def candidates(self, backend_id: str, endpoints: tuple[Endpoint, ...]) -> tuple[Candidate, ...]:
        """The backend's endpoints with their upstreams. Cached for as long as the membership's tuple is the same
        object."""
        cached = self._candidates.get(backend_id)
        if cached is not None and cached[0] is endpoints:
            return cached[1]
        candidates = tuple(Candidate(endpoint, self._upstream(endpoint)) for endpoint in endpoints)
        self._candidates[backend_id] = (endpoints, candidates)
        return candidates

    def _upstream(self, endpoint: Endpoint) -> Upstream:
        upstream = self._upstreams.get(endpoint.id)
        if upstream is None:
            upstream = self._leaving.pop(endpoint.id, None)
            if upstream is None:
                upstream = Upstream(endpoint=endpoint, transport=self._make_transport(endpoint))
            self._upstreams[endpoint.id] = upstream
        return upstream

    def follow(self, snapshot: Snapshot) -> None:
        """Forget what this snapshot no longer names. Running requests keep their upstream until they end."""
        named = {endpoint.id for endpoints in snapshot.membership.values() for endpoint in endpoints}
        for backend_id in [known for known in self._candidates if known not in snapshot.membership]:
            del self._candidates[backend_id]
        for endpoint_id in [known for known in self._upstreams if known not in named]:
            upstream = self._upstreams.pop(endpoint_id)
            upstream.transport.close_idle()
            self._leaving[endpoint_id] = upstream
        for endpoint_id in [known for known, upstream in self._leaving.items() if upstream.in_flight == 0]:
            self._leaving.pop(endpoint_id).transport.close()

    def close(self) -> None:
        """Close every idle connection; connections in use close when their exchange ends."""
        for upstream in self:
            upstream.transport.close()
