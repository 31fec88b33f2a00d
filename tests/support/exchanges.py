"""How does a pure test get an Exchange, a pick or an attempt? Made by hand, with only what the test says."""

from __future__ import annotations

from typing import Any

import httpx

from discovery.backend import Backend, Endpoint
from discovery.filters import NO_FILTERS, Filters
from discovery.snapshot import BackendRef, Rule
from middleware.exchange import Exchange
from middleware.headers import MODEL_HEADER, header_map, strip_client_headers
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Pick, Upstream
from middleware.upstream.transport import UpstreamTransport


def make_exchange(
    *,
    method: str = "POST",
    target: bytes = b"/v1/chat/completions",
    headers: list[tuple[bytes, bytes]] | None = None,
    host: bytes = b"gateway.example",
    **fields: Any,
) -> Exchange:
    """An Exchange as Telemetry makes it, with ``fields`` set by later stages."""
    path, _, query = target.partition(b"?")
    all_headers = [(b"host", host)] if headers is None else strip_client_headers(headers)
    by_name = header_map(all_headers)
    if "model" in fields:
        by_name[MODEL_HEADER] = fields["model"].encode()
    exchange = Exchange(
        request_id="id-1",
        method=method,
        target=target,
        raw_path=path,
        query=query,
        headers=all_headers,
        by_name=by_name,
        host=host,
        peer="192.0.2.7",
        scheme="http",
        started_at=0.0,
        started_unix=0.0,
    )
    exchange.path = path.decode("latin-1")
    exchange.host_name = host.decode().partition(":")[0]
    for name, value in fields.items():
        setattr(exchange, name, value)
    return exchange


def make_endpoint(address: str = "192.0.2.1", port: int = 8000, **fields: Any) -> Endpoint:
    """An endpoint whose identity is its address."""
    return Endpoint(
        id=f"{address}:{port}", address=address, port=port, url=httpx.URL(f"http://{address}:{port}/"), **fields
    )


def make_upstream(endpoint: Endpoint, *, in_flight: int = 0) -> Upstream:
    """An upstream to which nothing connects."""
    upstream = Upstream(endpoint=endpoint, transport=UpstreamTransport(address=endpoint.address, port=endpoint.port))
    upstream.in_flight = in_flight
    return upstream


def make_ref(name: str = "default/qwen", *, weight: int = 1, filters: Filters = NO_FILTERS) -> BackendRef:
    """A backendRef to a pool."""
    namespace, _, short = name.partition("/")
    backend = Backend(id=f"InferencePool/{name}", kind="InferencePool", namespace=namespace, name=short)
    return BackendRef(name=name, weight=weight, backend=backend, filters=filters)


def make_rule(*refs: BackendRef, **fields: Any) -> Rule:
    """A rule over these backendRefs."""
    return Rule(
        id="HTTPRoute/default/llm/0",
        route="default/llm",
        route_kind="HTTPRoute",
        name="0",
        backend_refs=refs,
        total_weight=sum(ref.weight for ref in refs),
        **fields,
    )


def make_pick(endpoint: Endpoint | None = None, ref: BackendRef | None = None) -> Pick:
    """A pick of one endpoint."""
    endpoint = endpoint or make_endpoint()
    return Pick(ref or make_ref(), endpoint, make_upstream(endpoint))


def make_attempt(pick: Pick, outcome: Outcome = Outcome.CONNECT_FAILED, *, status: int | None = None) -> Attempt:
    """An attempt that is over."""
    return Attempt(pick=pick, started_at=0.0, ended_at=1.0, outcome=outcome, status=status)
