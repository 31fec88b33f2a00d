"""When do the bytes of an answer come, and what ends it early?"""

import asyncio
import socket
import struct
from typing import Any

import orjson
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.app.simulator.wire import connect, recording, request_bytes

pytestmark = pytest.mark.anyio

CHAT_PATH = "/v1/chat/completions"
AGES = 1000.0  # seconds nobody waits for


def settings(**more: Any) -> SimulatorSettings:
    return SimulatorSettings(models=("qwen",), name="qwen-0", **more)


def chat(**more: Any) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, **more})


ENDPOINTS = [
    pytest.param(CHAT_PATH, chat(), id="chat"),
    pytest.param("/v1/completions", b'{"prompt":"Hello","max_tokens":4}', id="completions"),
    pytest.param("/v1/responses", b'{"input":"Hello","max_output_tokens":4}', id="responses"),
    pytest.param("/v1/messages", chat(model="qwen"), id="messages"),
]


def streamed(body: bytes) -> bytes:
    return orjson.dumps({**orjson.loads(body), "stream": True})


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
async def test_the_head_of_a_stream_comes_at_once_and_nothing_else_while_it_waits(path: str, body: bytes) -> None:
    async with SimulatedModelServer(settings(ttft_seconds=AGES, max_num_seqs=1)) as server:
        async with connect(server.port) as running, connect(server.port) as waiting:
            for connection in (running, waiting):
                connection.send("POST", path, streamed(body))
                assert (await connection.head()).status == 200
            assert (server.engine.running, server.engine.waiting) == (1, 1)
            pending = asyncio.create_task(waiting.reader.read(1))
            # Anything that was going to be sent is sent by the time a whole other request is answered.
            async with connect(server.port) as other:
                other.send("GET", "/health")
                await other.answer()
            assert not pending.done()
            pending.cancel()


async def test_tokens_come_one_by_one_each_in_a_chunk_of_its_own() -> None:
    async with SimulatedModelServer(settings(ttft_seconds=0.01, itl_seconds=0.02)) as server:
        async with connect(server.port) as connection:
            started = asyncio.get_running_loop().time()
            connection.send("POST", CHAT_PATH, chat(stream=True))
            await connection.head()
            chunks, times = [], []
            while chunk := await connection.chunk():
                chunks.append(chunk)
                times.append(asyncio.get_running_loop().time() - started)
    # role, four tokens, [DONE]
    assert len(chunks) == 6
    assert chunks[-1] == b"data: [DONE]\n\n"
    assert [moment >= due for moment, due in zip(times[1:5], (0.009, 0.029, 0.049, 0.069), strict=True)] == [True] * 4


async def test_without_delays_every_event_is_still_a_chunk() -> None:
    async with SimulatedModelServer(settings(output_tokens=64)) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, orjson.dumps({"messages": [], "stream": True}))
        answer = await connection.answer()
    assert len(answer.chunks) == 66
    assert answer.events()[-2][1]["choices"][0]["finish_reason"] == "stop"


async def test_streamed_and_whole_answers_say_the_same_and_name_the_pod() -> None:
    async with SimulatedModelServer(settings()) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, chat(max_tokens=40))
        whole = (await connection.answer()).json()
        connection.send("POST", CHAT_PATH, chat(max_tokens=40, stream=True))
        events = [data for _, data in (await connection.answer()).events() if isinstance(data, dict)]
    text = whole["choices"][0]["message"]["content"]
    assert text.startswith("qwen-0 here, answering as qwen. The points are set")
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == text
    assert whole["system_fingerprint"] == events[-1]["system_fingerprint"] == "vllm-0.32.0-qwen-0"
    assert whole["usage"]["completion_tokens"] == 40


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_frees_its_slot(path: str, body: bytes, way: str, stream: bool) -> None:
    async with SimulatedModelServer(settings(ttft_seconds=AGES, max_num_seqs=1)) as server:
        async with connect(server.port) as running, connect(server.port) as waiting:
            for connection in (running, waiting):
                connection.send("POST", path, streamed(body) if stream else body)
                await server.engine.until(lambda e: e.running == 1)
            await server.engine.until(lambda e: e.waiting == 1)
            async with asyncio.timeout(1):  # 50 ms where nobody else has the processor
                _leave(waiting.writer, way)
                await server.engine.until(lambda e: (e.running, e.waiting) == (1, 0))
                _leave(running.writer, way)
                await server.engine.until(lambda e: e.running == 0)
    assert (server.engine.completed, server.engine.aborted) == (0, 2)


def _leave(writer: asyncio.StreamWriter, way: str) -> None:
    match way:
        case "close":
            writer.close()
        case "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        case "half-close":
            writer.write_eof()


@pytest.mark.parametrize(("name", "stream"), [("wire-half-close", False), ("wire-half-close-stream", True)])
async def test_after_a_half_close_comes_what_was_recorded(name: str, stream: bool) -> None:
    async with SimulatedModelServer(settings(ttft_seconds=AGES)) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, chat(stream=stream))
        await server.engine.until(lambda e: e.running == 1)
        if stream:
            head = await connection.head()
            assert [key for key, _ in head.headers] == [key for key, _ in recording(name).headers]
        connection.writer.write_eof()
        assert await connection.reader.read() == b""


async def test_a_client_that_leaves_mid_stream_stops_the_generation() -> None:
    async with SimulatedModelServer(settings(itl_seconds=0.005)) as server:
        async with connect(server.port) as connection:
            connection.send("POST", CHAT_PATH, chat(stream=True, max_tokens=100_000))
            await connection.head()
            for _ in range(5):
                await connection.chunk()
        async with asyncio.timeout(1):
            await server.engine.until(lambda e: e.running == 0)
        generated = server.engine.statistics.generation_tokens
    assert server.engine.aborted == 1
    assert 4 <= generated < 10_000


async def test_a_reader_that_stalls_does_not_hold_its_slot() -> None:
    async with SimulatedModelServer(settings(ttft_seconds=0.01, max_num_seqs=1)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            request = request_bytes("POST", CHAT_PATH, chat(stream=True, max_tokens=100_000))
            await asyncio.get_running_loop().sock_sendall(stalled, request)
            await server.engine.until(lambda e: e.completed == 1)
            assert server.engine.running == 0


async def test_an_engine_that_dies_ends_its_streams_as_recorded() -> None:
    async with SimulatedModelServer(settings(itl_seconds=AGES)) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, chat(stream=True))
        await connection.head()
        await connection.chunk()
        first = await connection.chunk()
        server.engine.die()
        rest = [await connection.chunk() for _ in range(3)]
    assert b'"content":"qwen-0"' in first
    assert rest == [
        b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
        b'"type": "InternalServerError", "param": null, "code": 500}}\n\n',
        b"data: [DONE]\n\n",
        b"",
    ]


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        pytest.param("/v1/messages", chat(model="qwen", stream=True), "error", id="messages"),
        pytest.param("/v1/responses", b'{"input":"x","stream":true}', None, id="responses"),
        pytest.param("/v1/completions", b'{"prompt":"x","stream":true}', None, id="completions"),
    ],
)
async def test_an_engine_that_dies_ends_every_kind_of_stream(path: str, body: bytes, last: str | None) -> None:
    async with SimulatedModelServer(settings(ttft_seconds=AGES)) as server, connect(server.port) as connection:
        connection.send("POST", path, body)
        await server.engine.until(lambda e: e.running == 1)
        server.engine.die()
        name, data = (await connection.answer()).events()[0]
    assert name == last
    assert data["error"]["type"] == "InternalServerError"


async def test_an_engine_that_dies_fails_whole_answers_with_500() -> None:
    async with SimulatedModelServer(settings(ttft_seconds=AGES)) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, chat())
        await server.engine.until(lambda e: e.running == 1)
        server.engine.die()
        answer = await connection.answer()
    assert (answer.status, answer.body) == (500, recording("engine-death-nonstream").body)


async def test_http_1_0_gets_its_stream_chunked_and_the_connection_closed() -> None:
    async with SimulatedModelServer(settings()) as server, connect(server.port) as connection:
        connection.writer.write(
            request_bytes("POST", CHAT_PATH, chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        )
        answer = await connection.answer()
        assert await connection.reader.read() == b""
    recorded = recording("wire-http10-stream")
    assert [name for name, _ in answer.headers] == [name for name, _ in recorded.headers]
    assert answer.header(b"connection") == b"close"
    assert len(answer.chunks) == len(recorded.chunks) + 1  # one token more


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with SimulatedModelServer(settings(ttft_seconds=0.01)) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, chat(stream=True))
        connection.send("GET", "/version")
        connection.send("GET", "/nothing")
        answers = [await connection.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 404]
    assert answers[1].body == b'{"version":"0.32.0"}'


async def test_an_unread_body_does_not_spoil_the_connection() -> None:
    async with SimulatedModelServer(settings()) as server, connect(server.port) as connection:
        connection.send("POST", "/v1/nothing", b"x" * 1_000_000)
        assert (await connection.answer()).status == 404
        connection.send("GET", "/version")
        assert (await connection.answer()).status == 200
    assert [request.body for request in server.requests] == [b"", b""]


async def test_a_body_in_pieces_is_read_whole() -> None:
    body = chat(stream=False, messages=[{"role": "user", "content": "ä" * 500_000}])
    async with SimulatedModelServer(settings()) as server, connect(server.port) as connection:
        connection.send("POST", CHAT_PATH, body)
        answer = await connection.answer()
    assert server.requests[-1].body == body
    assert answer.json()["usage"]["prompt_tokens"] == -(
        -len(b'[{"role":"user","content":"%b"}]' % ("ä" * 500_000).encode()) // 4
    )


async def test_a_client_that_leaves_while_sending_its_body_leaves_no_trace() -> None:
    async with SimulatedModelServer(settings()) as server:
        async with connect(server.port) as connection:
            connection.writer.write(request_bytes("POST", CHAT_PATH, chat())[:-5])
            await connection.writer.drain()
        async with connect(server.port) as connection:
            connection.send("GET", "/load")
            assert (await connection.answer()).body == b'{"server_load":0}'
    assert (server.engine.completed, server.engine.aborted) == (0, 0)
