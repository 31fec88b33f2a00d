"""When does an endpoint count as having a prompt, and for how long?"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from discovery.backend import PoolSettings
from discovery.model_servers.server_load import KvCache
from middleware.inference_request import read_body
from middleware.scheduling.configuration import PickerConfiguration
from middleware.scheduling.load import Load
from middleware.scheduling.plugins import PrefixSettings
from middleware.scheduling.prompt import Prompt
from middleware.scheduling.scheduler import PREFILL_SECONDS, Asked, Scheduler
from tests.middleware.scheduling.loads import load

POOL = PoolSettings()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(text: str = "x" * 2000, model: str = "m", **options: bool) -> Asked:
    one = Asked(read_body(orjson.dumps({"prompt": text}), b"application/json"), **options)
    one.model = model
    return one


def scores(scheduler: Scheduler, question: Asked, loads: Sequence[Load]) -> list[float | None]:
    return scheduler.explain("p", POOL, question, loads).scores["prefix-cache-scorer"]


def test_a_prompt_counts_once_it_is_answered() -> None:
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=Clock()), [load(), load()]
    first = asked()
    assert scheduler.pick("p", POOL, first, loads) == 0
    assert scores(scheduler, asked(), loads) == [0.0, 0.0]
    scheduler.answered(first)
    assert scores(scheduler, asked(), loads) == [1.0, 0.0]
    assert scores(scheduler, asked(model="other"), loads) == [0.0, 0.0]
    assert scores(scheduler, asked("x" * 2000 + "y" * 2000), loads)[0] == 7 / 15


def test_a_burst_of_one_cached_prompt_spreads() -> None:
    scheduler, loads = Scheduler(clock=Clock()), [load() for _ in range(4)]
    first = asked()
    scheduler.pick("p", POOL, first, loads)
    scheduler.answered(first)
    for _ in range(200):
        loads[scheduler.pick("p", POOL, asked(), loads)].begin()
    assert all(35 <= one.in_flight <= 65 for one in loads)


def test_or_when_the_endpoint_has_had_time_to_compute_it() -> None:
    clock = Clock()
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=clock), [load(), load()]
    scheduler.pick("p", POOL, asked(), loads)
    clock.now = PREFILL_SECONDS
    assert scores(scheduler, asked(), loads) == [1.0, 0.0]


def test_what_failed_does_not_count() -> None:
    clock = Clock()
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=clock), [load(), load()]
    question = asked()
    scheduler.pick("p", POOL, question, loads)
    assert scheduler.pick("p", POOL, question, loads[1:]) == 0  # tried again at the other one
    scheduler.failed(question)
    clock.now = 2 * PREFILL_SECONDS
    assert scores(scheduler, asked(), loads) == [0.0, 0.0]


def test_an_endpoint_that_is_gone_is_not_remembered() -> None:
    clock = Clock()
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=clock), [load(), load()]
    first, second = asked(), asked()
    scheduler.pick("p", POOL, first, loads)
    scheduler.answered(first)
    scheduler.pick("p", POOL, second, loads)
    loads[0].is_gone = True
    scheduler.forget_gone()
    scheduler.answered(second)
    assert scores(scheduler, asked(), loads) == [0.0, 0.0]
    assert len(scheduler.index) == 0


def test_blocks_are_those_of_the_endpoints_and_not_too_small() -> None:
    clock = Clock()
    for block_tokens, blocks in ((16, 7), (128, 3), (256, 1)):
        scheduler, loads = Scheduler(draw=lambda: 0.0, clock=clock), [load(), load()]
        loads[1].kv_cache = KvCache(block_tokens, 100)
        question = asked()
        scheduler.pick("p", POOL, question, loads)
        scheduler.answered(question)
        assert len(scheduler.index) == blocks


def test_no_more_is_remembered_than_the_endpoint_has_room_for() -> None:
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=Clock()), [load()]
    loads[0].kv_cache = KvCache(16, 20)  # 320 tokens are five of our blocks
    question = asked()
    scheduler.pick("p", POOL, question, loads)
    scheduler.answered(question)
    assert len(scheduler.index) == 5


def test_a_configuration_may_fix_the_blocks() -> None:
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=Clock()), [load()]
    settings = PrefixSettings(is_automatic=False, block_tokens=1, capacity_tokens=1000, max_blocks=10)
    scheduler.configuration = PickerConfiguration(prefix=settings)
    loads[0].kv_cache = KvCache(16, 20)
    question = asked()
    scheduler.pick("p", POOL, question, loads)
    scheduler.answered(question)
    assert len(scheduler.index) == 10


def test_by_load_alone_no_prompt_is_read() -> None:
    scheduler, loads = Scheduler(), [load(), load()]

    class Owner:
        @property
        def prompt(self) -> Prompt | None:
            raise AssertionError

    assert scheduler.pick("p", PoolSettings(by_load_alone=True), Asked(Owner()), loads) in (0, 1)


def test_an_explained_pick_keeps_its_numbers_and_a_question_leaves_nothing() -> None:
    scheduler, loads = Scheduler(draw=lambda: 0.0, clock=Clock()), [load(queue=1), load()]
    question = asked(is_explained=True)
    assert scheduler.pick("p", POOL, question, loads) == 1
    assert question.table is not None
    assert question.table.totals == [2.0, 4.0]
    other = asked()
    assert scheduler.would_pick("p", POOL, other, loads) == 1
    assert other.sent is None
