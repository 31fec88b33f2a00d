"""Does the simulator answer like the vLLM that was recorded? Heads, keys and types; errors to the letter."""

from typing import Any

import orjson
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.app.simulator.wire import JSON, Answer, connect, recording, shape_of

pytestmark = pytest.mark.anyio

SETTINGS = SimulatorSettings(models=("qwen",), name="qwen-0", max_model_len=4096)

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "qwen", "messages": HELLO, "max_tokens": 3}
TEXT = {"model": "qwen", "prompt": "Hello", "max_tokens": 3}
RESPONSE = {"model": "qwen", "input": "Hello", "max_output_tokens": 3}
LONG = "x" * 4 * 4097
DEEP = b"[" * 200_000 + b"]" * 200_000  # 5,000 were recorded; Python 3.13 reads that many


def body(*parts: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({key: value for part in (*parts, more) for key, value in part.items()})


async def ask(
    method: str, path: str, sent: bytes = b"", headers: dict[str, str] | None = None, **settings: Any
) -> Answer:
    chosen = SimulatorSettings(models=("qwen",), **settings) if settings else SETTINGS
    async with SimulatedModelServer(chosen) as server, connect(server.port) as connection:
        connection.send(method, path, sent, headers)
        return await connection.answer(is_head=method == "HEAD")


def assert_same_head(answer: Answer, recorded: Answer) -> None:
    """Status and the names of the headers in their order; our answers carry no x-request-id, an option of vLLM's."""
    names = [name for name, _ in recorded.headers if name != b"x-request-id"]
    assert answer.status_line == recorded.status_line
    assert [name for name, _ in answer.headers] == names
    assert answer.header(b"content-type") == recorded.header(b"content-type")
    assert answer.header(b"vary") == recorded.header(b"vary")


CHAT_PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("name", "path", "sent"),
    [
        pytest.param("chat-nonstream", CHAT_PATH, body(CHAT), id="chat"),
        pytest.param("err-missing-model", CHAT_PATH, body(messages=HELLO), id="chat-no-model"),
        pytest.param("err-empty-model", CHAT_PATH, body(CHAT, model=""), id="chat-empty-model"),
        pytest.param("err-null-model", CHAT_PATH, body(CHAT, model=None), id="chat-null-model"),
        pytest.param("err-unknown-field", CHAT_PATH, body(CHAT, surprise=[1]), id="chat-unknown-field"),
        pytest.param("wire-utf16", CHAT_PATH, body(CHAT).decode().encode("utf-16"), id="chat-utf16"),
        pytest.param("wire-utf8-bom", CHAT_PATH, b"\xef\xbb\xbf" + body(CHAT), id="chat-bom"),
        pytest.param(
            "wire-dup-model-last-valid", CHAT_PATH, b'{"model":"nope",' + body(CHAT)[1:], id="chat-model-twice"
        ),
        pytest.param("wire-model-key-case", CHAT_PATH, b'{"Model":"nope",' + body(CHAT)[1:], id="chat-model-key-case"),
        pytest.param("completions-nonstream", "/v1/completions", body(TEXT), id="completions"),
        pytest.param(
            "err-missing-model-completions", "/v1/completions", body(prompt="Hello"), id="completions-no-model"
        ),
        pytest.param("responses-nonstream", "/v1/responses", body(RESPONSE), id="responses"),
        pytest.param(
            "err-responses-missing-model",
            "/v1/responses",
            body(input="Hello", max_output_tokens=2),
            id="responses-no-model",
        ),
        pytest.param("messages-nonstream", "/v1/messages", body(CHAT), id="messages"),
        pytest.param(
            "messages-count_tokens", "/v1/messages/count_tokens", body(model="qwen", messages=HELLO), id="count-tokens"
        ),
        pytest.param("tokenize", "/tokenize", body(model="qwen", prompt="Hello, world"), id="tokenize"),
        pytest.param("tokenize-chat", "/tokenize", body(messages=HELLO, return_token_strs=True), id="tokenize-chat"),
        pytest.param("detokenize", "/detokenize", body(model="qwen", tokens=[1, 2, 3]), id="detokenize"),
    ],
)
async def test_a_whole_answer_has_the_recorded_shape(name: str, path: str, sent: bytes) -> None:
    recorded = recording(name)
    answer = await ask("POST", path, sent)
    assert_same_head(answer, recorded)
    found, expected = answer.json(), recorded.json()
    if "choices" in expected:  # how the answer ends: ours without a limit ends by itself
        assert {choice["finish_reason"] for choice in found["choices"]} <= {"stop", "length"}
    assert list(found) == list(expected)
    assert shape_of(found) == shape_of(expected)


@pytest.mark.parametrize(
    ("name", "path", "sent"),
    [
        pytest.param("chat-stream", CHAT_PATH, body(CHAT, stream=True), id="chat"),
        pytest.param("err-stream-string", CHAT_PATH, body(CHAT, stream="true"), id="chat-stream-as-string"),
        pytest.param(
            "chat-stream-usage",
            CHAT_PATH,
            body(CHAT, stream=True, stream_options={"include_usage": True}),
            id="chat-usage",
        ),
        pytest.param(
            "chat-stream-usage-continuous",
            CHAT_PATH,
            body(CHAT, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
            id="chat-usage-on-every-event",
        ),
        pytest.param("chat-stream-n2", CHAT_PATH, body(CHAT, stream=True, n=2), id="chat-two-choices"),
        pytest.param("completions-stream", "/v1/completions", body(TEXT, stream=True), id="completions"),
        pytest.param(
            "completions-stream-usage",
            "/v1/completions",
            body(TEXT, stream=True, stream_options={"include_usage": True}),
            id="completions-usage",
        ),
        pytest.param("responses-stream", "/v1/responses", body(RESPONSE, stream=True), id="responses"),
        pytest.param("messages-stream", "/v1/messages", body(CHAT, stream=True), id="messages"),
    ],
)
async def test_a_stream_has_the_recorded_events(name: str, path: str, sent: bytes) -> None:
    recorded = recording(name)
    answer = await ask("POST", path, sent)
    assert_same_head(answer, recorded)
    assert _kinds(answer) == _kinds(recorded)
    assert all(chunk.endswith(b"\n\n") and chunk.count(b"\n\n") == 1 for chunk in answer.chunks)


def _kinds(answer: Answer) -> list[Any]:
    """The shapes of the events in order, repetitions once: how many tokens there are is another question."""
    kinds: list[Any] = []
    for name, data in answer.events():
        kind = (name, shape_of(data) if isinstance(data, dict) else data)
        if kinds[-1:] != [kind]:
            kinds.append(kind)
    if "choices" in str(kinds[-2]):  # two choices alternate at the end of a stream with n=2
        kinds = [kind for index, kind in enumerate(kinds) if kind not in kinds[:index]]
    return kinds


def to_model(name: str, part: dict[str, Any]) -> bytes:
    return body(part, model=name)


@pytest.mark.parametrize(
    ("name", "path", "sent"),
    [
        pytest.param("err-unknown-model", CHAT_PATH, to_model("nope", CHAT), id="unknown-model"),
        pytest.param("err-model-case", CHAT_PATH, to_model("QWEN", CHAT), id="model-case"),
        pytest.param("wire-dup-model-last-invalid", CHAT_PATH, body(CHAT)[:-1] + b',"model":"nope"}', id="model-twice"),
        pytest.param("wire-model-key-escaped", CHAT_PATH, b'{"m\\u006fdel":"nope","messages":[]}', id="key-escaped"),
        pytest.param("err-unknown-model-stream", CHAT_PATH, body(CHAT, model="nope", stream=True), id="stream"),
        pytest.param("err-unknown-model-completions", "/v1/completions", to_model("nope", TEXT), id="completions"),
        pytest.param("err-unknown-model-messages", "/v1/messages", to_model("nope", CHAT), id="messages-model"),
        pytest.param("err-unknown-model-responses", "/v1/responses", to_model("nope", RESPONSE), id="responses-model"),
        pytest.param("err-unknown-model-tokenize", "/tokenize", to_model("nope", TEXT), id="tokenize-model"),
        pytest.param("err-number-model", CHAT_PATH, body(CHAT, model=7), id="model-is-a-number"),
        pytest.param("err-empty-body", CHAT_PATH, b"", id="empty-body"),
        pytest.param("err-empty-object", CHAT_PATH, b"{}", id="empty-object"),
        pytest.param("err-json-array", CHAT_PATH, b"[]", id="array"),
        pytest.param("err-missing-messages", CHAT_PATH, body(model="qwen"), id="no-messages"),
        pytest.param(
            "err-messages-missing-max-tokens", "/v1/messages", body(model="qwen", messages=HELLO), id="no-max-tokens"
        ),
        pytest.param("err-messages-missing-model", "/v1/messages", body(messages=HELLO, max_tokens=4), id="no-model"),
        pytest.param("err-max-tokens-negative", CHAT_PATH, body(CHAT, max_tokens=-1), id="max-tokens-negative"),
        pytest.param("err-max-tokens-too-large", CHAT_PATH, body(CHAT, max_tokens=100000), id="max-tokens-too-large"),
        pytest.param(
            "err-too-long-context", CHAT_PATH, body(CHAT, messages=[{"role": "user", "content": LONG}]), id="too-long"
        ),
        pytest.param(
            "err-too-long-context-stream",
            CHAT_PATH,
            body(CHAT, messages=[{"role": "user", "content": LONG}], stream=True),
            id="too-long-stream",
        ),
        pytest.param(
            "err-too-long-context-completions", "/v1/completions", body(TEXT, prompt=LONG), id="too-long-completions"
        ),
        pytest.param(
            "err-too-long-context-messages",
            "/v1/messages",
            body(CHAT, messages=[{"role": "user", "content": LONG}]),
            id="too-long-messages",
        ),
        pytest.param(
            "err-stream-options-without-stream",
            CHAT_PATH,
            body(CHAT, stream_options={"include_usage": True}),
            id="stream-options-without-stream",
        ),
        pytest.param("wire-nan", CHAT_PATH, body(CHAT)[:-1] + b',"temperature":NaN}', id="nan"),
        pytest.param("wire-invalid-utf8", CHAT_PATH, body(CHAT)[:-1] + b',"user":"\xff"}', id="invalid-utf8"),
        pytest.param("wire-gzip-request-body", CHAT_PATH, b"\x1f\x8b\x08\x00\x00\x00\x00\x00", id="gzip"),
        pytest.param("wire-deep-nesting", CHAT_PATH, body(CHAT)[:-1] + b',"x":' + DEEP + b"}", id="deep"),
        pytest.param(
            "wire-lone-surrogate",
            CHAT_PATH,
            b'\xef\xbb\xbf{"messages":[{"role":"user","content":"\\ud800"}]}',
            id="lone-surrogate-in-a-body-that-is-read-twice",
        ),
    ],
)
async def test_a_refused_request_gets_the_recorded_answer(name: str, path: str, sent: bytes) -> None:
    recorded = recording(name)
    answer = await ask("POST", path, sent)
    assert_same_head(answer, recorded)
    assert answer.body == recorded.body


@pytest.mark.parametrize("name", ["err-malformed-json", "err-malformed-json-messages", "wire-trailing-garbage"])
async def test_malformed_json_is_reported_as_recorded(name: str) -> None:
    recorded = recording(name)
    sent = body(CHAT) + b" trailing" if name == "wire-trailing-garbage" else b'{"model":"qwen","messages":[{"role"}]}'
    answer = await ask("POST", "/v1/messages" if name.endswith("messages") else CHAT_PATH, sent)
    assert_same_head(answer, recorded)
    assert shape_of(answer.json()) == shape_of(recorded.json())
    message, expected = (found.json()["error"]["message"] for found in (answer, recorded))
    assert message.partition("'loc'")[0] == expected.partition("'loc'")[0]
    assert message.partition("'msg'")[2] == expected.partition("'msg'")[2]


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        pytest.param("err-no-ct", {}, id="none"),
        pytest.param("err-wrong-ct-text", {"content-type": "text/plain"}, id="text"),
        pytest.param("err-wrong-ct-form", {"content-type": "application/x-www-form-urlencoded"}, id="form"),
        pytest.param("err-ct-suffix-json", {"content-type": "application/vnd.x+json"}, id="suffix"),
    ],
)
async def test_another_content_type_is_refused_as_recorded(name: str, headers: dict[str, str]) -> None:
    answer = await ask("POST", CHAT_PATH, body(CHAT), headers)
    assert_same_head(answer, recording(name))
    assert answer.body == recording(name).body


async def test_a_charset_behind_the_content_type_is_fine() -> None:
    answer = await ask("POST", CHAT_PATH, body(CHAT), {"content-type": "application/json; charset=utf-8"})
    assert_same_head(answer, recording("err-ct-charset"))


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        pytest.param("err-unknown-path", "POST", "/v1/nothing", id="unknown-path"),
        pytest.param("err-double-slash", "POST", "//v1/chat/completions", id="double-slash"),
        pytest.param("err-wrong-method-get", "GET", CHAT_PATH, id="get"),
        pytest.param("err-wrong-method-put", "PUT", CHAT_PATH, id="put"),
        pytest.param("err-options-chat", "OPTIONS", CHAT_PATH, id="options"),
        pytest.param("err-head-models", "HEAD", "/v1/models", id="head"),
        pytest.param("err-trailing-slash", "POST", CHAT_PATH + "/", id="trailing-slash"),
        pytest.param("err-responses-retrieve-unknown", "GET", "/v1/responses/resp_nope", id="stored-response"),
        pytest.param("get-health", "GET", "/health", id="health"),
        pytest.param("get-ping", "GET", "/ping", id="ping"),
        pytest.param("get-version", "GET", "/version", id="version"),
        pytest.param("get-load", "GET", "/load", id="load"),
    ],
)
async def test_paths_and_methods_are_answered_to_the_letter(name: str, method: str, path: str) -> None:
    recorded = recording(name)
    answer = await ask(method, path)
    assert_same_head(answer, recorded)
    assert answer.body == recorded.body
    for header in (b"allow", b"location", b"content-length"):
        assert answer.header(header) == recorded.header(header)


async def test_the_models_are_listed_as_recorded() -> None:
    answer = await ask("GET", "/v1/models")
    assert_same_head(answer, recording("get-v1-models"))
    assert shape_of(answer.json()) == shape_of(recording("get-v1-models").json())


@pytest.mark.parametrize("name", ["err-overloaded-503", "err-overloaded-503-stream"])
async def test_a_full_queue_refuses_as_recorded(name: str) -> None:
    sent = body(CHAT, stream=name.endswith("stream"))
    answer = await ask("POST", CHAT_PATH, sent, max_num_queued_reqs=0)
    assert_same_head(answer, recording(name))
    assert answer.body == recording(name).body


@pytest.mark.parametrize("stream", [False, True])
async def test_fail_rate_answers_with_the_recorded_death_of_the_engine(stream: bool) -> None:
    answer = await ask("POST", CHAT_PATH, body(CHAT, stream=stream), fail_rate=1.0)
    assert_same_head(answer, recording("engine-death-nonstream"))
    assert answer.body == recording("engine-death-nonstream").body


@pytest.mark.parametrize(
    ("name", "given"),
    [("wire-x-request-id", "my-req-123"), ("wire-x-request-id-weird", 'a/b c"<>;,')],
)
async def test_x_request_id_becomes_the_id_of_the_answer(name: str, given: str) -> None:
    answer = await ask("POST", CHAT_PATH, body(CHAT), {**JSON, "x-request-id": given})
    assert answer.json()["id"] == recording(name).json()["id"]


async def test_of_two_request_ids_the_first_counts() -> None:
    async with SimulatedModelServer(SETTINGS) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, body(CHAT), {**JSON, "x-request-id": "a\r\nx-request-id: b"})
        answer = await connection.answer()
    assert answer.json()["id"] == recording("wire-x-request-id-dup").json()["id"]
