"""Which blocks of prompts are in the GPU's memory? Those that running requests hold, and cached ones that may go.

As vLLM has it: whole blocks are shared by all who begin alike, a block that nobody holds stays until its room is
needed, and the last token of a prompt is always computed. A block is of use to others once it was computed.
"""

from collections import OrderedDict
from collections.abc import Sequence

import xxhash

from app.simulator.text import TOKEN_BYTES


def hash_blocks(prompt: bytes, *, seed: str, block_size: int) -> list[int]:
    """The whole blocks of a prompt, each with all before it; ``seed`` keeps adapters apart."""
    link = xxhash.xxh64_intdigest(seed.encode())
    size = block_size * TOKEN_BYTES
    hashes = []
    for start in range(0, len(prompt) - size + 1, size):
        link = xxhash.xxh64_intdigest(prompt[start : start + size], link)
        hashes.append(link)
    return hashes


class _Block:
    __slots__ = ("holders", "ready_at")

    def __init__(self, ready_at: float) -> None:
        self.holders = 0
        self.ready_at = ready_at


class Holding:
    """The blocks of one running request."""

    __slots__ = ("cached_blocks", "hashes", "own_blocks")

    def __init__(self, hashes: Sequence[int], cached_blocks: int, own_blocks: int) -> None:
        self.hashes = hashes  # shared
        self.cached_blocks = cached_blocks  # of those, what need not be computed
        self.own_blocks = own_blocks  # what nobody can share: the prompt's last part and the answer


class KvCacheBlocks:
    """All blocks of one engine."""

    def __init__(self, *, blocks: int) -> None:
        self._total = blocks
        self._own = 0  # blocks of running requests that nobody can share
        self._held = 0  # shared ones that somebody holds
        self._blocks: dict[int, _Block] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached and held by nobody, the one used last at the end

    @property
    def usage(self) -> float:
        """Share of the blocks that are held, 0 to 1. Cached but free blocks do not count."""
        return min(1.0, (self._own + self._held) / self._total)

    def cached(self, hashes: Sequence[int], *, now: float) -> int:
        """How many blocks from the first on were computed already."""
        for count, block in enumerate(hashes):
            found = self._blocks.get(block)
            if found is None or found.ready_at > now:
                return count
        return len(hashes)

    def hold(self, hashes: Sequence[int], *, blocks: int, now: float) -> Holding | None:
        """Take ``blocks``, whose first ones are ``hashes``; None while there is no room. A request that is larger than
        everything is let in when nothing else is held."""
        free = self._total - self._own - self._held
        known = [block for block in hashes if block in self._blocks]
        awake = sum(self._blocks[block].holders > 0 for block in known)
        if blocks - awake > free and (self._own or self._held):
            return None
        cached = self.cached(hashes, now=now)
        for block in known:
            if not self._blocks[block].holders:
                del self._idle[block]
                self._held += 1
            self._blocks[block].holders += 1
        own = blocks - len(hashes)
        self._own += own
        new = [block for block in hashes if block not in self._blocks]
        while self._idle and self._own + self._held + len(self._idle) + len(new) > self._total:
            evicted, _ = self._idle.popitem(last=False)
            del self._blocks[evicted]
        for block in new:
            made = self._blocks[block] = _Block(float("inf"))
            made.holders = 1
            self._held += 1
        return Holding(hashes, cached, own)

    def computed(self, holding: Holding, *, at: float) -> None:
        """The prompt is computed at that time: from then on its blocks are of use to others."""
        for block in holding.hashes:
            found = self._blocks[block]
            found.ready_at = min(found.ready_at, at)

    def release(self, holding: Holding, *, now: float) -> None:
        """The request is over. What it has computed stays cached, the end of the prompt goes first."""
        self._own -= holding.own_blocks
        for block in reversed(holding.hashes):
            found = self._blocks[block]
            found.holders -= 1
            if not found.holders:
                self._held -= 1
                if found.ready_at <= now:
                    self._idle[block] = None
                else:
                    del self._blocks[block]  # aborted before it was computed
