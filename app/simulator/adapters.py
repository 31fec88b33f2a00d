"""Which LoRA adapters run, and what do the metrics say of them?

As vLLM 0.32 was recorded: a series for each combination ever seen, the value the time at which it last held, running
and waiting adapters the same list, in the order of their arrival, and no series before the first request.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable


class Adapters:
    """The adapters of one engine."""

    def __init__(self, *, limit: int, clock: Callable[[], float] = time.time) -> None:
        self.limit = limit
        self._clock = clock
        self._running: dict[str, int] = {}  # name -> requests
        self._loaded: OrderedDict[str, None] = OrderedDict()  # the one used last at the end
        self._series: dict[str, float] = {}  # "a,b" -> when that was so last

    def has_room(self, name: str | None) -> bool:
        """Whether a request for it can be in the batch now; None is the base model."""
        return name is None or name in self._running or len(self._running) < self.limit

    def begin(self, name: str) -> bool:
        """A request for it starts. Whether it was loaded already."""
        self._running[name] = self._running.get(name, 0) + 1
        was_loaded = name in self._loaded
        self._loaded[name] = None
        self._loaded.move_to_end(name)
        if len(self._loaded) > self.limit:
            self._loaded.popitem(last=False)
        return was_loaded

    def end(self, name: str) -> None:
        """It is over."""
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]

    def series(self, waiting: Iterable[str], *, is_started: bool) -> dict[str, float]:
        """Each combination of adapters that was ever seen, and when; with what runs and waits now. Nothing before an
        engine has had its first request."""
        if is_started:
            self._series[",".join(dict.fromkeys((*self._running, *waiting)))] = self._clock()
        return self._series
