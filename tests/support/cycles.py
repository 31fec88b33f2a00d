"""Does code leave reference cycles? Asked of what it makes alone, whatever other tests of this process left behind."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_cycles() -> Iterator[None]:
    """Fails when the block has made objects that only the garbage collector frees.

    What there was before is frozen: it cannot become garbage that is counted here. Threads of other tests, such as
    those that deliver spans, have ended with them.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
