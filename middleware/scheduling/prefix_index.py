"""Which endpoints have the beginning of a prompt in their KV cache? Remembers which blocks went where.

What an endpoint has cached is not known, only what was sent there, so for each endpoint the blocks used last are kept,
as many as its cache has room for (llm-d calls this the approximate prefix cache). Looking up walks along the chain of
hashes until nobody is left, with the endpoints as bits of one number: a thousand cost hardly more than three.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from middleware.scheduling.load import Load

MIB = 1024 * 1024
DEFAULT_LIMIT_BYTES = 128 * MIB
ENTRY_BYTES = 200  # what one block of one endpoint takes here; measured: 176
MANY_BITS = 64  # from so many on, walking over all of a number's digits is faster than looking for the set ones


class PrefixIndex:
    """Block hash -> endpoints that were sent it. Single-threaded: used from the event loop only."""

    def __init__(self, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._limit = max(1, limit_bytes // ENTRY_BYTES)  # entries of all endpoints together
        self._holders: dict[int, int] = {}  # hash -> a bit for each endpoint's slot
        self._blocks: dict[int, OrderedDict[int, None]] = {}  # slot -> its hashes, the one used last at the end
        self._loads: dict[int, Load] = {}  # slot -> its endpoint
        self._free: list[int] = []  # slots of endpoints that are gone

    def __len__(self) -> int:
        """How many blocks of how many endpoints are remembered, in all."""
        return sum(map(len, self._blocks.values()))

    def match(self, hashes: Sequence[int]) -> dict[int, int]:
        """By prefix slot, how many blocks from the first on its endpoint has; without those that have none."""
        matched: dict[int, int] = {}
        holders = self._holders
        left = -1  # whoever has all blocks so far
        for count, block in enumerate(hashes):
            still = left & holders.get(block, 0)
            if still != left:
                if count:
                    _note(matched, left ^ still, count)
                left = still
                if not left:
                    return matched
        if hashes:
            _note(matched, left, len(hashes))
        return matched

    def add(self, load: Load, hashes: Sequence[int], *, capacity: int) -> None:
        """Remember that these blocks, a prompt's from the first on, went to this endpoint, which has room for
        ``capacity`` blocks."""
        slot = load.prefix_slot
        if slot < 0:
            slot = self._take_slot(load)
        bit = 1 << slot
        blocks, holders = self._blocks[slot], self._holders
        capacity = max(1, min(capacity, self._limit // len(self._blocks)))
        # The last block first: the first is used last then, and stays longest. Without it the others are worth nothing.
        for block in reversed(hashes[:capacity]):
            if block in blocks:
                blocks.move_to_end(block)
            else:
                blocks[block] = None
                holders[block] = holders.get(block, 0) | bit
        self._shrink(slot, capacity)

    def forget(self, load: Load) -> None:
        """The endpoint is gone, and what it had with it."""
        slot = load.prefix_slot
        if slot >= 0:
            self._shrink(slot, 0)
            del self._blocks[slot], self._loads[slot]
            self._free.append(slot)
            load.prefix_slot = -1

    def forget_gone(self) -> None:
        """The same for every endpoint that no snapshot names any more."""
        for load in [load for load in self._loads.values() if load.is_gone]:
            self.forget(load)

    def _take_slot(self, load: Load) -> int:
        slot = load.prefix_slot = self._free.pop() if self._free else len(self._blocks)
        self._blocks[slot] = OrderedDict()
        self._loads[slot] = load
        share = max(1, self._limit // len(self._blocks))
        for other in self._blocks:
            self._shrink(other, share)
        return slot

    def _shrink(self, slot: int, size: int) -> None:
        blocks, holders, bit = self._blocks[slot], self._holders, 1 << slot
        while len(blocks) > size:
            block, _ = blocks.popitem(last=False)
            others = holders[block] ^ bit
            if others:
                holders[block] = others
            else:
                del holders[block]


def _note(matched: dict[int, int], slots: int, count: int) -> None:
    """Write ``count`` beside each set bit of ``slots``."""
    if slots.bit_count() >= MANY_BITS:
        for slot, digit in enumerate(bin(slots)[:1:-1]):
            if digit == "1":
                matched[slot] = count
        return
    while slots:
        lowest = slots & -slots
        matched[lowest.bit_length() - 1] = count
        slots ^= lowest
