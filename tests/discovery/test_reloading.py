"""Reading and compiling 10,000 models leaves running streams room; what was served goes without a trace."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from discovery.changes import describe_change_in_slices
from discovery.load import Loader, load
from discovery.slices import Steps, collector_paused, run_in_slices
from tests.discovery.loading import LoadText, ask
from tests.support.cycles import no_cycles

MODELS = 10_000
RULES = 10  # of a route

BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
"""
RULE = """\
  - matches: [{headers: [{name: x-gateway-model-name, value: org/model-%d}]}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b, weight: %d}]
"""
ROUTE = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r%d}
spec:
  rules:
"""


def manifests(models: int, weight: int, rules: int = RULES) -> str:
    routes = (
        ROUTE % first + "".join(RULE % (number, weight) for number in range(first, first + rules))
        for first in range(0, models, rules)
    )
    return BACKEND + "".join(routes)


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """How long each turn of a task that is always due had to wait, in seconds."""
    waits: list[float] = []
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        last = loop.time()
        while True:
            await asyncio.sleep(0.002)
            now = loop.time()
            waits.append(now - last - 0.002)
            last = now

    task = asyncio.create_task(tick())
    try:
        yield waits
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.anyio
async def test_ten_thousand_models_do_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(manifests(MODELS, weight=1), "utf-8")
    loader = Loader([file])
    async with aclosing(loader.watch()) as changes, ticking() as waits:
        first = await (await anext(changes)).compile_in_slices()
        file.write_text(manifests(MODELS, weight=2), "utf-8")
        loaded = await anext(changes)
        second = await loaded.compile_in_slices(previous=first)
        assert await describe_change_in_slices(first, second) == f"{MODELS} rules changed"
        assert second.membership is first.membership
        loader.reread()
        loaded = await anext(changes)
        third = await loaded.compile_in_slices(previous=second)
        assert third.routing is second.routing
    assert ask(second.routing, model=f"org/model-{MODELS - 1}") is not None
    # A machine that others use holds up the ticks, too. So it is the time lost in gaps above 50 ms that is looked at:
    # without slices it is seconds at a stretch. `make bench-configuration` shows the gaps themselves.
    assert sum(wait for wait in waits if wait > 0.05) < 0.05 * sum(wait + 0.002 for wait in waits)


@pytest.mark.anyio
async def test_slices_end_when_their_time_is_over_and_the_result_is_the_generator_s() -> None:
    now = 0.0
    turns: list[float] = []

    def steps() -> Steps[str]:
        nonlocal now
        for _ in range(10):
            now += 0.004
            yield
        return "done"

    async def other() -> None:
        while True:
            turns.append(now)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await run_in_slices(steps(), slice_seconds=0.01, clock=lambda: now) == "done"
    task.cancel()
    assert turns == pytest.approx([0.012, 0.024, 0.036])


def test_what_was_served_leaves_no_reference_cycles(load_text: LoadText) -> None:
    load_text(manifests(20, weight=1)).compile()  # what is made once is made
    with no_cycles():
        loaded = load_text(manifests(20, weight=1))
        compiled = loaded.compile()
        del compiled, loaded


@pytest.mark.parametrize("start", [pytest.param(gc.enable, id="on"), pytest.param(gc.disable, id="off")])
def test_the_garbage_collector_is_left_as_it_was(start: Callable[[], None]) -> None:
    was_enabled = gc.isenabled()
    try:
        start()
        before = gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert gc.isenabled() is before
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_progress_is_told_over_a_thousand_objects(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    backends = "".join("---\n" + BACKEND.replace("{name: b}", f"{{name: b{number}}}") for number in range(499))
    file.write_text(manifests(1_500, weight=1, rules=3) + backends, "utf-8")
    told: list[tuple[int, int]] = []
    compiled = load([file], progress=lambda done, total: told.append((done, total))).compile()
    assert len(compiled.routing.rules) == 1_500
    assert told[0] == (0, 1_000)
    assert told[-1] == (1_000, 1_000)
    assert told == sorted(told)
