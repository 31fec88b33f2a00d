"""What does a request ask of a model, in OpenTelemetry's words? The one table of the GenAI attributes' names.

Follows docs/gen-ai/client-inference.md of open-telemetry/semantic-conventions-genai (October 2026), and v1.41 of the
general conventions, the last that had them, behind OTEL_SEMCONV_STABILITY_OPT_IN. Prompts, answers, stop sequences and
users' names are in no attribute, whatever is configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from app.tracing.settings import GenAiVersion

Value = str | int | float | bool
MAX_BODY_BYTES = 1024 * 1024  # of requests whose parameters are looked at: 1 ms for a sampled request


class Fact(StrEnum):
    """What we know of a call, by its newest attribute name."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    REQUEST_MODEL = "gen_ai.request.model"
    STREAM = "gen_ai.request.stream"
    MAX_TOKENS = "gen_ai.request.max_tokens"
    TEMPERATURE = "gen_ai.request.temperature"
    TOP_P = "gen_ai.request.top_p"
    TOP_K = "gen_ai.request.top_k"
    SEED = "gen_ai.request.seed"
    CHOICES = "gen_ai.request.choice.count"
    FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
    PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
    TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"


# What had another name in v1.41.
NAMES_IN_1_41: dict[Fact, str] = {Fact.CACHE_WRITE_TOKENS: "gen_ai.usage.cache_creation.input_tokens"}


def genai_attributes(facts: Mapping[Fact, Value | None], version: GenAiVersion) -> dict[str, Value]:
    """The facts that are known, under the names of the version that was asked for."""
    attributes: dict[str, Value] = {}
    for fact, value in facts.items():
        if value is None:
            continue
        if version is not GenAiVersion.V1_41:
            attributes[fact.value] = value
        if version is not GenAiVersion.NEWEST:
            # top_k was a double then.
            attributes[NAMES_IN_1_41.get(fact, fact.value)] = float(value) if fact is Fact.TOP_K else value
    return attributes


class Api(NamedTuple):
    """One path of a model server's API."""

    path: str  # below /v1
    operation: str  # the conventions' word where they have one, else ours
    provider: str = "openai"  # whose API it is; who serves it is behind the gateway and not known


APIS = (
    Api("chat/completions", "chat"),
    Api("completions", "text_completion"),
    Api("responses", "chat"),
    Api("embeddings", "embeddings"),
    Api("messages", "chat", "anthropic"),
    Api("messages/count_tokens", "count_tokens", "anthropic"),
    Api("audio/transcriptions", "transcription"),
    Api("audio/translations", "translation"),
    Api("audio/speech", "speech"),
    Api("images/generations", "image_generation"),
    Api("images/edits", "image_edit"),
    Api("rerank", "rerank"),
    Api("score", "score"),
)
_BY_PATH = {api.path: api for api in APIS}


def api_of(path: str) -> Api | None:
    """The API that a path is of, also below a prefix, or None."""
    return _BY_PATH.get(path.rpartition("/v1/")[2])


class _Parameters(msgspec.Struct):
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


_decoder = msgspec.json.Decoder(_Parameters)


def request_facts(body: bytes | None) -> dict[Fact, Value | None]:
    """What a JSON body asks for beside the prompt: numbers and switches, nothing that a person wrote."""
    if not body or len(body) > MAX_BODY_BYTES or body[:1] != b"{":
        return {}
    try:
        asked = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return {
        Fact.STREAM: asked.stream or None,
        Fact.MAX_TOKENS: asked.max_completion_tokens or asked.max_output_tokens or asked.max_tokens,
        Fact.TEMPERATURE: asked.temperature,
        Fact.TOP_P: asked.top_p,
        Fact.TOP_K: asked.top_k,
        Fact.SEED: asked.seed,
        Fact.CHOICES: asked.n if asked.n != 1 else None,
        Fact.FREQUENCY_PENALTY: asked.frequency_penalty,
        Fact.PRESENCE_PENALTY: asked.presence_penalty,
    }
