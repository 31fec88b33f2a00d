"""Tasks that end with their owner."""

from __future__ import annotations

import asyncio

import pytest

from discovery.tasks import end

pytestmark = pytest.mark.anyio


async def test_all_have_ended_and_released_what_they_held() -> None:
    released: list[int] = []

    async def holding(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            released.append(number)

    tasks = [asyncio.create_task(holding(number)) for number in range(2)]
    await asyncio.sleep(0)
    await end(*tasks, None)
    assert released == [0, 1]


async def test_what_one_has_failed_with_is_not_lost_and_the_others_have_ended() -> None:
    async def failing() -> None:
        raise ValueError("a defect")

    tasks = [asyncio.create_task(failing()), asyncio.create_task(asyncio.Event().wait())]
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="a defect"):
        await end(*tasks)
    assert all(task.done() for task in tasks)
