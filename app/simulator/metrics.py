"""What does `GET /metrics` say? vLLM's names; the values are the engine's at this moment.

Written by hand: a client library takes a millisecond for this page, and a gateway that is being measured asks for it
twenty times a second. The tests read it with prometheus_client.
"""

from app.simulator.call import Call
from app.simulator.engine import Engine
from app.simulator.settings import SimulatorSettings
from app.simulator.statistics import Histogram

CONTENT_TYPE = b"text/plain; version=1.0.0; charset=utf-8"


class MetricsPage:
    """The endpoint. Labels are in alphabetical order, values are floats, as in the recordings."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine
        self._model = f'model_name="{_escape(engine.settings.base_model)}"'
        self._cache_config = _cache_config(engine.settings)

    async def __call__(self, call: Call) -> None:
        await call.respond(self.text().encode(), content_type=CONTENT_TYPE)

    def text(self) -> str:
        engine = self._engine
        engine.settle()
        done = engine.statistics
        preemptions = 0  # this engine has room for the whole answer before it starts
        return "".join(
            [
                self._single("gauge", "num_requests_running", engine.running),
                self._single("gauge", "num_requests_waiting", engine.waiting),
                self._several(
                    "gauge", "num_requests_waiting_by_reason", "reason", {"capacity": engine.waiting, "deferred": 0}
                ),
                self._single("gauge", "kv_cache_usage_perc", engine.kv_cache_usage()),
                self._single("counter", "prefix_cache_queries_total", done.prefix_queries),
                self._single("counter", "prefix_cache_hits_total", done.prefix_hits),
                self._single("counter", "num_preemptions_total", preemptions),
                self._single("counter", "prompt_tokens_total", done.prompt_tokens),
                self._single("counter", "generation_tokens_total", done.generation_tokens),
                self._several("counter", "request_success_total", "finished_reason", done.finished),
                self._rejections(),
                self._histogram("request_prompt_tokens", done.request_prompt_tokens),
                self._histogram("request_generation_tokens", done.request_generation_tokens),
                self._histogram("time_to_first_token_seconds", done.first_token_seconds),
                self._histogram("e2e_request_latency_seconds", done.end_to_end_seconds),
                self._histogram("request_queue_time_seconds", done.queue_seconds),
                self._adapters(),
                self._cache_config,
            ]
        )

    def _single(self, kind: str, name: str, value: float) -> str:
        return f'{_head(kind, name)}vllm:{name}{{engine="0",{self._model}}} {float(value)}\n'

    def _several(self, kind: str, name: str, label: str, values: dict[str, int]) -> str:
        lines = [
            f"vllm:{name}{{{self._labels(label, key)}}} {float(value)}\n"
            for key, value in values.items()
        ]  # fmt: skip
        return _head(kind, name) + "".join(lines)

    def _histogram(self, name: str, histogram: Histogram) -> str:
        lines = [
            f'vllm:{name}_bucket{{engine="0",le="{bound}",{self._model}}} {float(count)}\n'
            for bound, count in histogram.buckets()
        ]
        labels = f'engine="0",{self._model}'
        return (
            f"{_head('histogram', name)}{''.join(lines)}"
            f"vllm:{name}_count{{{labels}}} {float(histogram.count)}\n"
            f"vllm:{name}_sum{{{labels}}} {float(histogram.total)}\n"
        )

    def _rejections(self) -> str:
        """The one series without an engine label."""
        name = "admission_rejections_total"
        return (
            f"{_head('counter', name)}"
            f'vllm:{name}{{{self._model},reason="max_num_queued_reqs"}} {float(self._engine.refused)}\n'
            f'vllm:{name}{{{self._model},reason="max_num_queued_tokens"}} 0.0\n'
        )

    def _adapters(self) -> str:
        """The series without engine and model; there is none where no adapters are served."""
        engine = self._engine
        if not engine.settings.adapters:
            return ""
        name, limit = "lora_requests_info", engine.settings.max_loras
        lines = []
        for combination, seen_at in engine.adapter_series().items():
            names = _escape(combination)
            labels = f'max_lora="{limit}",running_lora_adapters="{names}",waiting_lora_adapters="{names}"'
            lines.append(f"vllm:{name}{{{labels}}} {seen_at!r}\n")
        return _head("gauge", name) + "".join(lines)

    def _labels(self, label: str, value: str) -> str:
        pair = f'{label}="{value}"'
        return ",".join(sorted(['engine="0"', self._model, pair]))


_HELP = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "num_requests_waiting_by_reason": "Number of waiting requests by reason.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
    "prefix_cache_queries_total": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits_total": "Prefix cache hits, in terms of number of cached tokens.",
    "num_preemptions_total": "Cumulative number of preemption from the engine.",
    "prompt_tokens_total": "Number of prefill tokens processed.",
    "generation_tokens_total": "Number of generation tokens processed.",
    "request_success_total": "Count of successfully processed requests.",
    "admission_rejections_total": "Number of admission attempts rejected by a queue limit, by reason.",
    "lora_requests_info": "Running stats on lora requests.",
    "request_prompt_tokens": "Number of prefill tokens processed.",
    "request_generation_tokens": "Number of generation tokens processed.",
    "time_to_first_token_seconds": "Histogram of time to first token in seconds.",
    "e2e_request_latency_seconds": "Histogram of e2e request latency in seconds.",
    "request_queue_time_seconds": "Histogram of time spent in WAITING phase for request.",
    "cache_config_info": "Information of the LLMEngine CacheConfig",
}


def _head(kind: str, name: str) -> str:
    return f"# HELP vllm:{name} {_HELP[name]}\n# TYPE vllm:{name} {kind}\n"


def _cache_config(settings: SimulatorSettings) -> str:
    """The labels that say something here, of the thirty that vLLM has; no model_name among them."""
    tokens = settings.block_size * settings.num_gpu_blocks
    labels = {
        "block_size": settings.block_size,
        "cache_dtype": "auto",
        "effective_attention_block_size": settings.block_size,
        "enable_prefix_caching": settings.prefix_caching,
        "engine": 0,
        "kv_cache_max_concurrency": tokens / settings.max_model_len,
        "kv_cache_size_tokens": tokens,
        "num_gpu_blocks": settings.num_gpu_blocks,
        "prefix_caching_hash_algo": "sha256",
    }
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{_head('gauge', 'cache_config_info')}vllm:cache_config_info{{{pairs}}} 1.0\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
