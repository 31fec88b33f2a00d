"""What do a vLLM's metrics say? Old and new names, several engines, LoRA (recorded from vLLM 0.32).

With data parallelism every gauge has a series for each engine that has had a request, and none before.
"""

from __future__ import annotations

from discovery.model_servers.exposition import count, number, read_labels, samples, share, whole_number
from discovery.model_servers.server_load import Adapters, KvCache, ServerLoad

KV_USAGE = b"vllm:kv_cache_usage_perc"
KV_USAGE_BEFORE_0_10 = b"vllm:gpu_cache_usage_perc"


def read_vllm(text: bytes) -> ServerLoad:
    """Raises UnusableMetricsError."""
    return ServerLoad(
        waiting=count(text, b"vllm:num_requests_waiting"),
        running=count(text, b"vllm:num_requests_running"),
        kv_usage=share(text, KV_USAGE) or share(text, KV_USAGE_BEFORE_0_10),
        adapters=_adapters(text),
        kv_cache=_kv_cache(text),
    )


def _adapters(text: bytes) -> Adapters | None:
    """One series for each combination ever seen stays; the value is the time at which it last held, so the greatest
    tells of now."""
    newest, newest_labels = -1.0, b""
    for labels, value in samples(text, b"vllm:lora_requests_info"):
        seen_at = number(value, b"vllm:lora_requests_info")
        if seen_at > newest:
            newest, newest_labels = seen_at, labels
    if newest < 0:
        return None
    found = read_labels(newest_labels)
    return Adapters(
        running=_names(found.get("running_lora_adapters", "")),
        waiting=_names(found.get("waiting_lora_adapters", "")),
        limit=whole_number(found.get("max_lora")),
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def _kv_cache(text: bytes) -> KvCache | None:
    """Of several engines the largest: each tells the blocks of all (recorded: 320 with two engines of 160)."""
    best: KvCache | None = None
    for labels, _ in samples(text, b"vllm:cache_config_info"):
        found = read_labels(labels)
        cache = KvCache(whole_number(found.get("block_size")), whole_number(found.get("num_gpu_blocks")))
        if best is None or cache.blocks > best.blocks:
            best = cache
    return best
