"""What do an SGLang's metrics say? A data-parallel server has a series for each rank."""

from __future__ import annotations

from discovery.model_servers.exposition import count, read_labels, samples, share, whole_number
from discovery.model_servers.server_load import KvCache, ServerLoad


def read_sglang(text: bytes) -> ServerLoad:
    """Raises UnusableMetricsError."""
    return ServerLoad(
        waiting=count(text, b"sglang:num_queue_reqs"),
        running=count(text, b"sglang:num_running_reqs"),
        kv_usage=share(text, b"sglang:token_usage"),
        kv_cache=_kv_cache(text),
    )


def _kv_cache(text: bytes) -> KvCache | None:
    for labels, _ in samples(text, b"sglang:cache_config_info"):
        found = read_labels(labels)
        return KvCache(whole_number(found.get("page_size")), whole_number(found.get("num_pages")))
    # From 0.5.11 on the two are gauges of their own.
    pages = count(text, b"sglang:num_pages")
    return KvCache(count(text, b"sglang:page_size"), pages) if pages else None
