"""What do a vLLM's metrics say? Old and new names, several engines, LoRA (recorded from vLLM 0.32).

With data parallelism every gauge has a series for each engine that has had a request, and none before.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from discovery.model_servers.exposition import Page, read_labels, whole_number
from discovery.model_servers.server_load import Adapters, KvCache, ServerLoad, UnusableMetricsError

KV_USAGE = b"vllm:kv_cache_usage_perc"
KV_USAGE_BEFORE_0_10 = b"vllm:gpu_cache_usage_perc"
MAX_ADAPTER_BYTES = 1024 * 1024  # of all adapter series; about 10,000
_KNOWN_CACHES = 256
_MAX_KNOWN_BYTES = 4096
_ADAPTERS = b"vllm:lora_requests_info"
# A regular expression, because there can be thousands: half of what `samples` takes.
_ADAPTER_SERIES = re.compile(rb"vllm:lora_requests_info\{(.*)\}[ \t]*(\S*)")


def read_vllm(page: Page) -> ServerLoad:
    """Raises UnusableMetricsError."""
    kv_usage = page.share(KV_USAGE)
    if kv_usage is None:
        kv_usage = page.share(KV_USAGE_BEFORE_0_10)
    return ServerLoad(
        waiting=page.count(b"vllm:num_requests_waiting"),
        running=page.count(b"vllm:num_requests_running"),
        kv_usage=kv_usage or 0.0,
        adapters=_adapters(page),
        kv_cache=_kv_cache(page),
    )


def _adapters(page: Page) -> Adapters | None:
    """One series for each combination ever seen stays; the value is the time at which it last held, so the greatest
    tells of now."""
    start = page.start_of(_ADAPTERS)
    if start < 0:
        return None
    series = _ADAPTER_SERIES.findall(page.text, start, start + MAX_ADAPTER_BYTES)
    if not series:
        return None
    try:
        seen_at = [float(value) for _, value in series]
    except ValueError:
        seen_at = [math.nan]
    if not (min(seen_at) >= 0 and sum(seen_at) < math.inf):  # a sum with NaN is NaN
        raise UnusableMetricsError(f"{_ADAPTERS.decode()} is not a number from 0 on")
    found = read_labels(series[seen_at.index(max(seen_at))][0])
    return Adapters(
        running=_names(found.get("running_lora_adapters", "")),
        waiting=_names(found.get("waiting_lora_adapters", "")),
        limit=whole_number(found.get("max_lora")),
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def _kv_cache(page: Page) -> KvCache | None:
    """Of several engines the largest: each tells the blocks of all (recorded: 320 with two engines of 160)."""
    best: KvCache | None = None
    for labels, _ in page.samples(b"vllm:cache_config_info"):
        cache = _known_cache(labels) if len(labels) <= _MAX_KNOWN_BYTES else _read_cache(labels)
        if best is None or cache.blocks > best.blocks:
            best = cache
    return best


def _read_cache(labels: bytes) -> KvCache:
    found = read_labels(labels)
    return KvCache(whole_number(found.get("block_size")), whole_number(found.get("num_gpu_blocks")))


# They are the same for as long as the server runs, and for all pods of a deployment; there are forty of them.
_known_cache = lru_cache(maxsize=_KNOWN_CACHES)(_read_cache)
