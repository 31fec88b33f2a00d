"""What do a Triton's metrics say? With the TensorRT-LLM backend a good deal, with others only what waits."""

from __future__ import annotations

from discovery.model_servers.exposition import Page
from discovery.model_servers.server_load import KvCache, ServerLoad

_REQUESTS = b"nv_trt_llm_request_metrics"
_BLOCKS = b"nv_trt_llm_kv_cache_block_metrics"


def read_triton_tensorrt_llm(page: Page) -> ServerLoad:
    """Raises UnusableMetricsError."""
    blocks = page.count(_BLOCKS, b'kv_cache_block_type="max"')
    return ServerLoad(
        waiting=page.count(_REQUESTS, b'request_type="waiting"'),
        running=page.count(_REQUESTS, b'request_type="scheduled"'),
        kv_usage=page.share(_BLOCKS, b'kv_cache_block_type="fraction"') or 0.0,
        kv_cache=KvCache(page.count(_BLOCKS, b'kv_cache_block_type="tokens_per"'), blocks) if blocks else None,
    )


def read_triton(page: Page) -> ServerLoad:
    """Raises UnusableMetricsError. `nv_inference_exec_count`, which the Inference Extension takes for what is running,
    counts everything that ever ran: what runs is not known here."""
    return ServerLoad(waiting=page.count(b"nv_inference_pending_request_count"))
