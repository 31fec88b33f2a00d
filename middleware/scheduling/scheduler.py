"""Which endpoint of a pool gets a request? The profile in use, asked with what is known of prompts and endpoints.

What was sent where is remembered for prefix affinity once its answer is there, or a quarter of a second after it was
sent, whichever is first: until then the endpoint has not computed it either, and a burst of equal prompts would pile
onto the endpoint that got the first.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from discovery.backend import PoolSettings
from middleware.scheduling.configuration import PickerConfiguration
from middleware.scheduling.crowding import uncrowded
from middleware.scheduling.load import Draw, Load, SchedulingRequest
from middleware.scheduling.plugins import MIN_AUTOMATIC_BLOCK_TOKENS
from middleware.scheduling.prefix_index import PrefixIndex
from middleware.scheduling.profile import Profile, ScoreTable
from middleware.scheduling.prompt import TOKEN_BYTES, Prompt, block_hashes, first_bytes, salt_of, seed_of
from middleware.scheduling.saturation import saturation
from middleware.scheduling.scorers import PrefixCacheScorer

PREFILL_SECONDS = 0.25
BLOCK_SIZE_SECONDS = 1.0  # for so long a pool's block size is not asked for again


_NO_HASHES: list[int] = []


class HasPrompt(Protocol):
    """Whose prompt it is. It may be let go at any time."""

    @property
    def prompt(self) -> Prompt | None:
        """The prompt, while it is there."""


class Asked:
    """One request as it is scheduled. Its prompt is hashed when that is first needed, and is not kept."""

    __slots__ = ("_hashes", "_hashes_of", "_owner", "is_explained", "model", "sent", "table")

    def __init__(self, owner: HasPrompt, *, is_explained: bool = False) -> None:
        self.model: str | None = None  # that the endpoint is asked for: it can differ from backend to backend
        self.is_explained = is_explained  # keep every number of each pick
        self.table: ScoreTable | None = None  # of the last pick
        self.sent: _Sent | None = None  # the last attempt, until it is remembered or failed
        self._owner = owner
        self._hashes = _NO_HASHES
        self._hashes_of: tuple[str | None, int, int] | None = None

    def hashes(self, block_tokens: int, max_blocks: int) -> list[int]:
        """Of the prompt's blocks; not to be changed."""
        wanted = (self.model, block_tokens, max_blocks)
        if self._hashes_of == wanted:
            return self._hashes
        prompt = self._owner.prompt
        if prompt is None:
            return _NO_HASHES
        self._hashes_of = wanted
        block_bytes = block_tokens * TOKEN_BYTES
        text = first_bytes(prompt, limit_bytes=block_bytes * max_blocks)
        if len(text) < block_bytes:
            self._hashes = _NO_HASHES
        else:
            seed = seed_of(self.model, salt_of(prompt))
            self._hashes = block_hashes(text, seed=seed, block_tokens=block_tokens, max_blocks=max_blocks)
        return self._hashes


class _Sent:
    """A prompt on its way to an endpoint."""

    __slots__ = ("capacity", "due", "hashes", "load")

    def __init__(self, load: Load, hashes: list[int], capacity: int, due: float) -> None:
        self.load: Load | None = load  # None: remembered, or not to be
        self.hashes = hashes
        self.capacity = capacity
        self.due = due


class Scheduler:
    """Picks endpoints of pools. ``configuration`` may be replaced at any time.

    Single-threaded: used from the event loop only.
    """

    def __init__(
        self,
        *,
        draw: Draw = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configuration = PickerConfiguration()
        self.index = PrefixIndex()
        self._draw = draw
        self._clock = clock
        self._sent: deque[_Sent] = deque()  # in the order of their ``due``
        self._block_tokens: dict[str, tuple[float, int]] = {}  # pool -> until when, how many

    def pick(self, pool_id: str, settings: PoolSettings, asked: Asked, loads: Sequence[Load]) -> int:
        """The index of the endpoint that gets the request's next attempt; there is at least one."""
        now = self._clock()
        profile = self._profile(settings)
        request, hashes = self._request(pool_id, profile, asked, loads, now)
        if asked.is_explained:
            asked.table = profile.explain(request, loads, self._draw, now)
            picked = asked.table.picked
        else:
            picked = profile.pick(request, loads, self._draw, now) if len(loads) > 1 else 0
        if asked.sent is not None:
            self.failed(asked)  # whoever was sent it before
        if hashes:
            load = loads[picked]
            sent = asked.sent = _Sent(load, hashes, self._capacity(load, request.block_tokens), now + PREFILL_SECONDS)
            self._sent.append(sent)
        return picked

    def explain(self, pool_id: str, settings: PoolSettings, asked: Asked, loads: Sequence[Load]) -> ScoreTable:
        """The same with every number, for a question: nothing is sent."""
        now = self._clock()
        profile = self._profile(settings)
        request, _ = self._request(pool_id, profile, asked, loads, now)
        return profile.explain(request, loads, self._draw, now)

    def would_pick(self, pool_id: str, settings: PoolSettings, asked: Asked, loads: Sequence[Load]) -> int:
        """The same as ``pick``, for a question."""
        now = self._clock()
        profile = self._profile(settings)
        request, _ = self._request(pool_id, profile, asked, loads, now)
        return profile.pick(request, loads, self._draw, now)

    def answered(self, asked: Asked) -> None:
        """The endpoint picked last has the prompt in its cache now."""
        if asked.sent is not None:
            self._remember(asked.sent)
            asked.sent = None

    def failed(self, asked: Asked) -> None:
        """It has not, as far as is known."""
        if asked.sent is not None:
            asked.sent.load = None
            asked.sent = None

    def saturation(self, loads: Sequence[Load]) -> float:
        """How full a pool is; from 1 on it is saturated."""
        return saturation(loads, self.configuration.thresholds, self._clock())

    def forget_gone(self) -> None:
        """Endpoints that are gone have nothing cached any more."""
        self.index.forget_gone()
        self._block_tokens.clear()

    def _profile(self, settings: PoolSettings) -> Profile:
        profile = self.configuration.profile
        return _by_load_alone(profile) if settings.by_load_alone else profile

    def _request(
        self, pool_id: str, profile: Profile, asked: Asked, loads: Sequence[Load], now: float
    ) -> tuple[SchedulingRequest, list[int]]:
        if not profile.reads_prompts:
            return SchedulingRequest(asked.model), _NO_HASHES
        while self._sent and self._sent[0].due <= now:
            self._remember(self._sent.popleft())
        block_tokens = self._blocks_of(pool_id, loads, now)
        hashes = asked.hashes(block_tokens, self.configuration.prefix.max_blocks)
        if not hashes:
            return SchedulingRequest(asked.model), hashes
        matched: Mapping[int, int] = self.index.match(hashes)
        if matched:
            matched = uncrowded(matched, loads)
        return SchedulingRequest(asked.model, len(hashes), matched, block_tokens), hashes

    def _remember(self, sent: _Sent) -> None:
        load, sent.load = sent.load, None
        if load is not None and not load.is_gone:
            self.index.add(load, sent.hashes, capacity=sent.capacity)
        sent.hashes = _NO_HASHES

    def _blocks_of(self, pool_id: str, loads: Sequence[Load], now: float) -> int:
        """How many tokens a block of this pool's prompts has: as many as its endpoints' own, and not too few."""
        settings = self.configuration.prefix
        if not settings.is_automatic:
            return settings.block_tokens
        until, tokens = self._block_tokens.get(pool_id, (0.0, 0))
        if until <= now:
            told = [load.kv_cache.block_tokens for load in loads if load.kv_cache is not None]
            tokens = max(told, default=0) or settings.block_tokens
            tokens = max(tokens, MIN_AUTOMATIC_BLOCK_TOKENS)
            self._block_tokens[pool_id] = (now + BLOCK_SIZE_SECONDS, tokens)
        return tokens

    def _capacity(self, load: Load, block_tokens: int) -> int:
        """How many blocks the endpoint's cache holds."""
        settings, cache = self.configuration.prefix, load.kv_cache
        tokens = settings.capacity_tokens
        if settings.is_automatic and cache is not None and cache.blocks and cache.block_tokens:
            tokens = cache.blocks * cache.block_tokens
        return max(1, tokens // block_tokens)


@lru_cache(maxsize=16)
def _by_load_alone(profile: Profile) -> Profile:
    scorers = tuple(weighted for weighted in profile.scorers if not isinstance(weighted.scorer, PrefixCacheScorer))
    return replace(profile, scorers=scorers)
