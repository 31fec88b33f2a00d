"""Which requests run and which wait? The slots of one simulated server and the queue before them.

The engine belongs to one event loop: no method but those that say `async` gives way, so none needs a lock.
"""

import asyncio
import random
import time
from collections.abc import Callable

from app.simulator.generation import EngineDeadError, Generation
from app.simulator.settings import SimulatorSettings
from app.simulator.statistics import Statistics


class EngineBusyError(Exception):
    """`max_num_queued_reqs` is reached; nothing was started."""


class Engine:
    """The slots of one simulated server. The counters are there for tests to read; `until` waits for them."""

    def __init__(
        self,
        settings: SimulatorSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.running = 0  # sequences, as vLLM counts them: a request with n=2 is two
        self.waiting = 0
        self.completed = 0  # requests
        self.aborted = 0
        self.failed = 0
        self.refused = 0
        self.statistics = Statistics()
        self._random = random
        self._is_dead = False
        self._active: dict[Generation, None] = {}
        self._queue: dict[Generation, None] = {}
        self._observers: list[asyncio.Future[None]] = []

    def submit(self, *, prompt_tokens: int, output_tokens: int, finish_reason: str, sequences: int = 1) -> Generation:
        """Take a request in: into a slot if one is free, else into the queue. Use the result as a context manager.

        Raises EngineBusyError, EngineDeadError.
        """
        settings = self.settings
        if self._is_dead or (settings.fail_rate and self._random() < settings.fail_rate):
            self.failed += 1
            self.statistics.finished["error"] += 1
            self._tell_observers()
            raise EngineDeadError
        limit = settings.max_num_queued_reqs
        if limit is not None and self.running + self.waiting + sequences > limit:
            self.refused += 1
            self._tell_observers()
            raise EngineBusyError
        generation = Generation(
            engine=self,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            finish_reason=finish_reason,
            sequences=sequences,
        )
        if self._queue or self.running + generation.slots > settings.max_num_seqs:
            self._queue[generation] = None
            self.waiting += sequences
        else:
            self._start(generation)
            if generation.seconds == 0:  # over before anybody can look: no timer, no waiting
                self.finish(generation)
        self._tell_observers()
        return generation

    def finish(self, generation: Generation) -> None:
        """Its last token is there: the slot is free. Nothing happens if it was finished or aborted before."""
        if generation.is_over:
            return
        self.completed += 1
        statistics = self.statistics
        statistics.finished[generation.finish_reason] += 1
        statistics.end_to_end_seconds.observe(self.clock() - generation.arrived_at)
        statistics.request_prompt_tokens.observe(generation.prompt_tokens)
        statistics.request_generation_tokens.observe(generation.output_tokens)
        generation.settle(is_complete=True)
        self._release(generation)

    def abort(self, generation: Generation) -> None:
        """Nobody wants its tokens any more: out of its slot or out of the queue. Nothing happens if it is over."""
        if generation.is_over:
            return
        self.aborted += 1
        generation.settle()
        self._release(generation)

    def die(self) -> None:
        """What is here fails, and so does all that comes: vLLM after its worker process was killed."""
        self._is_dead = True
        for generation in [*self._queue, *self._active]:
            self.failed += 1
            self.statistics.finished["error"] += 1
            generation.settle()
            generation.fail()
            self._release(generation)

    async def until(self, predicate: Callable[["Engine"], bool]) -> None:
        """Wait until `predicate` holds; it is asked at each change of running, waiting and the counters."""
        while not predicate(self):
            change = asyncio.get_running_loop().create_future()
            self._observers.append(change)
            await change

    def settle(self) -> None:
        """Bring `statistics` up to this moment."""
        for generation in self._active:
            generation.settle()

    def kv_cache_usage(self) -> float:
        """Share of the KV blocks that running sequences hold, 0 to 1. Cached but free blocks do not count."""
        settings = self.settings
        used = sum(
            -(-(generation.prompt_tokens + generation.tokens_each()) // settings.block_size) * generation.sequences
            for generation in self._active
        )
        return min(1.0, used / (settings.num_gpu_blocks - 1))

    def _start(self, generation: Generation) -> None:
        self.running += generation.slots
        self._active[generation] = None
        generation.start()

    def _release(self, generation: Generation) -> None:
        if generation in self._queue:
            del self._queue[generation]
            self.waiting -= generation.sequences
        else:
            del self._active[generation]
            self.running -= generation.slots
        generation.end()
        if self._queue and not self._is_dead:
            self._fill_slots()
        self._tell_observers()

    def _fill_slots(self) -> None:
        while self._queue:
            generation = next(iter(self._queue))
            if self.running + generation.slots > self.settings.max_num_seqs:
                return
            del self._queue[generation]
            self.waiting -= generation.sequences
            self._start(generation)
            if generation.seconds == 0:  # soon, not now: finishing comes back to this loop
                asyncio.get_running_loop().call_soon(self.finish, generation)

    def _tell_observers(self) -> None:
        if self._observers:
            observers, self._observers = self._observers, []
            for observer in observers:
                if not observer.done():
                    observer.set_result(None)
