"""Does the simulated KV cache share, keep and evict blocks as vLLM's does?"""

from __future__ import annotations

import asyncio

import orjson
import pytest

from app.simulator.adapters import Adapters
from app.simulator.engine import Engine
from app.simulator.generation import Generation
from app.simulator.kv_cache import Holding, KvCacheBlocks, hash_blocks
from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from discovery.model_servers.exposition import Page
from discovery.model_servers.vllm import read_vllm
from tests.app.simulator.wire import connect

pytestmark = pytest.mark.anyio

A = [1, 2, 3]
B = [1, 2, 9]


def hold(cache: KvCacheBlocks, hashes: list[int], blocks: int = 4, *, now: float = 0.0) -> Holding:
    holding = cache.hold(hashes, blocks=blocks, now=now)
    assert holding is not None
    cache.computed(holding, at=now)
    return holding


async def test_what_begins_alike_is_shared() -> None:
    cache = KvCacheBlocks(blocks=10)
    first = hold(cache, A)
    assert (first.cached_blocks, cache.usage) == (0, 0.4)
    second = hold(cache, B)
    assert (second.cached_blocks, cache.usage) == (2, 0.6)
    cache.release(first, now=0.0)
    assert cache.usage == 0.4
    cache.release(second, now=0.0)
    assert cache.usage == 0
    assert cache.cached(A, now=0.0) == 3


async def test_a_block_is_of_use_once_it_is_computed() -> None:
    cache = KvCacheBlocks(blocks=10)
    first = cache.hold(A, blocks=4, now=0.0)
    assert first is not None
    cache.computed(first, at=5.0)
    assert cache.cached(A, now=4.9) == 0
    assert cache.cached(A, now=5.0) == 3


async def test_what_was_aborted_before_it_was_computed_is_not_cached() -> None:
    cache = KvCacheBlocks(blocks=10)
    first = cache.hold(A, blocks=4, now=0.0)
    assert first is not None
    cache.computed(first, at=5.0)
    cache.release(first, now=1.0)
    assert cache.cached(A, now=10.0) == 0


async def test_what_was_used_longest_ago_makes_room_and_its_end_goes_first() -> None:
    cache = KvCacheBlocks(blocks=8)
    for hashes in (A, [11, 12, 13]):
        cache.release(hold(cache, hashes), now=0.0)
    hold(cache, [21, 22, 23], blocks=4)
    assert cache.cached(A, now=0.0) == 1
    assert cache.cached([11, 12, 13], now=0.0) == 3


async def test_a_request_waits_for_room_unless_nothing_else_runs() -> None:
    cache = KvCacheBlocks(blocks=6)
    first = hold(cache, A)
    assert cache.hold([11, 12, 13], blocks=4, now=0.0) is None
    assert hold(cache, A, blocks=4).cached_blocks == 3  # what it shares needs no room
    cache.release(first, now=0.0)
    alone = KvCacheBlocks(blocks=2)
    hold(alone, A, blocks=9)
    assert alone.usage == 1.0


async def test_whole_blocks_are_hashed_and_adapters_kept_apart() -> None:
    assert len(hash_blocks(b"x" * 33, seed="", block_size=4)) == 2
    assert hash_blocks(b"x" * 16, seed="a", block_size=4) != hash_blocks(b"x" * 16, seed="b", block_size=4)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def submit(engine: Engine, text: bytes, adapter: str | None = None) -> Generation:
    tokens = max(1, len(text) // 4)
    return engine.submit(prompt_tokens=tokens, output_tokens=8, finish_reason="stop", prompt=text, adapter=adapter)


def settings(**more: object) -> SimulatorSettings:
    given: dict[str, object] = {"prefill_tokens_per_second": 10.0, "block_size": 4, "num_gpu_blocks": 101, **more}
    return SimulatorSettings(models=("m",), itl_seconds=1.0, prefix_caching=True, **given)  # type: ignore[arg-type]


async def test_a_cached_prompt_has_its_first_token_sooner_and_prompts_are_computed_in_turn() -> None:
    clock = Clock()
    engine = Engine(settings(), clock=clock)
    with submit(engine, b"a" * 160) as first, submit(engine, b"b" * 160) as second:
        assert (first.first_token_seconds, second.first_token_seconds) == (4.0, 8.0)
        clock.now += 8.0
        with submit(engine, b"a" * 160) as third, submit(engine, b"a" * 160 + b"c" * 80) as fourth:
            assert third.first_token_seconds == pytest.approx(0.4)  # the last block is always computed
            assert fourth.first_token_seconds == pytest.approx(0.4 + 2.0)
    assert (engine.statistics.prefix_queries, engine.statistics.prefix_hits) == (40 + 40 + 40 + 60, 36 + 40)
    assert engine.kv_cache_usage() == 0


async def test_requests_wait_for_blocks() -> None:
    engine = Engine(settings(num_gpu_blocks=21))
    first = submit(engine, b"a" * 200)
    second = submit(engine, b"b" * 200)
    assert (engine.running, engine.waiting) == (1, 1)
    assert engine.kv_cache_usage() == 15 / 20
    engine.abort(first)
    assert (engine.running, engine.waiting) == (1, 0)
    engine.abort(second)


async def test_adapters_beyond_the_limit_wait_and_loading_takes_time() -> None:
    clock = Clock()
    loading = settings(adapters=("a", "b"), max_loras=1, lora_load_seconds=2.0, prefill_tokens_per_second=0.0)
    engine = Engine(loading, clock=clock)
    first, second = submit(engine, b"", "a"), submit(engine, b"", "b")
    assert (engine.running, engine.waiting) == (1, 1)
    assert first.first_token_seconds == 2.0
    engine.abort(first)
    assert (engine.running, engine.waiting) == (1, 0)
    engine.abort(second)
    third = submit(engine, b"", "b")
    assert third.first_token_seconds == 0.0
    engine.abort(third)


async def test_the_series_of_adapters_are_those_of_the_recordings() -> None:
    clock = Clock()
    adapters = Adapters(limit=2, clock=clock)
    assert adapters.series([], is_started=False) == {}
    assert adapters.series([], is_started=True) == {"": 100.0}
    adapters.begin("b")
    clock.now = 101.0
    assert adapters.series(["a"], is_started=True) == {"": 100.0, "b,a": 101.0}
    adapters.end("b")
    clock.now = 102.0
    assert adapters.series([], is_started=True) == {"": 102.0, "b,a": 101.0}


async def test_an_adapter_is_served_listed_and_told_in_the_metrics() -> None:
    chosen = SimulatorSettings(models=("base",), adapters=("tenant",), max_loras=2, ttft_seconds=1000)
    async with SimulatedModelServer(chosen) as server, connect(server.port) as one, connect(server.port) as other:
        one.send("GET", "/v1/models")
        cards = {card["id"]: card for card in orjson.loads((await one.answer()).body)["data"]}
        assert (cards["tenant"]["parent"], cards["tenant"]["max_model_len"]) == ("base", None)
        body = orjson.dumps({"model": "tenant", "messages": [], "stream": True})
        other.send("POST", "/v1/chat/completions", body)
        await other.head()
        one.send("GET", "/metrics")
        read = read_vllm(Page((await one.answer()).body))
        assert read.adapters is not None
        assert (set(read.adapters.running), read.adapters.limit) == ({"tenant"}, 2)


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": [], "max_tokens": 3}),
    ],
)
async def test_answers_name_the_adapter(path: str, prompt: dict[str, object]) -> None:
    chosen = SimulatorSettings(models=("base",), adapters=("tenant",))
    async with SimulatedModelServer(chosen) as server, connect(server.port) as connection:
        for name in ("tenant", "base"):
            connection.send("POST", path, orjson.dumps({"model": name, **prompt}))
            async with asyncio.timeout(5):
                answer = await connection.answer()
            assert orjson.loads(answer.body)["model"] == name
