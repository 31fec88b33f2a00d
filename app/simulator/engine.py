"""Which requests run and which wait? The slots of one simulated server and the queue before them.

The engine belongs to one event loop: no method but those that say `async` gives way, so none needs a lock.
"""

import asyncio
import random
import time
from collections.abc import Callable

from app.simulator.adapters import Adapters
from app.simulator.generation import EngineDeadError, Generation
from app.simulator.kv_cache import KvCacheBlocks, hash_blocks
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
        self.adapters = Adapters(limit=settings.max_loras)
        self._blocks = KvCacheBlocks(blocks=settings.num_gpu_blocks - 1)
        self._prefill_until = 0.0  # when the prompts that run are computed
        self._random = random
        self._is_dead = False
        self._has_started = False  # whether it has had a request
        self._active: dict[Generation, None] = {}
        self._queue: dict[Generation, None] = {}
        self._observers: list[asyncio.Future[None]] = []

    def submit(
        self,
        *,
        prompt_tokens: int,
        output_tokens: int,
        finish_reason: str,
        sequences: int = 1,
        prompt: bytes = b"",
        adapter: str | None = None,
    ) -> Generation:
        """Take a request in: into a slot if one is free, else into the queue. Use the result as a context manager.

        Raises EngineBusyError, EngineDeadError.
        """
        settings = self.settings
        if self._is_dead or (settings.fail_rate and self._random() < settings.fail_rate):
            self.failed += 1
            self.statistics.finished["error"] += 1
            self._tell_observers()
            raise EngineDeadError
        self._has_started = True
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
            adapter=adapter,
            block_hashes=self._hash(prompt, adapter),
        )
        if self._queue or not self._has_room(generation):
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

    def adapter_series(self) -> dict[str, float]:
        """Each combination of adapters ever seen, and when it last was so."""
        waiting = (generation.adapter for generation in self._queue if generation.adapter is not None)
        return self.adapters.series(waiting, is_started=self._has_started)

    def settle(self) -> None:
        """Bring `statistics` up to this moment."""
        for generation in self._active:
            generation.settle()

    def kv_cache_usage(self) -> float:
        """Share of the KV blocks that running sequences hold, 0 to 1. Cached but free blocks do not count."""
        settings = self.settings
        if settings.prefix_caching:
            return self._blocks.usage
        used = sum(
            -(-(generation.prompt_tokens + generation.tokens_each()) // settings.block_size) * generation.sequences
            for generation in self._active
        )
        return min(1.0, used / (settings.num_gpu_blocks - 1))

    def _start(self, generation: Generation) -> None:
        self.running += generation.slots
        self._active[generation] = None
        generation.first_token_seconds += self._load_adapter(generation) + self._prefill(generation)
        generation.start()

    def _hash(self, prompt: bytes, adapter: str | None) -> list[int]:
        if not self.settings.prefix_caching:
            return []
        return hash_blocks(prompt, seed=adapter or "", block_size=self.settings.block_size)

    def _has_room(self, generation: Generation) -> bool:
        """Whether it can start now; it holds its blocks then."""
        settings = self.settings
        if self.running + generation.slots > settings.max_num_seqs or not self.adapters.has_room(generation.adapter):
            return False
        if settings.prefix_caching:
            tokens = generation.prompt_tokens + generation.output_tokens * generation.sequences
            hashes = generation.block_hashes
            blocks = max(-(-tokens // settings.block_size), len(hashes))
            generation.holding = self._blocks.hold(hashes, blocks=blocks, now=self.clock())
            return generation.holding is not None
        return True

    def _prefill(self, generation: Generation) -> float:
        """Seconds until its prompt is computed: prompts are computed one after the other, without what is cached."""
        settings, holding = self.settings, generation.holding
        cached = 0
        if holding is not None:
            # The last token is always computed, and with it its block.
            whole = (generation.prompt_tokens - 1) // settings.block_size
            cached = min(holding.cached_blocks, whole) * settings.block_size
            self.statistics.prefix_queries += generation.prompt_tokens
            self.statistics.prefix_hits += cached
        now, rate = self.clock(), settings.prefill_tokens_per_second
        done_at = now
        if rate:
            done_at = self._prefill_until = max(now, self._prefill_until) + (generation.prompt_tokens - cached) / rate
        if holding is not None:
            self._blocks.computed(holding, at=done_at)
        return done_at - now

    def _load_adapter(self, generation: Generation) -> float:
        if generation.adapter is None:
            return 0.0
        return 0.0 if self.adapters.begin(generation.adapter) else self.settings.lora_load_seconds

    def _release(self, generation: Generation) -> None:
        if generation in self._queue:
            del self._queue[generation]
            self.waiting -= generation.sequences
        else:
            del self._active[generation]
            self.running -= generation.slots
            if generation.holding is not None:
                self._blocks.release(generation.holding, now=self.clock())
                generation.holding = None
            if generation.adapter is not None:
                self.adapters.end(generation.adapter)
        generation.end()
        if self._queue and not self._is_dead:
            self._fill_slots()
        self._tell_observers()

    def _fill_slots(self) -> None:
        while self._queue:
            generation = next(iter(self._queue))
            if not self._has_room(generation):
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
