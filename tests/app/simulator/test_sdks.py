"""Can the SDKs of OpenAI and Anthropic use it as if it were the real thing?"""

import io
import math
from collections.abc import AsyncIterator

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI, InternalServerError, NotFoundError

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[SimulatedModelServer]:
    settings = SimulatorSettings(models=("qwen", "qwen-alias"), name="qwen-0", ttft_seconds=0.001, output_tokens=8)
    async with SimulatedModelServer(settings) as server:
        yield server


@pytest.fixture
async def openai(server: SimulatedModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic(server: SimulatedModelServer) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


SAID = "qwen-0 here, answering as qwen. The points are"


async def test_openai_chat(openai: AsyncOpenAI) -> None:
    answer = await openai.chat.completions.create(model="qwen", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == SAID
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


async def test_openai_chat_stream(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="qwen",
        messages=[{"role": "user", "content": "Hi"}],
        max_completion_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    async for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == "qwen-0 here, answering"
    assert usage is not None
    assert usage.completion_tokens == 3


async def test_an_alias_is_answered_in_the_name_of_the_base_model(openai: AsyncOpenAI) -> None:
    answer = await openai.chat.completions.create(model="qwen-alias", messages=[{"role": "user", "content": "Hi"}])
    assert answer.model == "qwen"


async def test_openai_completions(openai: AsyncOpenAI) -> None:
    answer = await openai.completions.create(model="qwen", prompt=["Hello", "there"], max_tokens=2, n=2)
    assert [choice.text for choice in answer.choices] == ["qwen-0 here,", "qwen-0 here,"]


async def test_openai_responses(openai: AsyncOpenAI) -> None:
    answer = await openai.responses.create(model="qwen", input="Hi", instructions="Be brief")
    assert answer.output_text == SAID
    assert answer.status == "completed"


async def test_openai_responses_stream(openai: AsyncOpenAI) -> None:
    stream = await openai.responses.create(
        model="qwen", input=[{"role": "user", "content": "Hi"}], max_output_tokens=3, stream=True
    )
    events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
        "qwen-0 here, answering"
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"


async def test_openai_embeddings(openai: AsyncOpenAI) -> None:
    """The SDK asks for base64 and decodes it."""
    answer = await openai.embeddings.create(model="qwen", input=["a station", "a train"])
    again = await openai.embeddings.create(model="qwen", input="a train", encoding_format="float")
    short = await openai.embeddings.create(model="qwen", input=[[1, 2], [3]], dimensions=5)
    assert [len(item.embedding) for item in answer.data] == [384, 384]
    assert answer.data[0].embedding != answer.data[1].embedding
    assert answer.data[1].embedding == pytest.approx(again.data[0].embedding)
    assert math.hypot(*again.data[0].embedding) == pytest.approx(1, rel=1e-5)
    assert [len(item.embedding) for item in short.data] == [5, 5]


async def test_openai_transcription(openai: AsyncOpenAI) -> None:
    answer = await openai.audio.transcriptions.create(model="qwen", file=("a.wav", io.BytesIO(b"RIFF" * 100)))
    assert answer.text == SAID
    with pytest.raises(NotFoundError):
        await openai.audio.transcriptions.create(model="nope", file=("a.wav", io.BytesIO(b"RIFF")))


async def test_openai_images(openai: AsyncOpenAI) -> None:
    answer = await openai.images.generate(model="qwen", prompt="a signal box", n=2)
    assert answer.data is not None
    assert [bool(image.b64_json) for image in answer.data] == [True, True]


async def test_openai_models(openai: AsyncOpenAI) -> None:
    assert [model.id async for model in openai.models.list()] == ["qwen", "qwen-alias"]


async def test_openai_errors(openai: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match="does not exist") as caught:
        await openai.chat.completions.create(model="nope", messages=[])
    assert caught.value.param == "model"


async def test_openai_sees_a_dead_engine_as_500() -> None:
    settings = SimulatorSettings(models=("qwen",), fail_rate=1.0)
    async with SimulatedModelServer(settings) as server:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            with pytest.raises(InternalServerError, match="EngineCore"):
                await client.chat.completions.create(model="qwen", messages=[])


async def test_anthropic_messages(anthropic: AsyncAnthropic) -> None:
    answer = await anthropic.messages.create(
        model="qwen", max_tokens=3, system="Be brief", messages=[{"role": "user", "content": "Hi"}]
    )
    assert [block.text for block in answer.content if block.type == "text"] == ["qwen-0 here, answering"]
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


async def test_anthropic_stream(anthropic: AsyncAnthropic) -> None:
    async with anthropic.messages.stream(
        model="qwen", max_tokens=3, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == "qwen-0 here, answering"
    assert final.usage.output_tokens == 3


async def test_anthropic_counts_tokens(anthropic: AsyncAnthropic) -> None:
    answer = await anthropic.messages.count_tokens(model="qwen", messages=[{"role": "user", "content": "Hi"}])
    assert answer.input_tokens > 1
