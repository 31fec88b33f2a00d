"""When does a request have its next token?

It waits for a slot, then has its first token after what the engine says and one more every `itl_seconds`. That is a
function
of the clock alone, so nothing is counted per token, and a client that reads slowly does not hold its slot: a real
engine does not know its readers either.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from app.simulator.kv_cache import Holding
from app.simulator.settings import SimulatorSettings
from app.simulator.statistics import Statistics


class EngineDeadError(Exception):
    """The engine process is gone, or `fail_rate` says that this request is to see it so."""


class Slots(Protocol):
    """The engine, as a generation knows it."""

    settings: SimulatorSettings
    statistics: Statistics
    clock: Callable[[], float]

    def finish(self, generation: "Generation") -> None: ...

    def abort(self, generation: "Generation") -> None: ...


class Generation:
    """One request in the engine. Leaving its `with` block before it is finished aborts it."""

    __slots__ = (
        "_counted_prompt",
        "_counted_tokens",
        "_engine",
        "_has_failed",
        "_timer",
        "_waiter",
        "adapter",
        "arrived_at",
        "block_hashes",
        "finish_reason",
        "first_token_seconds",
        "holding",
        "is_over",
        "output_tokens",
        "prompt_tokens",
        "sequences",
        "slots",
        "started_at",
    )

    def __init__(
        self,
        *,
        engine: Slots,
        prompt_tokens: int,
        output_tokens: int,
        finish_reason: str,
        sequences: int,
        adapter: str | None = None,
        block_hashes: Sequence[int] = (),
    ) -> None:
        self._engine = engine
        settings = engine.settings
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.finish_reason = finish_reason
        self.sequences = sequences
        # A real engine runs what fits and lets the rest of the n wait; here the n run together.
        self.slots = min(sequences, settings.max_num_seqs)
        self.adapter = adapter
        self.block_hashes = block_hashes
        self.holding: Holding | None = None  # while it runs, where prompts have their blocks
        self.first_token_seconds = settings.ttft_seconds  # from its start; the engine adds what computing takes
        self.arrived_at = engine.clock()
        self.started_at = math.inf  # while it waits
        self.is_over = False
        self._has_failed = False
        self._counted_prompt = False
        self._counted_tokens = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.abort(self)

    @property
    def seconds(self) -> float:
        """From its start to its last token."""
        return self.first_token_seconds + max(0, self.output_tokens - 1) * self._engine.settings.itl_seconds

    async def token(self, index: int) -> None:
        """Return when token number `index`, from 0, exists. Raises EngineDeadError."""
        while not self.is_over and self.started_at == math.inf:
            await self._wait(None)
        if not self.is_over:
            settings = self._engine.settings
            due = self.started_at + self.first_token_seconds + index * settings.itl_seconds
            while not self.is_over and (delay := due - self._engine.clock()) > 0:
                await self._wait(delay)  # more than once where the loop's timers ring a little early
        if self._has_failed:
            raise EngineDeadError

    async def complete(self) -> None:
        """Return when the last token exists; the slot is free then. Raises EngineDeadError."""
        await self.token(max(0, self.output_tokens - 1))
        self._engine.finish(self)

    def tokens_each(self) -> int:
        """How many tokens each of its sequences has by now."""
        settings = self._engine.settings
        elapsed = self._engine.clock() - self.started_at - self.first_token_seconds
        if elapsed < 0:
            return 0
        if settings.itl_seconds == 0:
            return self.output_tokens
        return min(self.output_tokens, 1 + int(elapsed / settings.itl_seconds))

    def settle(self, *, is_complete: bool = False) -> None:
        """Add to the engine's statistics what is new since the last time."""
        statistics = self._engine.statistics
        tokens = self.output_tokens if is_complete else self.tokens_each()
        if (tokens or is_complete) and not self._counted_prompt:
            self._counted_prompt = True
            queued = self.started_at - self.arrived_at
            statistics.prompt_tokens += self.prompt_tokens
            statistics.queue_seconds.observe(queued)
            statistics.first_token_seconds.observe(queued + self.first_token_seconds)
        statistics.generation_tokens += (tokens - self._counted_tokens) * self.sequences
        self._counted_tokens = tokens

    def start(self) -> None:
        """It has its slot. The timer frees the slot even if whoever reads the tokens is slow."""
        self.started_at = self._engine.clock()
        if self.seconds:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._engine.finish, self)
        self._wake()

    def end(self) -> None:
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def fail(self) -> None:
        self._has_failed = True

    async def _wait(self, delay: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(delay, self._wake) if delay is not None else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
