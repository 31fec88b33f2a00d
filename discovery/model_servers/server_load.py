"""What does one reading of a model server's metrics tell? The few values that picking an endpoint needs."""

from __future__ import annotations

from typing import NamedTuple


class UnusableMetricsError(ValueError):
    """A metric is there and its value cannot be meant: NaN, negative, no number. The message names the metric."""


class Adapters(NamedTuple):
    """The LoRA adapters of a model server."""

    running: frozenset[str]
    waiting: frozenset[str]
    limit: int  # how many can be active at once


class KvCache(NamedTuple):
    """How large a model server's KV cache is. A value that it does not tell is 0."""

    block_tokens: int
    blocks: int


class ServerLoad(NamedTuple):
    """One reading. What the answer does not hold is 0: a fresh vLLM has no gauges before its first request."""

    waiting: int = 0  # requests that have no slot yet, of all its engines
    running: int = 0  # requests in the batch, of all its engines
    kv_usage: float = 0.0  # 0..1, the mean of its engines
    adapters: Adapters | None = None  # None: it does not serve adapters, or does not say
    kv_cache: KvCache | None = None
