"""Have the attributes the names that the conventions give them, and nothing of what a person wrote?"""

from __future__ import annotations

import pytest

from app.tracing.genai import Fact, Value, api_of, genai_attributes, request_facts
from app.tracing.settings import GenAiVersion

FACTS: dict[Fact, Value | None] = {
    Fact.REQUEST_MODEL: "qwen",
    Fact.TOP_K: 5,
    Fact.CACHE_WRITE_TOKENS: 7,
    Fact.SEED: None,
}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        pytest.param(
            GenAiVersion.NEWEST,
            {"gen_ai.request.model": "qwen", "gen_ai.request.top_k": 5, "gen_ai.usage.cache_write.input_tokens": 7},
            id="newest",
        ),
        pytest.param(
            GenAiVersion.V1_41,
            {
                "gen_ai.request.model": "qwen",
                "gen_ai.request.top_k": 5.0,
                "gen_ai.usage.cache_creation.input_tokens": 7,
            },
            id="1.41",
        ),
        pytest.param(
            GenAiVersion.BOTH,
            {
                "gen_ai.request.model": "qwen",
                "gen_ai.request.top_k": 5.0,
                "gen_ai.usage.cache_write.input_tokens": 7,
                "gen_ai.usage.cache_creation.input_tokens": 7,
            },
            id="both",
        ),
    ],
)
def test_names(version: GenAiVersion, expected: dict[str, object]) -> None:
    assert genai_attributes(FACTS, version) == expected


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "text_completion"),
        ("/openai/v1/embeddings", "embeddings"),
        ("/v1/models", None),
        ("/chat/completions", None),
        ("/", None),
    ],
)
def test_the_operation_is_told_by_the_path(path: str, operation: str | None) -> None:
    api = api_of(path)
    assert (None if api is None else api.operation) == operation


def test_parameters_are_numbers_and_switches_only() -> None:
    body = (
        b'{"model":"qwen","stream":true,"max_tokens":1,"max_completion_tokens":9,"temperature":0.5,"n":1,"user":"SECRET",'
        b'"stop":["SECRET"],"messages":[{"role":"user","content":"SECRET"}],"metadata":{"a":"SECRET"}}'
    )
    facts = {fact: value for fact, value in request_facts(body).items() if value is not None}
    assert facts == {Fact.STREAM: True, Fact.MAX_TOKENS: 9, Fact.TEMPERATURE: 0.5}


@pytest.mark.parametrize(
    "body",
    [None, b"", b"--multipart", b'{"temperature":"SECRET"}', b"{", b'{"seed":' + b"[" * 5000, b"{" + b" " * (1 << 20)],
    ids=["gone", "empty", "multipart", "wrong type", "cut", "deep", "large"],
)
def test_a_body_that_tells_nothing_is_no_error(body: bytes | None) -> None:
    assert request_facts(body) == {}
