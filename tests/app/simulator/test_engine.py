"""Does the engine hand out its slots and count its tokens truly? Without HTTP, on a clock that the tests move."""

import asyncio

import pytest

from app.simulator.engine import Engine, EngineBusyError
from app.simulator.generation import EngineDeadError, Generation
from app.simulator.settings import SimulatorSettings

pytestmark = pytest.mark.anyio


class Clock:
    """Stands still until a test moves it. The engine's timers run on the event loop and never fire in these tests."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def engine_of(clock: Clock | None = None, **settings: float) -> Engine:
    chosen = {"ttft_seconds": 1000.0, "itl_seconds": 10.0} | settings
    made = SimulatorSettings(models=("qwen",), **chosen)  # type: ignore[arg-type]
    return Engine(made) if clock is None else Engine(made, clock=clock)


def submit(engine: Engine, *, tokens: int = 5, sequences: int = 1) -> Generation:
    return engine.submit(prompt_tokens=10, output_tokens=tokens, finish_reason="length", sequences=sequences)


async def test_what_does_not_fit_waits_and_starts_in_order() -> None:
    engine = engine_of(max_num_seqs=2)
    first, second, third, fourth = (submit(engine) for _ in range(4))
    assert (engine.running, engine.waiting) == (2, 2)
    engine.finish(second)
    assert (engine.running, engine.waiting) == (2, 1)
    assert third.started_at < fourth.started_at
    for generation in (first, third, fourth):
        engine.abort(generation)
    assert (engine.running, engine.waiting, engine.completed, engine.aborted) == (0, 0, 1, 3)


async def test_leaving_the_block_gives_the_slot_back_even_when_cancelled() -> None:
    engine = engine_of(max_num_seqs=1)

    async def generate() -> None:
        with submit(engine) as generation:
            await generation.complete()

    running, waiting = asyncio.create_task(generate()), asyncio.create_task(generate())
    await engine.until(lambda e: (e.running, e.waiting) == (1, 1))
    waiting.cancel()
    await engine.until(lambda e: e.waiting == 0)
    running.cancel()
    await engine.until(lambda e: e.running == 0)
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert (engine.completed, engine.aborted) == (0, 2)


async def test_without_delays_a_generation_is_over_when_it_is_submitted() -> None:
    engine = engine_of(ttft_seconds=0.0, itl_seconds=0.0)
    assert submit(engine).is_over
    assert (engine.running, engine.completed, engine.statistics.generation_tokens) == (0, 1, 5)


async def test_a_whole_queue_of_instant_requests_drains() -> None:
    engine = engine_of(ttft_seconds=0.0, max_num_seqs=1)
    long = submit(engine)
    for _ in range(2000):  # deeper than the recursion limit
        submit(engine, tokens=1)
    assert engine.waiting == 2000
    engine.abort(long)
    await engine.until(lambda e: e.completed == 2000)
    assert (engine.running, engine.waiting) == (0, 0)


async def test_tokens_are_a_function_of_the_clock() -> None:
    clock = Clock()
    engine = engine_of(clock)
    generation = submit(engine, tokens=5, sequences=2)
    seen = []
    for moment in (0, 999, 1000, 1009, 1010, 1039, 1040, 5000):
        clock.now = 100.0 + moment
        engine.settle()
        seen.append((engine.statistics.prompt_tokens, engine.statistics.generation_tokens))
    assert seen == [(0, 0), (0, 0), (10, 2), (10, 2), (10, 4), (10, 8), (10, 10), (10, 10)]
    engine.abort(generation)
    assert engine.statistics.generation_tokens == 10


async def test_tokens_of_an_aborted_request_stay_counted() -> None:
    clock = Clock()
    engine = engine_of(clock)
    with submit(engine):
        clock.now += 1010
    assert (engine.statistics.generation_tokens, engine.statistics.finished["length"]) == (2, 0)


async def test_time_to_first_token_includes_the_queue() -> None:
    clock = Clock()
    engine = engine_of(clock, max_num_seqs=1)
    first = submit(engine)
    with submit(engine):
        clock.now += 2000
        engine.finish(first)
        clock.now += 1000
        engine.settle()
        assert engine.statistics.first_token_seconds.total == 1000 + 3000
        assert engine.statistics.queue_seconds.total == 2000


async def test_kv_cache_usage_is_what_running_sequences_hold() -> None:
    clock = Clock()
    engine = engine_of(clock, block_size=4, num_gpu_blocks=101, max_num_seqs=1)
    with submit(engine), submit(engine):  # the second one waits and holds nothing
        assert engine.kv_cache_usage() == 3 / 100  # 10 prompt tokens in blocks of 4
        clock.now += 1020
        assert engine.kv_cache_usage() == 4 / 100  # and 3 generated
    assert engine.kv_cache_usage() == 0


async def test_a_request_with_n_is_n_sequences() -> None:
    engine = engine_of(max_num_seqs=3)
    with submit(engine, sequences=2), submit(engine, sequences=2):
        assert (engine.running, engine.waiting) == (2, 2)
    with submit(engine, sequences=9):  # more than there are slots: all that there are
        assert engine.running == 3


async def test_the_queue_limit_counts_running_and_waiting() -> None:
    engine = engine_of(max_num_seqs=1, max_num_queued_reqs=2)
    with submit(engine), submit(engine):
        with pytest.raises(EngineBusyError):
            submit(engine)
        assert (engine.running, engine.waiting, engine.refused) == (1, 1, 1)


async def test_fail_rate_is_a_share_of_the_requests() -> None:
    draws = iter([0.2, 0.4, 0.49, 0.5, 0.9])
    settings = SimulatorSettings(models=("qwen",), fail_rate=0.5)
    engine = Engine(settings, random=lambda: next(draws))
    outcomes = []
    for _ in range(5):
        try:
            submit(engine)
            outcomes.append("ok")
        except EngineDeadError:
            outcomes.append("dead")
    assert outcomes == ["dead", "dead", "dead", "ok", "ok"]
    assert (engine.failed, engine.completed) == (3, 2)


async def test_death_fails_what_runs_what_waits_and_what_comes() -> None:
    engine = engine_of(max_num_seqs=1)

    async def generate() -> None:
        with submit(engine) as generation:
            await generation.complete()

    tasks = [asyncio.create_task(generate()) for _ in range(2)]
    await engine.until(lambda e: (e.running, e.waiting) == (1, 1))
    engine.die()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineDeadError, EngineDeadError]
    with pytest.raises(EngineDeadError):
        submit(engine)
    assert (engine.running, engine.waiting, engine.failed, engine.aborted) == (0, 0, 3, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"models": ()}, id="no-model"),
        pytest.param({"models": ("",)}, id="empty-model"),
        pytest.param({"ttft_seconds": -1}, id="negative-time"),
        pytest.param({"fail_rate": 1.1}, id="share-above-1"),
        pytest.param({"max_num_seqs": 0}, id="no-slot"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"model|negative|share|at least"):
        SimulatorSettings(**{"models": ("qwen",)} | wrong)  # type: ignore[arg-type]
