"""What do the metrics of a TensorRT-LLM's own server (trtllm-serve) say?"""

from __future__ import annotations

from discovery.model_servers.exposition import count, share
from discovery.model_servers.server_load import KvCache, ServerLoad


def read_tensorrt_llm(text: bytes) -> ServerLoad:
    """Raises UnusableMetricsError."""
    blocks = count(text, b"trtllm_kv_cache_max_blocks")
    return ServerLoad(
        waiting=count(text, b"trtllm_num_requests_waiting"),
        running=count(text, b"trtllm_num_requests_running"),
        kv_usage=share(text, b"trtllm_kv_cache_utilization"),
        kv_cache=KvCache(count(text, b"trtllm_kv_cache_tokens_per_block"), blocks) if blocks else None,
    )
