"""What is sent, and what must come back? The loads, and the bytes of the answers, which client and upstream share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

MODELS_PER_BEHAVIOUR = 13  # times four behaviours: a manifest of 52 models
MODELS_IN_USE = 4  # of one behaviour: requests spread over so many rules and pools
EVENTS_IN_BURST = 64
POD_ADDRESSES = ("127.0.0.1", "127.0.0.2")  # of each pool; all are this machine
ANSWERED_NAME = "bench"  # what every answer says its model is
_ANSWER_BYTES = 600


class Behaviour(StrEnum):
    """How the upstream answers; each has a port of its own, so a wrong route is a wrong answer."""

    JSON = "json"
    BURST = "burst"
    PACED = "paced"
    HELD = "held"  # a stream that begins and then says nothing


class Place(StrEnum):
    """Where in the JSON of a large prompt the model's name is."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One kind of traffic. ``ratio_target`` is what issue 2 allows in multiples of Envoy's CPU."""

    name: str
    title: str
    behaviour: Behaviour
    concurrency: int
    prompt_bytes: int
    ratio_target: float
    unit: str = "request"
    settle_seconds: float = 0.1  # before anything is counted
    window: float = 1.0  # how long it is measured, in multiples of the others


LOADS: dict[str, Load] = {
    load.name: load
    for load in (
        Load(
            name="json",
            title="small JSON, c=32",
            behaviour=Behaviour.JSON,
            concurrency=32,
            prompt_bytes=120,
            ratio_target=1.8,
        ),
        Load(
            name="burst",
            title="64 events at once, c=32",
            behaviour=Behaviour.BURST,
            concurrency=32,
            prompt_bytes=120,
            ratio_target=1.5,
        ),
        Load(
            name="1mb",
            title="1 MB prompt, c=4",
            behaviour=Behaviour.JSON,
            concurrency=4,
            prompt_bytes=1_000_000,
            ratio_target=2.2,
        ),
        Load(
            name="paced",
            title="100 paced streams",
            behaviour=Behaviour.PACED,
            concurrency=100,
            prompt_bytes=120,
            ratio_target=1.4,
            unit="event",
            settle_seconds=0.3,  # until 100 streams have drifted apart
            window=2.0,
        ),
    )
}


def model_name(behaviour: Behaviour, number: int) -> str:
    """The name of one of the manifest's models."""
    return f"bench/{behaviour.value}-{number:02d}-instruct"


def request_bytes(
    behaviour: Behaviour, number: int, *, prompt_bytes: int = 120, place: Place = Place.END, name: str | None = None
) -> bytes:
    """One whole HTTP request for one of a behaviour's models, or for ``name``, with a prompt of so many bytes."""
    prompt = ("Tell me about railways. " * (prompt_bytes // 24 + 1))[:prompt_bytes]
    model = {"model": name or model_name(behaviour, number)}
    rest = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": prompt},
        ],
        "temperature": 0.7,
        "max_tokens": 64,
        "stream": behaviour is not Behaviour.JSON,
    }
    body = json.dumps(model | rest if place is Place.START else rest | model).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n"
        "accept: application/json\r\n"
        "accept-encoding: gzip, deflate\r\n"
        "authorization: Bearer sk-bench-0123456789abcdef\r\n"
        "content-type: application/json\r\n"
        "user-agent: OpenAI/Python 1.60.0\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _chunk_event(content: str, stamp: str = "t0000000000000000000") -> bytes:
    event = {
        "id": "chatcmpl-0f3a2b6d51f54bd39b0d9c1f",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": ANSWERED_NAME,
        "system_fingerprint": stamp,
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def json_answer() -> bytes:
    """The body of an unstreamed answer: 600 bytes with usage, as vLLM gives it."""
    message = {"role": "assistant", "content": ""}
    answer = {
        "id": "chatcmpl-0f3a2b6d51f54bd39b0d9c1f",
        "object": "chat.completion",
        "created": 1790000000,
        "model": ANSWERED_NAME,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 31, "total_tokens": 95, "completion_tokens": 64, "prompt_tokens_details": None},
    }
    message["content"] = "x" * (_ANSWER_BYTES - len(json.dumps(answer)))
    return json.dumps(answer).encode()


def burst_events() -> list[bytes]:
    """The events of a short stream: tokens, usage, [DONE]."""
    tokens = [_chunk_event(f" token {number}") for number in range(EVENTS_IN_BURST - 2)]
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":31,"total_tokens":93,"completion_tokens":62}}\n\n'
    return [*tokens, usage, b"data: [DONE]\n\n"]


def paced_event() -> tuple[bytes, bytes]:
    """An event in two halves; between them go the 19 digits of the moment it was sent, in ns of the monotonic clock."""
    before, after = _chunk_event(" token", "tSTAMP").split(b"STAMP")
    return before, after


STAMP = rb'"t(\d{19})"'  # how the client finds that moment
