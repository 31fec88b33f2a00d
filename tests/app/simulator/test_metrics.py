"""Does /metrics tell the truth, in the words of the recording?"""

import asyncio

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.app.simulator.wire import RECORDINGS, Answer, Connection, connect

pytestmark = pytest.mark.anyio

CHAT = orjson.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": True})
LABELS = {"engine": "0", "model_name": "qwen"}


async def scrape(connection: Connection) -> Answer:
    connection.send("GET", "/metrics")
    return await connection.answer()


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of that name whose labels include these."""
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return float(found)


async def test_a_scrape_shows_what_runs_and_what_waits() -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=1000, max_num_seqs=1, block_size=4, num_gpu_blocks=101)
    async with SimulatedModelServer(settings) as server, connect(server.port) as scraper:
        async with connect(server.port) as running, connect(server.port) as waiting:
            for connection in (running, waiting):
                connection.send("POST", "/v1/chat/completions", CHAT)
                await connection.head()
            answer = await scrape(scraper)
            text = answer.body.decode()
            assert answer.header(b"content-type") == b"text/plain; version=1.0.0; charset=utf-8"
            assert 'vllm:num_requests_running{engine="0",model_name="qwen"} 1.0\n' in text
            assert 'vllm:num_requests_waiting{engine="0",model_name="qwen"} 1.0\n' in text
            assert value(text, "vllm:num_requests_waiting_by_reason", reason="capacity") == 1
            # '[{"role":"user","content":"Hello"}]' is 35 bytes, 9 tokens, 3 blocks of 4
            assert value(text, "vllm:kv_cache_usage_perc", **LABELS) == 3 / 100
        await server.engine.until(lambda e: e.running == 0)
        text = (await scrape(scraper)).body.decode()
        assert value(text, "vllm:num_requests_running", **LABELS) == 0
        assert value(text, "vllm:num_requests_waiting", **LABELS) == 0
        assert value(text, "vllm:kv_cache_usage_perc", **LABELS) == 0
        assert value(text, "vllm:request_success_total", finished_reason="abort") == 0


async def test_what_is_finished_is_counted() -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=0.02, max_num_queued_reqs=1)
    async with SimulatedModelServer(settings) as server, connect(server.port) as connection:
        for _ in range(3):
            connection.send("POST", "/v1/chat/completions", CHAT)
            await connection.answer()
        connection.send("POST", "/v1/chat/completions", orjson.dumps({"messages": [], "n": 2}))
        assert (await connection.answer()).status == 503
        text = (await scrape(connection)).body.decode()
    assert value(text, "vllm:request_success_total", finished_reason="length", **LABELS) == 3
    assert value(text, "vllm:prompt_tokens_total", **LABELS) == 27
    assert value(text, "vllm:generation_tokens_total", **LABELS) == 12
    assert value(text, "vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1
    assert value(text, "vllm:time_to_first_token_seconds_count", **LABELS) == 3
    assert value(text, "vllm:time_to_first_token_seconds_bucket", le="0.01") == 0
    assert value(text, "vllm:time_to_first_token_seconds_bucket", le="0.25") == 3
    assert value(text, "vllm:e2e_request_latency_seconds_count", **LABELS) == 3
    assert value(text, "vllm:e2e_request_latency_seconds_sum", **LABELS) >= 0.05


async def test_every_series_has_the_name_the_labels_and_the_type_of_the_recording() -> None:
    async with SimulatedModelServer(SimulatorSettings(models=("qwen",))) as server, connect(server.port) as connection:
        text = (await scrape(connection)).body.decode()
    recorded = (RECORDINGS / "metrics-qwen-1-under-load.txt").read_text()
    ours, theirs = _series(text), _series(recorded)
    # cache_config_info has a label for each setting of a cache; ours are some of theirs.
    (cache,) = [labels for name, _, labels in ours if name == "vllm:cache_config_info"]
    (their_cache,) = [labels for name, _, labels in theirs if name == "vllm:cache_config_info"]
    assert cache <= their_cache
    assert {series for series in ours if series[0] != "vllm:cache_config_info"} <= theirs
    # A name keeps its place: labels in alphabetical order, bounds written alike.
    assert set(text.splitlines()) & set(recorded.splitlines()) >= {
        'vllm:request_success_total{engine="0",finished_reason="stop",model_name="qwen"} 0.0',
        'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="qwen"} 0.0',
        'vllm:admission_rejections_total{model_name="qwen",reason="max_num_queued_reqs"} 0.0',
    }


def _series(text: str) -> set[tuple[str, str, frozenset[str]]]:
    return {
        (sample.name, family.type, frozenset(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_asking_for_metrics_is_not_among_the_requests_received() -> None:
    async with SimulatedModelServer(SimulatorSettings(models=("m",))) as server, connect(server.port) as connection:
        await scrape(connection)
        connection.send("POST", "/v1/chat/completions", CHAT)
        await connection.answer()
        await scrape(connection)
        assert [request.target for request in server.requests] == [b"/v1/chat/completions"]


async def test_labels_are_escaped() -> None:
    async with (
        SimulatedModelServer(SimulatorSettings(models=('a"b\\c',))) as server,
        connect(server.port) as connection,
    ):
        text = (await scrape(connection)).body.decode()
    assert value(text, "vllm:num_requests_running", model_name='a"b\\c') == 0


async def test_several_servers_of_one_process_count_for_themselves() -> None:
    one, other = SimulatorSettings(models=("one",)), SimulatorSettings(models=("other",))
    async with SimulatedModelServer(one) as first, SimulatedModelServer(other) as second:
        async with connect(first.port) as to_first, connect(second.port) as to_second:
            to_first.send("POST", "/v1/chat/completions", CHAT)
            await to_first.answer()
            pages = await asyncio.gather(scrape(to_first), scrape(to_second))
    counts = [value(page.body.decode(), "vllm:generation_tokens_total", engine="0") for page in pages]
    assert counts == [4, 0]
