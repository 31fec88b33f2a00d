"""Do prompts, answers and credentials stay where they belong? Plants them everywhere and looks for them everywhere."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import route_to, running_gateway
from tests.support.otlp import receiving, tracing_to
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

SECRET = "PLANTED"  # part of everything that nobody but client and model server may see
RULE = f"""filters:
- type: RequestHeaderModifier
  requestHeaderModifier: {{add: [{{name: authorization, value: Bearer {SECRET}-filter}}]}}
"""


def post(body: bytes, *, content_type: str = "application/json", extra: str = "") -> bytes:
    return (
        f"POST /v1/chat/completions?api_key={SECRET}-query&user={SECRET} HTTP/1.1\r\nHost: h\r\n"
        f"Authorization: Bearer {SECRET}-token\r\nX-Api-Key: {SECRET}-key\r\nCookie: session={SECRET}-cookie\r\n"
        f"Baggage: user={SECRET}-baggage\r\nX-Anything: {SECRET}-header\r\n{extra}"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def prompt(model: str) -> bytes:
    return (
        f'{{"model":"{model}","messages":[{{"role":"user","content":"{SECRET}-prompt"}}],"user":"{SECRET}-user",'
        f'"stop":["{SECRET}-stop"],"metadata":{{"k":"{SECRET}-metadata"}},"tools":[{{"name":"{SECRET}-tool"}}]}}'
    ).encode()


REQUESTS = [
    pytest.param(post(prompt("qwen")), 200, id="answered"),
    pytest.param(post(prompt("down")), 503, id="nobody there"),
    pytest.param(post(prompt("broken")), 502, id="not HTTP"),
    pytest.param(post(prompt("unknown")), 404, id="no such model"),
    pytest.param(post(prompt("qwen")[:-5]), 400, id="cut JSON"),
    pytest.param(post(f'{{"model":["{SECRET}"]}}'.encode()), 400, id="a model that is no name"),
    pytest.param(post(f'{{"model":"{SECRET}{"x" * 300}"}}'.encode()), 400, id="a name that is too long"),
    pytest.param(
        post(f"--b\r\n{SECRET}\r\n".encode(), content_type="multipart/form-data; boundary=b"), 400, id="a broken form"
    ),
    pytest.param(post(prompt("qwen"), extra="X-Request-Id: PLANTED not an id\r\n"), 200, id="an id that is none"),
]


async def answering(peer: Conversation) -> None:
    while True:
        request = await peer.request()
        assert f"{SECRET}-prompt".encode() in request  # the model server gets everything
        await peer.answer(
            f'{{"choices":[{{"message":{{"content":"{SECRET}-answer"}}}}],"usage":{{"prompt_tokens":1}}}}'.encode(),
            headers=f"x-answer: {SECRET}-answer-header\r\nset-cookie: {SECRET}=1\r\n",
        )


async def no_http(peer: Conversation) -> None:
    await peer.request()
    await peer.send(f"{SECRET}-garbage\r\n\r\n".encode())


@pytest.mark.parametrize(("request_bytes", "status"), REQUESTS)
async def test_nothing_planted_is_in_logs_metrics_spans_or_admin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, request_bytes: bytes, status: int
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    caplog.set_level(logging.DEBUG)
    async with (
        receiving() as collector,
        RawUpstream(answering) as upstream,
        RawUpstream(no_http) as broken,
        tracing_to(collector.port) as pipeline,
    ):
        manifests = (
            route_to((upstream.host, upstream.port), rule=RULE)
            + route_to(("127.0.0.1", 9), model="down")
            + route_to((broken.host, broken.port), model="broken")
        )
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(request_bytes)
                assert (await client.answer()).status == status
            await gateway.finished.next()
            async with httpx.AsyncClient(base_url=gateway.admin_url) as admin:
                told = [(await admin.get(path)).text for path in ("/metrics", "/config", "/status")]
                told.append((await admin.get("/metrics", headers={"accept": "application/openmetrics-text"})).text)
            await collector.wait_spans(1)
            told.append(str(gateway.log_records()))
    # httpx is this test's own client, and asyncio's debug lines are about its sockets.
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    told.extend(f"{record.getMessage()} {record.exc_text or ''}" for record in ours)
    for text in told:
        assert SECRET not in text
    assert SECRET.encode() not in collector.raw


async def test_what_is_refused_with_its_head_is_not_told_either(tmp_path: Path) -> None:
    async with running_gateway(route_to(("127.0.0.1", 9)), folder=tmp_path) as gateway:
        answer = await ask(gateway.port, f"GET /v1/../{SECRET}?{SECRET}-query HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert answer.status == 400
        await gateway.finished.next()
        (record,) = gateway.log_records()
    assert f"{SECRET}-query" not in str(record)
