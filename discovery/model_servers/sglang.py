"""What do an SGLang's metrics say? A data-parallel server has a series for each rank."""

from __future__ import annotations

from discovery.model_servers.exposition import Page, read_labels, whole_number
from discovery.model_servers.server_load import KvCache, ServerLoad


def read_sglang(page: Page) -> ServerLoad:
    """Raises UnusableMetricsError."""
    return ServerLoad(
        waiting=page.count(b"sglang:num_queue_reqs"),
        running=page.count(b"sglang:num_running_reqs"),
        kv_usage=page.share(b"sglang:token_usage") or 0.0,
        kv_cache=_kv_cache(page),
    )


def _kv_cache(page: Page) -> KvCache | None:
    for labels, _ in page.samples(b"sglang:cache_config_info"):
        found = read_labels(labels)
        return KvCache(whole_number(found.get("page_size")), whole_number(found.get("num_pages")))
    # From 0.5.11 on the two are gauges of their own.
    pages = page.count(b"sglang:num_pages")
    return KvCache(page.count(b"sglang:page_size"), pages) if pages else None
