"""Does a request get through, and does everything else end as the contract says? The whole gateway over real
sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from discovery.rule_policy import PassiveHealth
from middleware.upstream.breaker import Health
from tests.support.gateway import RunningGateway, route_to, running_gateway
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream, unanswered_port

pytestmark = pytest.mark.anyio


def post(body: bytes = b'{"model":"qwen"}', *, path: bytes = b"/v1/chat/completions", headers: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: gateway.example\r\nContent-Type: application/json\r\n" % path
        + headers
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


def code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


async def ok(peer: Conversation) -> None:
    """Answers everything with 200."""
    while True:
        await peer.request()
        await peer.answer(b'{"ok":true}', headers="content-type: application/json\r\n")


async def test_a_request_reaches_the_pod_byte_for_byte_and_its_answer_comes_back_so(tmp_path: Path) -> None:
    received: list[bytes] = []
    body = b'{ "messages":[ ] ,"temperature":1.0e0, "model" : "qwen", "x":"\\u00e9"}\n'
    answer_body = b'{"model" : "qwen", "choices":[ ]}'

    async def script(peer: Conversation) -> None:
        received.append(await peer.request())
        await peer.answer(answer_body, headers="Content-Type: application/json\r\nX-Custom: a, b\r\n")
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
    ):
        answer = await ask(gateway.port, post(body, path=b"/v1/chat/%63ompletions?a=%20", headers=b"X-Mine: 1\r\n"))
    assert (answer.status, answer.body) == (200, answer_body)
    assert answer.headers["x-custom"] == "a, b"
    assert len(answer.headers["x-request-id"]) == 32
    head, _, sent = received[0].partition(b"\r\n\r\n")
    assert sent == body
    lines = head.decode().split("\r\n")
    assert lines[:2] == ["POST /v1/chat/%63ompletions?a=%20 HTTP/1.1", "host: gateway.example"]
    assert {"x-mine: 1", "x-gateway-model-name: qwen", f"content-length: {len(body)}"} <= set(lines)
    assert not any(line.startswith("x-ai-eg") for line in lines)


async def test_a_stream_is_relayed_event_by_event(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await peer.send(b"9\r\ndata: 1\n\n\r\n")
        await go_on.wait()
        await peer.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        assert (await client.head())[0] == 200
        assert await client.chunk() == b"data: 1\n\n"
        go_on.set()
        assert await client.chunk() == b"data: 2\n\n"
        assert await client.chunk() == b""


async def test_each_model_is_answered_by_its_own_pods(tmp_path: Path) -> None:
    async with (
        SimulatedModelServer(SimulatorSettings(models=("qwen",), name="qwen-0")) as qwen,
        SimulatedModelServer(SimulatorSettings(models=("deepseek-r1",), name="deepseek-0")) as deepseek,
    ):
        manifests = route_to(("127.0.0.1", qwen.port)) + route_to(("127.0.0.1", deepseek.port), model="deepseek-r1")
        async with (
            running_gateway(manifests, folder=tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as client,
        ):
            for model, pod in (("qwen", "qwen-0"), ("deepseek-r1", "deepseek-0")):
                body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200
                assert answer.json()["model"] == model
                assert answer.json()["system_fingerprint"].endswith(pod)


# -- reasons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        pytest.param(post(b'{"model":"nope"}'), 404, "model_not_found", id="unknown-model"),
        pytest.param(post(b"{}"), 400, "missing_model", id="post-without-model"),
        pytest.param(b"GET /v1/files HTTP/1.1\r\nHost: h\r\n\r\n", 404, "route_not_found", id="get-without-model"),
        pytest.param(post(b'{"model":'), 400, "invalid_body", id="broken-json"),
        pytest.param(post(b'{"model":7}'), 400, "invalid_model", id="model-is-a-number"),
        pytest.param(post(path=b"/v1/../x"), 400, "invalid_path", id="dot-segments"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400, "invalid_path", id="asterisk-form"),
        pytest.param(b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "invalid_path", id="connect"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n",
            413,
            "request_too_large",
            id="declared-too-large",
        ),
        pytest.param(post(), 503, "upstream_unavailable", id="nobody-listening"),
    ],
)
async def test_what_cannot_be_served_says_why(tmp_path: Path, request_bytes: bytes, status: int, reason: str) -> None:
    async with running_gateway(route_to(("127.0.0.1", unused_port())), folder=tmp_path) as gateway:
        answer = await ask(gateway.port, request_bytes)
        assert (answer.status, code(answer.body)) == (status, reason)
        assert "x-request-id" in answer.headers
        exchange = await gateway.finished.next()
        assert exchange.reason == reason
        metrics = await gateway.metrics()
        assert f'code="{status}"' in metrics
        assert f'reason="{reason}"' in metrics
        assert "pointsman_requests_in_flight 0.0" in metrics
        (record,) = [line for line in gateway.log_records() if line["message"] == "request"]
        assert (record["status"], record["reason"]) == (status, reason)


async def test_a_pool_without_ready_pods_is_503_no_endpoints_with_retry_after(tmp_path: Path) -> None:
    manifests = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec:
  rules:
  - backendRefs:
    - {group: inference.networking.k8s.io, kind: InferencePool, name: empty}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: empty}
spec:
  selector: {matchLabels: {app: none}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
"""
    async with running_gateway(manifests, folder=tmp_path) as gateway:
        answer = await ask(gateway.port, post())
        assert (answer.status, code(answer.body)) == (503, "no_endpoints")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await gateway.finished.next()).flag == "UH"


async def test_a_body_that_crosses_the_limit_is_413_at_that_byte(tmp_path: Path) -> None:
    limit = 50 * 1024 * 1024
    async with (
        running_gateway(route_to(("127.0.0.1", unused_port())), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _ in range(limit // 0x100000 + 1):
            await client.send(chunk)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (413, "request_too_large")
        assert answer.headers["connection"] == "close"
        assert gateway.gateway.memory.used_bytes == 0


async def test_bodies_over_the_memory_limit_together_are_refused_at_once(tmp_path: Path) -> None:
    from dataclasses import replace

    entered, release = asyncio.Event(), asyncio.Event()

    async def script(peer: Conversation) -> None:
        while True:
            await peer.request()
            entered.set()
            await release.wait()
            await peer.answer()

    padded = b'{"model":"qwen","x":"' + b"x" * 600 + b'"}'
    async with (
        RawUpstream(script) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)),
            folder=tmp_path,
            configure=lambda settings: replace(settings, max_body_memory_bytes=1000),
        ) as gateway,
        RawClient(gateway.port) as first,
    ):
        await first.send(post(padded))
        await entered.wait()
        answer = await ask(gateway.port, post(padded))
        assert (answer.status, code(answer.body)) == (503, "overloaded")
        release.set()
        assert (await first.answer()).status == 200
        assert gateway.gateway.memory.used_bytes == 0
        assert (await ask(gateway.port, post(padded))).status == 200


# -- retries --------------------------------------------------------------------------------------------------------


async def test_a_connect_failure_is_retried_on_another_endpoint(tmp_path: Path) -> None:
    async with (
        RawUpstream(ok) as upstream,
        running_gateway(
            route_to(("127.0.0.1", unused_port()), ("127.0.0.1", upstream.port)), folder=tmp_path
        ) as gateway,
    ):
        for _ in range(20):
            assert (await ask(gateway.port, post())).status == 200
        tries = {len(exchange.attempts) for exchange in gateway.finished.all}
        assert tries == {1, 2}


async def test_a_503_is_retried_elsewhere_and_the_last_answer_passes_unchanged(tmp_path: Path) -> None:
    seen: list[int] = []

    async def busy(peer: Conversation) -> None:
        while True:
            await peer.request()
            seen.append(peer.writer.get_extra_info("sockname")[1])
            await peer.answer(b'{"busy":1}', status="503 Busy", headers="x-busy: yes\r\n")

    async with (
        RawUpstream(busy) as one,
        RawUpstream(busy) as two,
        running_gateway(route_to(("127.0.0.1", one.port), ("127.0.0.1", two.port)), folder=tmp_path) as gateway,
    ):
        answer = await ask(gateway.port, post())
    assert (answer.status, answer.body, answer.headers["x-busy"]) == (503, b'{"busy":1}', "yes")
    assert len(seen) == 3
    assert set(seen[:2]) == {one.port, two.port}


async def test_the_keep_alive_race_is_tried_once_more_on_a_fresh_connection_and_is_no_retry(tmp_path: Path) -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer()
        if peer.number == 1:
            await peer.request()  # read, and closed without an answer
            return
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
    ):
        assert (await ask(gateway.port, post())).status == 200
        assert (await ask(gateway.port, post())).status == 200
        exchange = await gateway.finished.next(2)
        assert [attempt.outcome for attempt in exchange.attempts] == ["stale", "answered"]
        assert upstream.connections == 2


async def test_a_reset_after_the_request_was_read_does_not_travel_to_another_pod(tmp_path: Path) -> None:
    async def dies(peer: Conversation) -> None:
        await peer.request()
        peer.reset()

    async with (
        RawUpstream(dies) as one,
        RawUpstream(dies) as two,
        running_gateway(route_to(("127.0.0.1", one.port), ("127.0.0.1", two.port)), folder=tmp_path) as gateway,
    ):
        answer = await ask(gateway.port, post())
        assert (answer.status, code(answer.body)) == (503, "upstream_unavailable")
        exchange = await gateway.finished.next()
        assert exchange.flag == "UC"
        assert one.connections + two.connections == 1


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        pytest.param(b"NOT HTTP\r\n\r\n", 502, "upstream_protocol_error", id="not-http"),
        pytest.param(b"", 504, "upstream_timeout", id="silence"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 504, "upstream_timeout", id="head-only"),
    ],
)
async def test_an_upstream_that_does_not_answer_properly(tmp_path: Path, sent: bytes, status: int, reason: str) -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port), rule="timeouts: {backendRequest: 200ms}"), folder=tmp_path
        ) as gateway,
    ):
        answer = await ask(gateway.port, post())
        assert (answer.status, code(answer.body)) == (status, reason)
        assert len((await gateway.finished.next()).attempts) == 1


# -- leaving --------------------------------------------------------------------------------------------------------

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="before-the-head"),
        pytest.param(SSE_HEAD, id="before-the-first-byte"),
        pytest.param(SSE_HEAD + b"9\r\ndata: 1\n\n\r\n", id="mid-stream"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", id="mid-json"),
    ],
)
@pytest.mark.parametrize(
    "leave", [lambda client: client.writer.close(), RawClient.reset, RawClient.half_close], ids=["fin", "rst", "half"]
)
async def test_the_upstream_is_closed_within_100_ms_when_the_client_leaves(
    tmp_path: Path, sent: bytes, leave: Callable[[RawClient], None]
) -> None:
    at_work = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(sent)
        at_work.set()
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        await at_work.wait()
        if b"data" in sent or b"half" in sent:
            await client.head()
        leave(client)
        async with asyncio.timeout(0.1):
            await upstream.wait_ended()
        exchange = await gateway.finished.next()
        assert exchange.reason == "client_closed"
        assert exchange.flag == "DC"
        assert [attempt.outcome for attempt in exchange.attempts] == ["abandoned"]
        metrics = await gateway.metrics()
        assert 'code="499"' in metrics
        assert f'pointsman_upstream_in_flight{{endpoint="127.0.0.1:{upstream.port}"}} 0.0' in metrics


@pytest.mark.parametrize("size", [0, 300_000, 600_000, 1_000_000, 3_000_000])
async def test_leaving_behind_a_large_body_is_seen_too(tmp_path: Path, size: int) -> None:
    at_work = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        at_work.set()
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.send(post(b'{"model":"qwen","x":"' + b"x" * size + b'"}'))
            await at_work.wait()
        async with asyncio.timeout(0.2):
            await upstream.wait_ended()
        assert (await gateway.finished.next()).reason == "client_closed"


async def test_leaving_frees_the_model_servers_slot(tmp_path: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=30, max_num_seqs=1)
    body = b'{"model":"qwen","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    async with (
        SimulatedModelServer(settings) as server,
        running_gateway(route_to(("127.0.0.1", server.port)), folder=tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as running, RawClient(gateway.port) as waiting:
            await running.send(post(body))
            await server.engine.until(lambda engine: engine.running == 1)
            await waiting.send(post(body))
            await server.engine.until(lambda engine: engine.waiting == 1)
        async with asyncio.timeout(1):
            await server.engine.until(lambda engine: engine.running == engine.waiting == 0)


# -- cutting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "close", "silence"])
@pytest.mark.parametrize(
    ("events", "blank"),
    [
        pytest.param(b"data: 1\n\n", b"", id="between-events"),
        pytest.param(b"data: 1\n\ndata: ha", b"\n\n", id="mid-event"),
        pytest.param(b"data: 1\r\n\r\n", b"", id="crlf"),
    ],
)
async def test_a_stream_that_dies_ends_with_an_error_event_and_no_clean_end(
    tmp_path: Path, events: bytes, blank: bytes, end: str
) -> None:
    relayed = asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + b"%x\r\n%b\r\n" % (len(events), events))
        await relayed.wait()
        if end == "reset":
            peer.reset()
        elif end == "silence":
            await peer.until_closed()

    rule = "timeouts: {request: 500ms}" if end == "silence" else ""
    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port), rule=rule), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        await client.head()
        assert await client.chunk() == events
        relayed.set()
        last = await client.chunk()
        assert last.startswith(blank + b"event: error\ndata: {")
        assert last.endswith(b"}\n\n")
        reason = "upstream_timeout" if end == "silence" else "upstream_reset"
        assert code(last.split(b"data: ", 1)[1]) == reason
        assert await client.rest() == b""  # no last chunk
        exchange = await gateway.finished.next()
        assert (exchange.reason, exchange.status) == (reason, 200)
        assert exchange.attempts[0].health(PassiveHealth()) in (Health.FAILURE, Health.GATEWAY_FAILURE)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"content-type: application/json\r\ncontent-length: 100\r\n", id="json-with-length"),
        pytest.param(
            b"content-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
            id="encoded-stream",
        ),
    ],
)
async def test_any_other_answer_that_dies_is_cut(tmp_path: Path, head: bytes) -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        body = b"4\r\nhalf\r\n" if b"chunked" in head else b"half"
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        await client.head()
        rest = await client.rest()
        assert rest in (b"half", b"4\r\nhalf\r\n")


async def test_an_error_event_of_the_upstreams_own_passes_and_counts_as_a_failure(tmp_path: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=0.01, itl_seconds=0.05, output_tokens=1000)
    async with (
        SimulatedModelServer(settings) as server,
        running_gateway(route_to(("127.0.0.1", server.port)), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post(b'{"model":"qwen","stream":true,"messages":[{"role":"user","content":"hi"}]}'))
        await client.head()
        await client.chunk()
        server.engine.die()
        received = b""
        while chunk := await client.chunk():
            received += chunk
        assert received.endswith(b"data: [DONE]\n\n")
        exchange = await gateway.finished.next()
        assert exchange.reason == "upstream_error_event"
        assert exchange.attempts[0].health(PassiveHealth()) in (Health.FAILURE, Health.GATEWAY_FAILURE)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nFIRST\r\n0\r\n\r\n", b"FIRST", id="chunked"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nFIRST", b"FIRST", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", id="empty"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
    ],
)
@pytest.mark.parametrize("behind", [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nSECOND", b"nonsense"])
async def test_what_comes_behind_an_answer_is_no_part_of_it(
    tmp_path: Path, answer: bytes, body: bytes, behind: bytes
) -> None:
    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(answer + behind)
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
    ):
        for _ in range(2):
            got = await ask(gateway.port, post())
            assert got.body == body
        assert upstream.connections == 2  # neither was used again
        assert {exchange.reason for exchange in gateway.finished.all} == {""}


# -- answers of our own ---------------------------------------------------------------------------------------------


async def test_the_model_list_names_the_configured_models(tmp_path: Path) -> None:
    manifests = route_to(("127.0.0.1", 1)) + route_to(("127.0.0.1", 1), model="deepseek-r1")
    async with (
        running_gateway(manifests, folder=tmp_path) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        listed = (await client.get("/v1/models")).json()
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == ["deepseek-r1", "qwen"]
        assert (await client.get("/v1/models/qwen")).json()["id"] == "qwen"
        missing = await client.get("/v1/models/nope")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
        anthropic = (await client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
        assert anthropic["data"][0]["type"] == "model"
        assert anthropic["has_more"] is False


@pytest.mark.parametrize(
    ("filter_yaml", "location"),
    [
        pytest.param("{hostname: other.example}", "http://other.example/v1/x?q=1", id="hostname"),
        pytest.param("{scheme: https}", "https://gateway.example/v1/x?q=1", id="scheme-implies-its-port"),
        pytest.param("{port: 8443, scheme: https}", "https://gateway.example:8443/v1/x?q=1", id="port"),
        pytest.param(
            "{path: {type: ReplaceFullPath, replaceFullPath: /y}, port: 80}", "http://gateway.example/y?q=1", id="path"
        ),
    ],
)
async def test_a_redirect_is_answered_without_an_upstream(tmp_path: Path, filter_yaml: str, location: str) -> None:
    manifests = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: moved}}
spec:
  rules:
  - filters:
    - type: RequestRedirect
      requestRedirect: {filter_yaml}
"""
    async with running_gateway(manifests, folder=tmp_path) as gateway:
        answer = await ask(gateway.port, b"GET /v1/x?q=1 HTTP/1.1\r\nHost: gateway.example\r\n\r\n")
        assert answer.status == 302
        assert answer.headers["location"] == location


async def test_weights_are_kept_and_an_invalid_backend_ref_takes_its_share_as_500(tmp_path: Path) -> None:
    async with RawUpstream(ok) as upstream:
        manifests = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: split}}
spec:
  rules:
  - backendRefs:
    - {{group: gateway.envoyproxy.io, kind: Backend, name: good, weight: 8}}
    - {{group: gateway.envoyproxy.io, kind: Backend, name: missing, weight: 2}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: good}}
spec:
  endpoints:
  - ip: {{address: 127.0.0.1, port: {upstream.port}}}
"""
        async with running_gateway(manifests, folder=tmp_path) as gateway, RawClient(gateway.port) as client:
            statuses = []
            for _ in range(400):
                await client.send(post())
                answer = await client.answer()
                statuses.append(answer.status)
                if answer.status == 500:
                    assert code(answer.body) == "invalid_backend_ref"
            assert 40 <= statuses.count(500) <= 130  # 80 expected, 8 standard deviations and more
            assert statuses.count(200) + statuses.count(500) == 400


async def test_filters_change_the_request_and_the_answer(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def script(peer: Conversation) -> None:
        received.append(await peer.request())
        await peer.answer(headers="server: upstream\r\n")
        await peer.until_closed()

    rule = """filters:
- type: RequestHeaderModifier
  requestHeaderModifier: {set: [{name: X-Team, value: search}], remove: [X-Secret]}
- type: ResponseHeaderModifier
  responseHeaderModifier: {set: [{name: X-Served-By, value: canary}], remove: [Server]}
- type: URLRewrite
  urlRewrite: {hostname: pods.internal, path: {type: ReplacePrefixMatch, replacePrefixMatch: /openai}}
"""
    async with RawUpstream(script) as upstream:
        manifests = route_to(("127.0.0.1", upstream.port), rule=rule).replace(
            "    - headers: [", "    - path: {type: PathPrefix, value: /team}\n      headers: ["
        )
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            answer = await ask(gateway.port, post(path=b"/team/v1/chat?x=1", headers=b"X-Secret: s\r\n"))
    assert answer.status == 200
    assert answer.headers["x-served-by"] == "canary"
    assert "server" not in answer.headers
    lines = received[0].decode().split("\r\n")
    assert lines[:2] == ["POST /openai/v1/chat?x=1 HTTP/1.1", "host: pods.internal"]
    assert "x-team: search" in lines
    assert not any("secret" in line.lower() for line in lines[1:])


async def test_no_prompt_and_no_credential_reaches_the_log(tmp_path: Path) -> None:
    async with (
        RawUpstream(ok) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
    ):
        planted = b'{"model":"qwen","messages":[{"role":"user","content":"planted-prompt"}]}'
        secret = b"Authorization: Bearer planted-key\r\nCookie: planted-cookie\r\n"
        await ask(gateway.port, post(planted, path=b"/v1/x?key=planted-query", headers=secret))
        await ask(gateway.port, post(b'{"planted-prompt":', headers=secret))
        await gateway.finished.next(2)
        assert "planted" not in await gateway.metrics()
        assert "planted" not in json.dumps(gateway.log_records())


# -- the admin port -------------------------------------------------------------------------------------------------


async def test_the_admin_port_answers_and_the_data_port_has_nothing_of_it(tmp_path: Path) -> None:
    async with (
        running_gateway(route_to(("127.0.0.1", 1)), folder=tmp_path) as gateway,
        httpx.AsyncClient() as client,
    ):
        for path in ("/healthz", "/readyz", "/metrics", "/config", "/status"):
            assert (await client.get(gateway.admin_url + path)).status_code == 200
            assert (await client.get(gateway.url + path)).status_code == 404
        config = (await client.get(gateway.admin_url + "/config")).json()
        assert config["version"] == 1
        metrics = await gateway.metrics()
        assert "pointsman_config_last_reload_successful 1.0" in metrics
        assert "_created" not in metrics


async def drain_states(gateway: RunningGateway, client: httpx.AsyncClient) -> int:
    return (await client.get(gateway.admin_url + "/readyz")).status_code


async def test_draining_is_not_ready_finishes_streams_and_cuts_them_when_time_is_over(tmp_path: Path) -> None:
    from dataclasses import replace

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + b"9\r\ndata: 1\n\n\r\n")
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(
            route_to(("127.0.0.1", upstream.port)),
            folder=tmp_path,
            configure=lambda settings: replace(settings, drain_timeout_seconds=0.3),
        ) as gateway,
        httpx.AsyncClient() as admin,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        await client.head()
        await client.chunk()
        draining = asyncio.create_task(gateway.gateway.drain())
        await asyncio.sleep(0)
        assert await drain_states(gateway, admin) == 503
        last = await client.chunk()
        assert last.startswith(b"event: error\n")
        assert await client.rest() == b""
        await draining
        assert (await gateway.finished.next()).reason == "upstream_reset"


async def test_a_pod_that_fails_five_times_gets_no_requests_while_others_are_there(tmp_path: Path) -> None:
    seen: dict[str, int] = {"good": 0, "bad": 0}

    async def good(peer: Conversation) -> None:
        while True:
            await peer.request()
            seen["good"] += 1
            await peer.answer()

    async def bad(peer: Conversation) -> None:
        while True:
            await peer.request()
            seen["bad"] += 1
            await peer.answer(b"{}", status="500 Internal Server Error")

    async with (
        RawUpstream(good) as one,
        RawUpstream(bad) as two,
        running_gateway(route_to(("127.0.0.1", one.port), ("127.0.0.1", two.port)), folder=tmp_path) as gateway,
    ):
        statuses = [(await ask(gateway.port, post())).status for _ in range(100)]
    assert statuses.count(500) == seen["bad"] == 5
    assert statuses.count(200) == seen["good"] == 95


async def test_retries_stay_within_their_budget(tmp_path: Path) -> None:
    waiting, retried, release = 0, 0, asyncio.Event()

    async def busy_first(peer: Conversation) -> None:
        nonlocal waiting, retried
        while True:
            request = await peer.request()
            number = request.rsplit(b'"n":', 1)[1]
            if number not in seen:
                seen.add(number)
                waiting += 1
                await release.wait()
                await peer.answer(b"busy", status="503 Busy")
            else:
                retried += 1
                await peer.until_closed()

    seen: set[bytes] = set()
    async with (
        RawUpstream(busy_first) as one,
        running_gateway(route_to(("127.0.0.1", one.port)), folder=tmp_path) as gateway,
        AsyncExitStack() as clients,
    ):
        for number in range(100):
            client = await clients.enter_async_context(RawClient(gateway.port))
            await client.send(post(b'{"model":"qwen","n":%d}' % number))
        async with asyncio.timeout(10):
            while waiting < 100:
                await asyncio.sleep(0.01)
        release.set()
        await gateway.finished.next(80)  # what is not retried gets the 503
        await asyncio.sleep(0.2)
        assert 10 <= retried <= 20
        assert len(gateway.finished.all) == 100 - retried


async def test_connecting_is_a_part_of_the_requests_time(tmp_path: Path) -> None:
    with unanswered_port() as port:
        manifests = route_to(("127.0.0.1", port), rule="timeouts: {request: 300ms}")
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            async with asyncio.timeout(1.5):
                answer = await ask(gateway.port, post())
            assert (answer.status, code(answer.body)) == (504, "upstream_timeout")


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        pytest.param(b"NONSENSE\r\n\r\n", 400, "invalid_body", id="malformed"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, 431, "headers_too_large", id="too-large"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "invalid_body", id="host"),
    ],
)
async def test_what_is_refused_by_its_head_is_counted_and_logged_too(
    tmp_path: Path, head: bytes, status: int, reason: str
) -> None:
    async with running_gateway(route_to(("127.0.0.1", 1)), folder=tmp_path) as gateway:
        answer = await ask(gateway.port, head)
        assert (answer.status, code(answer.body)) == (status, reason)
        assert answer.headers["x-request-id"] == (await gateway.finished.next()).request_id
        assert f'code="{status}",model="",reason="{reason}"' in await gateway.metrics()


async def test_a_head_in_many_pieces_is_as_large_as_one_in_one(tmp_path: Path) -> None:
    head = b"GET /v1/models HTTP/1.1\r\nHost: h\r\n" + b"".join(b"x-%d: %b\r\n" % (i, b"a" * 1000) for i in range(50))
    async with (
        running_gateway(route_to(("127.0.0.1", 1)), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        for start in range(0, len(head), 1448):
            await client.send(head[start : start + 1448])
            await asyncio.sleep(0)
        await client.send(b"\r\n")
        assert (await client.answer()).status == 200


async def test_a_models_name_may_have_a_slash_in_our_list_and_nowhere_else(tmp_path: Path) -> None:
    manifests = route_to(("127.0.0.1", 1)).replace("value: qwen", "value: org/qwen")
    async with (
        running_gateway(manifests, folder=tmp_path) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        assert (await client.get("/v1/models/org%2Fqwen")).json()["id"] == "org/qwen"
        assert (await client.get("/v1/models/org/qwen")).json()["id"] == "org/qwen"
        assert (await client.head("/v1/models")).status_code == 200
        assert (await client.post("/v1/a%2Fb", json={"model": "org/qwen"})).status_code == 400


async def test_a_rule_that_names_the_model_list_wins_over_ours_only_where_it_matches(tmp_path: Path) -> None:
    async with RawUpstream(ok) as upstream:
        manifests = (
            route_to(("127.0.0.1", upstream.port))
            + """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: list}
spec:
  hostnames: [own.example]
  rules:
  - matches: [{path: {type: Exact, value: /v1/models}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: backend-qwen}]
"""
        )
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            theirs = await ask(gateway.port, b"GET /v1/models HTTP/1.1\r\nHost: own.example\r\n\r\n")
            ours = await ask(gateway.port, b"GET /v1/models HTTP/1.1\r\nHost: other.example\r\n\r\n")
        assert json.loads(theirs.body) == {"ok": True}
        assert json.loads(ours.body)["object"] == "list"


@pytest.mark.parametrize(
    ("target", "sent"), [(b"/a?", b"/a?"), (b"/a?b=c?d", b"/a?b=c?d"), (b"http://h/a?b", b"/a?b"), (b"/a#x", None)]
)
async def test_the_clients_target_travels_as_it_is_and_has_no_fragment(
    tmp_path: Path, target: bytes, sent: bytes | None
) -> None:
    received: list[bytes] = []

    async def script(peer: Conversation) -> None:
        received.append(await peer.request())
        await peer.answer()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
    ):
        answer = await ask(gateway.port, post(path=target))
    if sent is None:
        assert (answer.status, code(answer.body), received) == (400, "invalid_path", [])
    else:
        assert received[0].startswith(b"POST %b HTTP/1.1\r\n" % sent)


async def test_draining_waits_for_clients_that_are_still_reading(tmp_path: Path) -> None:
    size = 8_000_000

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.answer(b"x" * size)
        await peer.until_closed()

    async with (
        RawUpstream(script) as upstream,
        running_gateway(route_to(("127.0.0.1", upstream.port)), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        await client.head()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        draining = asyncio.create_task(gateway.gateway.drain())
        await asyncio.sleep(0.5)
        assert not draining.done()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await client.reader.readexactly(size)) == size
        await draining
