"""How is memory kept once everything is loaded? Settings of the collector and the allocator, made once after start."""

from __future__ import annotations

import ctypes
import gc

MIB = 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle_memory() -> None:
    """Keep the garbage collector from walking over what was made at start, and freed memory from being unmapped.

    A request leaves no reference cycles; what the collector finds are those of rare errors. glibc maps a block of a
    megabyte anew each time, and the kernel zeroes it page by page; with up to 32 MiB kept instead, a prompt of that
    size costs little more than half the CPU (`make bench`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl and macOS have none
        libc.mallopt(_M_MMAP_THRESHOLD, 16 * MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 32 * MIB)
