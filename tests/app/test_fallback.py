"""Does a request find its way when a priority fails? Backend `fallback`, AIGatewayRoute `priority`, empty pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.app.test_policies import policy
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.raw_client import ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

BODY = b'{"model":"qwen"}'
POST = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

# The acceptance test of Envoy Gateway's failover task, with numbers that let one failure eject.
EJECT_AT_ONCE = "healthCheck: {passive: {baseEjectionTime: 10s, interval: 2s, consecutive5XxErrors: 1}}"


def backend(name: str, port: int, *, is_fallback: bool = False) -> str:
    return f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {name}}}
spec: {{fallback: {str(is_fallback).lower()}, endpoints: [{{ip: {{address: 127.0.0.1, port: {port}}}}}]}}
---
"""


def route(*refs: str) -> str:
    listed = "".join(f"\n    - {ref}" for ref in refs)
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-qwen}}
spec:
  rules:
  - backendRefs:{listed}
---
"""


def to(name: str, weight: int = 1) -> str:
    return f"{{group: gateway.envoyproxy.io, kind: Backend, name: {name}, weight: {weight}}}"


class Server:
    """An upstream with one status for everybody, that counts its requests."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.requests = 0

    async def __call__(self, peer: Conversation) -> None:
        while True:
            await peer.request()
            self.requests += 1
            await peer.answer(status=self.status)


@asynccontextmanager
async def active_and_passive(
    folder: Path, active: Server, passive: Server, *, spec: str
) -> AsyncIterator[RunningGateway]:
    async with RawUpstream(active) as first, RawUpstream(passive) as second:
        manifests = (
            route(to("active"), to("passive"))
            + backend("active", first.port)
            + backend("passive", second.port, is_fallback=True)
            + policy(spec)
        )
        async with running_gateway(manifests, folder=folder) as gateway:
            yield gateway


async def test_while_the_first_priority_works_the_fallback_gets_nothing(tmp_path: Path) -> None:
    active, passive = Server(), Server()
    async with active_and_passive(tmp_path, active, passive, spec=EJECT_AT_ONCE) as gateway:
        for _ in range(20):
            assert (await ask(gateway.port, POST)).status == 200
    assert (active.requests, passive.requests) == (20, 0)


async def test_an_ejected_priority_is_not_tried_and_its_traffic_goes_to_the_next(tmp_path: Path) -> None:
    active, passive = Server("500 Internal Server Error"), Server()
    async with active_and_passive(tmp_path, active, passive, spec=EJECT_AT_ONCE) as gateway:
        statuses = [(await ask(gateway.port, POST)).status for _ in range(10)]
    assert statuses == [500] + [200] * 9  # a 500 is not retried by default, the next request knows better
    assert (active.requests, passive.requests) == (1, 9)


async def test_one_request_fails_over_within_its_own_retries(tmp_path: Path) -> None:
    active, passive = Server("500 Internal Server Error"), Server()
    spec = "retry: {numAttemptsPerPriority: 1, numRetries: 5, retryOn: {triggers: [5xx]}}"
    async with active_and_passive(tmp_path, active, passive, spec=spec) as gateway:
        assert (await ask(gateway.port, POST)).status == 200
    assert (active.requests, passive.requests) == (1, 1)


async def test_a_first_priority_that_cannot_be_reached_is_failed_over_without_any_policy(tmp_path: Path) -> None:
    passive = Server()
    async with RawUpstream(Server()) as gone:
        pass
    async with RawUpstream(passive) as second:
        manifests = route(to("active"), to("passive")) + backend("active", gone.port)
        manifests += backend("passive", second.port, is_fallback=True)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            answers = Counter([(await ask(gateway.port, POST)).status for _ in range(20)])
    assert answers == {200: 20}
    assert passive.requests == 20


async def test_the_attempts_per_priority_are_counted_and_then_it_starts_over(tmp_path: Path) -> None:
    active, passive = Server("503 Service Unavailable"), Server("503 Service Unavailable")
    spec = "retry: {numAttemptsPerPriority: 2, numRetries: 5, perRetry: {backOff: {baseInterval: 1ms}}}"
    async with active_and_passive(tmp_path, active, passive, spec=spec) as gateway:
        assert (await ask(gateway.port, POST)).status == 503
        exchange = await gateway.finished.next()
    tried = [attempt.pick.backend_ref.name for attempt in exchange.attempts]
    assert tried[0] == "default/active"
    assert Counter(tried[:4]) == {"default/active": 2, "default/passive": 2}
    assert len(tried) == 6


async def test_a_pool_without_endpoints_falls_back_to_the_other_backend_refs(tmp_path: Path) -> None:
    server = Server()
    async with RawUpstream(server) as upstream:
        manifests = f"""
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: own}}
spec:
  selector: {{matchLabels: {{app: own}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: epp, port: {{number: 9002}}}}
---
{route("{group: inference.networking.k8s.io, kind: InferencePool, name: own}", to("passive"))}
{backend("passive", upstream.port, is_fallback=True)}
"""
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            assert [(await ask(gateway.port, POST)).status for _ in range(5)] == [200] * 5


def ai_route(ports: tuple[int, int], *, refs: str) -> str:
    """An AIGatewayRoute to two AIServiceBackends; the first one's Backend says that it is a fallback."""
    manifests = "".join(
        f"""
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {{name: {name}}}
spec: {{schema: {{name: OpenAI}}, backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}}}
---
"""
        for name in ("one", "other")
    )
    manifests += backend("one", ports[0], is_fallback=True) + backend("other", ports[1])
    return f"""{manifests}
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: route-qwen}}
spec:
  rules:
  - backendRefs: [{refs}]
"""


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        pytest.param("{name: one, priority: 0}, {name: other, priority: 2}", (10, 0), id="its-own-priority-wins"),
        pytest.param("{name: one}, {name: other}", (0, 10), id="without-one-the-backends-fallback-says"),
    ],
)
async def test_an_ai_gateway_routes_priorities(tmp_path: Path, refs: str, expected: tuple[int, int]) -> None:
    first, second = Server(), Server()
    async with RawUpstream(first) as one, RawUpstream(second) as other:
        manifests = ai_route((one.port, other.port), refs=refs)
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            for _ in range(10):
                assert (await ask(gateway.port, POST)).status == 200
    assert (first.requests, second.requests) == expected
