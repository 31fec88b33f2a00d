"""Does a client stay on its arm, and do the weights hold over clients? Gateway API sessionPersistence, real sockets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.app.test_fallback import Server, backend
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.raw_upstream import RawUpstream

pytestmark = pytest.mark.anyio


def manifests(stable: int, canary: int, ports: tuple[int, int], session: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm}}
spec:
  rules:
  - sessionPersistence: {session}
    backendRefs:
    - {{group: gateway.envoyproxy.io, kind: Backend, name: stable, weight: {stable}}}
    - {{group: gateway.envoyproxy.io, kind: Backend, name: canary, weight: {canary}}}
---
{backend("stable", ports[0])}
{backend("canary", ports[1])}
"""


async def arm_of(gateway: RunningGateway, client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> str:
    count = len(gateway.finished.all)
    answer = await client.post(f"{gateway.url}/v1/completions", json={"model": "qwen"}, headers=headers)
    assert answer.status_code == 200
    exchange = await gateway.finished.next(count + 1)
    return exchange.attempts[-1].pick.backend_ref.name


async def test_a_cookie_keeps_each_client_on_its_arm_and_the_weights_hold_over_clients(tmp_path: Path) -> None:
    async with RawUpstream(Server()) as one, RawUpstream(Server()) as other:
        text = manifests(3, 1, (one.port, other.port), "{type: Cookie, cookie: {name: arm}}")
        async with running_gateway(text, folder=tmp_path) as gateway:
            arms: Counter[str] = Counter()
            async with httpx.AsyncClient() as client:
                for _ in range(200):
                    client.cookies.clear()  # somebody new
                    first = await arm_of(gateway, client)
                    assert set(client.cookies) == {"arm"}
                    assert {await arm_of(gateway, client) for _ in range(3)} == {first}
                    arms[first] += 1
    assert 20 <= arms["default/canary"] <= 85  # 50 expected; five standard deviations and more


async def test_the_cookie_is_set_once_and_as_the_rule_says(tmp_path: Path) -> None:
    async with RawUpstream(Server()) as one, RawUpstream(Server()) as other:
        session = "{cookie: {name: arm, path: /v1, lifetimeType: Permanent}, absoluteTimeout: 1h}"
        text = manifests(1, 1, (one.port, other.port), session)
        async with running_gateway(text, folder=tmp_path) as gateway, httpx.AsyncClient() as client:
            answer = await client.post(f"{gateway.url}/v1/completions", json={"model": "qwen"})
            value, *attributes = answer.headers["set-cookie"].split("; ")
            assert value.startswith("arm=p1-")
            assert attributes == ["Path=/v1", "Max-Age=3600", "HttpOnly"]
            again = await client.post(f"{gateway.url}/v1/completions", json={"model": "qwen"})
            assert "set-cookie" not in again.headers


async def test_a_header_is_told_in_every_answer_and_a_clients_own_value_works_as_well(tmp_path: Path) -> None:
    async with RawUpstream(Server()) as one, RawUpstream(Server()) as other:
        text = manifests(1, 1, (one.port, other.port), "{type: Header, header: {name: X-Session-Token}}")
        async with running_gateway(text, folder=tmp_path) as gateway, httpx.AsyncClient() as client:
            for _ in range(8):
                answer = await client.post(f"{gateway.url}/v1/x", json={"model": "qwen"})
                token = {"x-session-token": answer.headers["x-session-token"]}
                arms = {await arm_of(gateway, client, headers=token) for _ in range(4)}
                assert len(arms) == 1
            users = [{"x-session-token": f"user-{number}"} for number in range(40)]
            first = [await arm_of(gateway, client, headers=user) for user in users]
            assert first == [await arm_of(gateway, client, headers=user) for user in users]
            assert 5 <= Counter(first)["default/canary"] <= 35


async def test_an_arm_that_is_rolled_back_to_weight_zero_loses_its_clients(tmp_path: Path) -> None:
    async with RawUpstream(Server()) as one, RawUpstream(Server()) as other:
        ports, session = (one.port, other.port), "{cookie: {name: arm}}"
        async with httpx.AsyncClient() as client:
            async with running_gateway(manifests(0, 1, ports, session), folder=tmp_path) as gateway:
                assert await arm_of(gateway, client) == "default/canary"
            async with running_gateway(manifests(1, 1, ports, session), folder=tmp_path) as gateway:
                assert {await arm_of(gateway, client) for _ in range(10)} == {"default/canary"}
            async with running_gateway(manifests(1, 0, ports, session), folder=tmp_path) as gateway:
                assert await arm_of(gateway, client) == "default/stable"
            async with running_gateway(manifests(1, 1, ports, session), folder=tmp_path) as gateway:
                assert {await arm_of(gateway, client) for _ in range(10)} == {"default/stable"}


async def test_while_its_arm_is_down_a_client_is_served_by_the_other_and_then_comes_back(tmp_path: Path) -> None:
    async with RawUpstream(Server()) as one, RawUpstream(Server()) as other:
        ports, session = (one.port, other.port), "{cookie: {name: arm}}"
        async with httpx.AsyncClient() as client:
            async with running_gateway(manifests(0, 1, ports, session), folder=tmp_path) as gateway:
                assert await arm_of(gateway, client) == "default/canary"
            await other.__aexit__(None, None, None)
            async with running_gateway(manifests(1, 1, ports, session), folder=tmp_path) as gateway:
                for _ in range(6):
                    assert await arm_of(gateway, client) == "default/stable"
                first_tries = [exchange.attempts[0].pick.backend_ref.name for exchange in gateway.finished.all]
                assert first_tries == ["default/canary"] * 5 + ["default/stable"]  # five failures eject it
            async with (
                RawUpstream(Server()) as again,
                running_gateway(manifests(1, 1, (one.port, again.port), session), folder=tmp_path) as gateway,
            ):
                assert {await arm_of(gateway, client) for _ in range(5)} == {"default/canary"}


async def test_two_ports_of_one_service_are_two_arms(tmp_path: Path) -> None:
    async with RawUpstream(Server()) as one, RawUpstream(Server()) as other:
        text = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm}}
spec:
  rules:
  - sessionPersistence: {{cookie: {{name: arm}}}}
    backendRefs: [{{name: llm, port: 8000}}, {{name: llm, port: 8001}}]
---
apiVersion: v1
kind: Service
metadata: {{name: llm}}
spec: {{ports: [{{name: stable, port: 8000}}, {{name: canary, port: 8001}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: llm-1, labels: {{kubernetes.io/service-name: llm}}}}
addressType: IPv4
ports: [{{name: stable, port: {one.port}}}, {{name: canary, port: {other.port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""
        async with running_gateway(text, folder=tmp_path) as gateway:
            first: list[int] = []
            for _ in range(12):
                async with httpx.AsyncClient() as client:
                    for _ in range(4):
                        await client.post(f"{gateway.url}/v1/completions", json={"model": "qwen"})
                ports = {e.attempts[-1].pick.endpoint.port for e in gateway.finished.all[-4:]}
                assert len(ports) == 1
                first += ports
    assert set(first) == {one.port, other.port}  # one time in 2,000 by chance not
