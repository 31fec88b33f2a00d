"""Do the endpoints that were not recorded answer sensibly, and refuse what makes no sense?"""

from typing import Any

import httpx
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from app.simulator.text import Voice, detokenize, tokenize

pytestmark = pytest.mark.anyio


async def post(path: str, **request: Any) -> httpx.Response:
    async with SimulatedModelServer(SimulatorSettings(models=("qwen",), name="qwen-0")) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            return await client.post(path, **request)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
async def test_rerank_puts_the_document_with_the_most_words_first(path: str) -> None:
    documents = ["about boats", {"text": "the red train"}, "a train"]
    answer = await post(path, json={"model": "qwen", "query": "red train", "documents": documents})
    results = answer.json()["results"]
    assert [(result["index"], result["relevance_score"]) for result in results] == [(1, 1.0), (2, 0.5), (0, 0.0)]
    assert results[0]["document"] == {"text": "the red train"}


async def test_rerank_stops_at_top_n() -> None:
    answer = await post("/rerank", json={"query": "a", "documents": ["a", "b"], "top_n": 1})
    assert len(answer.json()["results"]) == 1


async def test_a_text_is_its_tokens_and_back() -> None:
    text = "Weichenwärter — 转辙员"
    answer = await post("/tokenize", json={"prompt": text})
    assert answer.json()["count"] == -(-len(text.encode()) // 4)
    back = await post("/detokenize", json={"tokens": answer.json()["tokens"]})
    assert back.json() == {"prompt": text}


def test_tokens_that_never_were_ours_are_read_as_replacement_characters() -> None:
    assert detokenize([0, 0xFF, 0x1FF]) == "\ufffd"
    assert detokenize(tokenize(b"\0\0\0\0\0")) == "\0" * 5


def test_text_is_its_words() -> None:
    voice = Voice(model='mo"del', pod="pod-\n1")
    assert voice.text(5) == 'pod-\n1 here, answering as mo"del.'
    assert voice.text_json(200) == b"".join(voice.word_json(index) for index in range(200))


@pytest.mark.parametrize(
    ("path", "request_body", "status"),
    [
        pytest.param("/v1/embeddings", {"input": {}}, 400, id="embedding-of-an-object"),
        pytest.param("/v1/embeddings", {"input": "x", "dimensions": 0}, 400, id="no-dimensions"),
        pytest.param("/v1/embeddings", {"input": "x" * 4_194_308}, 400, id="embedding-too-long"),
        pytest.param("/v1/embeddings", {"input": "x", "model": "nope"}, 404, id="embedding-model"),
        pytest.param("/v1/images/generations", {"prompt": "x", "n": 0}, 400, id="no-image"),
        pytest.param("/v1/chat/completions", {"messages": "Hello"}, 400, id="messages-as-text"),
        pytest.param("/v1/chat/completions", {"messages": [], "n": 0}, 400, id="no-choice"),
        pytest.param("/v1/chat/completions", {"messages": [], "stream": "yes"}, 400, id="stream-yes"),
        pytest.param("/v1/messages", {"model": "", "messages": [], "max_tokens": 1}, 400, id="messages-empty-model"),
        pytest.param("/v1/completions", {"prompt": [[1, 2], [3]]}, 200, id="token-lists"),
        pytest.param("/v1/completions", {"prompt": [1, 2, 3]}, 200, id="tokens"),
        pytest.param("/v1/completions", {"prompt": None}, 200, id="no-prompt"),
    ],
)
async def test_requests_are_checked(path: str, request_body: dict[str, Any], status: int) -> None:
    answer = await post(path, json=request_body)
    assert answer.status_code == status
    if status >= 400:
        assert isinstance(answer.json()["error"]["message"], str)


async def test_token_prompts_are_counted_by_their_tokens() -> None:
    answer = await post("/v1/completions", json={"prompt": [[1, 2], [3, 4, 5]]})
    assert answer.json()["usage"]["prompt_tokens"] == 5


async def test_a_transcription_needs_a_file() -> None:
    answer = await post("/v1/audio/transcriptions", data={"model": "qwen"}, files={"other": b"x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "body.file"


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/json", "multipart/form-data; boundary=x"])
async def test_a_transcription_that_is_no_form_is_refused(content_type: str) -> None:
    answer = await post("/v1/audio/transcriptions", content=b"no form", headers={"content-type": content_type})
    assert answer.status_code == 400


async def test_a_transcription_can_be_text_and_its_model_missing() -> None:
    answer = await post("/v1/audio/transcriptions", data={"response_format": "text"}, files={"file": b"x"})
    assert answer.text.startswith("qwen-0 here, answering as qwen.")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
