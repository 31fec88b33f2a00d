"""Do real clients work through the gateway as they do against the model server? OpenAI's and Anthropic's SDKs."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import RunningGateway, route_to, running_gateway

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def qwen_gateway(folder: Path) -> AsyncIterator[tuple[RunningGateway, SimulatedModelServer]]:
    settings = SimulatorSettings(models=("qwen",), output_tokens=8)
    async with (
        SimulatedModelServer(settings) as server,
        running_gateway(route_to(("127.0.0.1", server.port)), folder=folder) as gateway,
    ):
        yield gateway, server


@asynccontextmanager
async def openai_client(folder: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        qwen_gateway(folder) as (gateway, _),
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield client


@asynccontextmanager
async def anthropic_client(folder: Path) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with (
        qwen_gateway(folder) as (gateway, _),
        anthropic.AsyncAnthropic(base_url=gateway.url, api_key="key", max_retries=0) as client,
    ):
        yield client


async def test_openai_chat(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        answer = await client.chat.completions.create(model="qwen", messages=[{"role": "user", "content": "hi"}])
        assert answer.model == "qwen"
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8


async def test_openai_chat_streamed_with_usage(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        stream = await client.chat.completions.create(
            model="qwen",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage is not None


async def test_openai_responses(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        answer = await client.responses.create(model="qwen", input="hi")
        assert answer.output_text
        stream = await client.responses.create(model="qwen", input="hi", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"


async def test_openai_completions_and_embeddings(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        assert (await client.completions.create(model="qwen", prompt="hi")).choices[0].text
        assert (await client.embeddings.create(model="qwen", input=["a", "b"])).data[1].embedding


async def test_openai_audio_is_routed_by_the_model_part_of_its_form(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        audio = io.BytesIO(b"RIFF" + bytes(200_000))
        audio.name = "speech.wav"
        assert (await client.audio.transcriptions.create(model="qwen", file=audio)).text


async def test_openai_images_and_models(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        assert (await client.images.generate(model="qwen", prompt="a signal box")).data
        assert [model.id async for model in client.models.list()] == ["qwen"]
        assert (await client.models.retrieve("qwen")).id == "qwen"


async def test_openai_sees_our_errors_as_errors(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "hi"}])
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"


async def test_openai_sees_a_stream_that_breaks_as_an_error(tmp_path: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), output_tokens=100_000, itl_seconds=0.001)
    server = SimulatedModelServer(settings)
    await server.__aenter__()
    async with (
        running_gateway(route_to(("127.0.0.1", server.port)), folder=tmp_path) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="key", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="qwen", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await anext(aiter(stream))
        await server.__aexit__(None, None, None)
        with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
            async for _ in stream:
                pass


async def test_anthropic_messages(tmp_path: Path) -> None:
    async with anthropic_client(tmp_path) as client:
        answer = await client.messages.create(model="qwen", max_tokens=8, messages=[{"role": "user", "content": "hi"}])
        assert answer.usage.output_tokens == 8
        async with client.messages.stream(
            model="qwen", max_tokens=8, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            assert await stream.get_final_text()
        counted = await client.messages.count_tokens(model="qwen", messages=[{"role": "user", "content": "hi"}])
        assert counted.input_tokens > 0


async def test_anthropic_sees_our_errors_and_our_model_list(tmp_path: Path) -> None:
    async with anthropic_client(tmp_path) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(model="nope", max_tokens=8, messages=[{"role": "user", "content": "hi"}])
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["type"] == "error"
        assert [model.id async for model in client.models.list()] == ["qwen"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/rerank", {"model": "qwen", "query": "a", "documents": ["b"]}, id="rerank"),
        pytest.param("/tokenize", {"model": "qwen", "prompt": "hi"}, id="tokenize"),
    ],
)
async def test_other_endpoints_pass(tmp_path: Path, path: str, body: dict[str, object]) -> None:
    async with qwen_gateway(tmp_path) as (gateway, _), httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.post(path, json=body)).status_code == 200


async def test_an_endpoint_that_comes_next_year_reaches_the_model_server(tmp_path: Path) -> None:
    async with qwen_gateway(tmp_path) as (gateway, server), httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post("/v2/thoughts?deep=1", json={"model": "qwen"})
        assert answer.json() == {"detail": "Not Found"}  # the model server's word, not ours
        assert server.requests[-1].target == b"/v2/thoughts?deep=1"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_json_body_under_curls_type_is_understood_by_the_model_server(
    tmp_path: Path, content_type: str | None
) -> None:
    body = b'{"model":"qwen","messages":[{"role":"user","content":"hi"}]}'
    headers = {} if content_type is None else {"content-type": content_type}
    async with qwen_gateway(tmp_path) as (gateway, _), httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post("/v1/chat/completions", content=body, headers=headers)
        assert answer.status_code == 200
