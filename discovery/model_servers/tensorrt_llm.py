"""What do the metrics of a TensorRT-LLM's own server (trtllm-serve) say?"""

from __future__ import annotations

from discovery.model_servers.exposition import Page
from discovery.model_servers.server_load import KvCache, ServerLoad


def read_tensorrt_llm(page: Page) -> ServerLoad:
    """Raises UnusableMetricsError."""
    blocks = page.count(b"trtllm_kv_cache_max_blocks")
    return ServerLoad(
        waiting=page.count(b"trtllm_num_requests_waiting"),
        running=page.count(b"trtllm_num_requests_running"),
        kv_usage=page.share(b"trtllm_kv_cache_utilization") or 0.0,
        kv_cache=KvCache(page.count(b"trtllm_kv_cache_tokens_per_block"), blocks) if blocks else None,
    )
