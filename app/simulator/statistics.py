"""What has an engine done so far? Plain numbers: metrics.py turns them into text when somebody asks."""

from bisect import bisect_left
from itertools import accumulate

# The buckets of the recordings.
_FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_REQUEST_SECONDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_TOKENS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


class Histogram:
    """Counts per bucket. Much cheaper than a client library's, whose locks one event loop does not need."""

    __slots__ = ("_bounds", "_counts", "_names", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._names = [*(str(bound) for bound in bounds), "+Inf"]
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound, count up to and including it), the last one's bound `+Inf`."""
        return list(zip(self._names, accumulate(self._counts), strict=True))


class Statistics:
    """Sums over all generations of an engine, running ones included up to now."""

    __slots__ = (
        "end_to_end_seconds",
        "finished",
        "first_token_seconds",
        "generation_tokens",
        "prefix_hits",
        "prefix_queries",
        "prompt_tokens",
        "queue_seconds",
        "request_generation_tokens",
        "request_prompt_tokens",
    )

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0  # tokens
        self.prefix_hits = 0
        # A client that leaves is no "abort" here: vLLM's count of those stayed 0 after 41 of them.
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0, "repetition": 0}
        self.first_token_seconds = Histogram(_FIRST_TOKEN_SECONDS)
        self.end_to_end_seconds = Histogram(_REQUEST_SECONDS)
        self.queue_seconds = Histogram(_REQUEST_SECONDS)
        self.request_prompt_tokens = Histogram(_TOKENS)
        self.request_generation_tokens = Histogram(_TOKENS)
