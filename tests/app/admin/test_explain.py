"""Does explain say what serving does? Offline, on the admin port, and beside real requests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.admin.explain import Question, explain
from app.admin.explain_text import explain_as_text
from app.main import make_transport
from discovery.load import load
from discovery.snapshot import Snapshot
from middleware.rate_limits import RateLimiter
from middleware.scheduling.scheduler import Scheduler
from middleware.shedding import Shedder
from middleware.upstream.registry import UpstreamRegistry
from tests.support.gateway import route_to, running_gateway
from tests.support.processes import run_command
from tests.support.raw_client import ask
from tests.support.raw_upstream import Conversation, RawUpstream

MANIFESTS = (
    route_to(("192.0.2.1", 8000), ("192.0.2.2", 8000))
    + route_to(("192.0.2.3", 8000), model="deepseek-r1", rule="timeouts: {request: 30s}")
    + """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary}
spec:
  hostnames: [canary.example]
  rules:
  - backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: backend-qwen, weight: 9}
    - {group: gateway.envoyproxy.io, kind: Backend, name: missing, weight: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: moved}
spec:
  rules:
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example, port: 80}}]
"""
)


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    file = tmp_path / "routes.yaml"
    file.write_text(MANIFESTS)
    compiled = load([file]).compile()
    return Snapshot(version=1, routing=compiled.routing, membership=compiled.membership)


def explained(snapshot: Snapshot, **question: Any) -> dict[str, Any]:
    registry = UpstreamRegistry(make_transport=make_transport)
    scheduler = Scheduler()
    shedder = Shedder(scheduler=scheduler, registry=registry)
    asked = explain(
        Question(**question),
        snapshot=snapshot,
        registry=registry,
        limiter=RateLimiter(),
        shedder=shedder,
        scheduler=scheduler,
    )
    return asyncio.run(asked)


def test_the_rule_its_arms_and_why_the_others_lost(snapshot: Snapshot) -> None:
    answer = explained(snapshot, model="qwen")
    assert answer["rule"]["id"] == "HTTPRoute/default/route-qwen/0"
    (arm,) = answer["arms"]
    assert (arm["backend"], arm["share"]) == ("default/backend-qwen", 1.0)
    assert [endpoint["address"] for endpoint in arm["endpoints"]] == ["192.0.2.1", "192.0.2.2"]
    assert ["x-gateway-model-name", "qwen"] in arm["upstreamRequest"]["headers"]
    because = {
        other["match"]["rule"]: {loss["criterion"] for loss in other["because"]}
        for other in answer["routing"]["others"]
    }
    assert "model" in because["HTTPRoute/default/route-deepseek-r1/0"]
    assert "hostname" in because["HTTPRoute/default/canary/0"]
    assert "path" in because["HTTPRoute/default/moved/0"]


def test_shares_and_the_reason_of_an_invalid_arm(snapshot: Snapshot) -> None:
    answer = explained(snapshot, headers=(("Host", "canary.example"),), requests=1000)
    good, missing = answer["arms"]
    assert (good["share"], missing["share"]) == (0.9, 0.1)
    assert missing["answer"]["code"] == "invalid_backend_ref"
    assert 50 <= answer["draws"]["backends"]["answered 500 invalid_backend_ref"] <= 170
    assert sum(answer["draws"]["backends"].values()) == 1000


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param({"model": "nope"}, {"status": 404, "code": "model_not_found"}, id="unknown-model"),
        pytest.param({}, {"status": 400, "code": "missing_model"}, id="no-model"),
        pytest.param({"model": "a\nb"}, {"status": 400, "code": "invalid_model"}, id="no-name"),
        pytest.param({"model": "qwen", "path": "/a/.."}, {"status": 400, "code": "invalid_path"}, id="path"),
        pytest.param({"method": "GET", "path": "/v1/models"}, {"status": 200}, id="our-model-list"),
        pytest.param({"method": "GET", "path": "/old"}, {"status": 302}, id="redirect"),
    ],
)
def test_what_the_gateway_answers_itself(
    snapshot: Snapshot, question: dict[str, Any], expected: dict[str, Any]
) -> None:
    answer = explained(snapshot, **question)
    assert answer["answer"].items() >= expected.items()
    assert str(expected["status"]) in explain_as_text(answer)


def test_credentials_are_masked(snapshot: Snapshot) -> None:
    answer = explained(snapshot, model="qwen", headers=(("Authorization", "Bearer planted"),))
    assert "planted" not in json.dumps(answer)
    assert "planted" not in explain_as_text(answer)


@pytest.mark.anyio
async def test_the_admin_port_explains_with_what_it_knows_of_the_endpoints(tmp_path: Path) -> None:
    async def fails(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer(b"{}", status="500 Internal Server Error")

    async def works(peer: Conversation) -> None:
        while True:
            await peer.request()
            await peer.answer()

    body = b'{"model":"qwen"}'
    post = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with (
        RawUpstream(fails) as bad,
        RawUpstream(works) as good,
        running_gateway(route_to(("127.0.0.1", bad.port), ("127.0.0.1", good.port)), folder=tmp_path) as gateway,
        httpx.AsyncClient(base_url=gateway.admin_url) as admin,
    ):
        for _ in range(60):
            await ask(gateway.port, post)
        answer = (await admin.post("/explain", json={"model": "qwen", "requests": 50})).json()
        states = {endpoint["port"]: endpoint["breaker"] for endpoint in answer["arms"][0]["endpoints"]}
        assert states == {bad.port: "open", good.port: "closed"}
        assert answer["draws"]["endpoints"] == {f"127.0.0.1:{good.port}": 50}
        refused_bodies: tuple[object, ...] = ({"model": 7}, {"modle": "qwen"}, {"requests": -1}, [])
        for wrong in refused_bodies:
            refused = await admin.post("/explain", json=wrong)
            assert refused.status_code == 400
            assert "error" in refused.json()
        assert (await admin.get("/explain")).status_code == 405


@pytest.mark.anyio
async def test_the_command_prints_text_or_json(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(MANIFESTS)
    code, out, _ = await run_command("explain", str(file), "--model", "qwen")
    assert code == 0
    assert "rule: HTTPRoute/default/route-qwen/0" in out
    assert "not taken:" in out
    code, out, _ = await run_command(
        "explain", str(file), "--model", "qwen", "--header", "Host: canary.example", "--requests", "10", "--json"
    )
    assert json.loads(out)["rule"]["id"] == "HTTPRoute/default/canary/0"
    code, _, err = await run_command("explain", str(file), "--header", "nonsense")
    assert (code, "NAME:VALUE" in err) == (2, True)


def test_the_limits_that_hold_for_a_request_and_what_is_left_of_them(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        MANIFESTS
        + """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: traffic}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: route-qwen}]
  rateLimit:
    local:
      rules:
      - {limit: {requests: 100, unit: Minute}}
      - clientSelectors: [{headers: [{name: x-api-key, value: sk-1}, {name: x-user, type: Distinct}]}]
        limit: {requests: 5, unit: Second}
      - clientSelectors: [{sourceCIDR: {type: Distinct, value: 10.0.0.0/8}, path: {value: /v1}}]
        limit: {requests: 5, unit: Second}
"""
    )
    compiled = load([file]).compile()
    snapshot = Snapshot(version=1, routing=compiled.routing, membership=compiled.membership)
    lines = explain_as_text(explained(snapshot, model="qwen")).splitlines()
    assert "rate limit: 100 per minute, all that no other limit holds for: 100 left" in lines
    answer = explained(snapshot, model="qwen", headers=(("x-api-key", "sk-1"), ("x-user", "ann")))
    lines = explain_as_text(answer).splitlines()
    assert (
        "rate limit: 5 per second, clients of header x-api-key = *** and each value of header x-user: 5 left" in lines
    )
    assert "sk-1" not in str(answer["rule"])
    limits = answer["rule"]["policy"]["rateLimits"]
    assert limits[2]["clients"] == "path below /v1 and each address in 10.0.0.0/8"
