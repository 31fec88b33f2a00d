"""How does one simulated model server behave?"""

from dataclasses import dataclass

VERSION = "0.32.0"  # the vLLM whose recordings we follow


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """One simulated pod. The defaults answer at once, which is what a benchmark wants."""

    models: tuple[str, ...]
    """The names it answers to. The first is the base model: it answers when a request names none, and it is the
    `model` of every answer and the `model_name` of every metric, as with vLLM's --served-model-name."""
    name: str = "simulator"
    """The pod's name. It opens every answer and ends `system_fingerprint`, so that one sees which pod answered."""
    ttft_seconds: float = 0.0
    """From the start of a request (not from its arrival: waiting comes on top) to its first token."""
    itl_seconds: float = 0.0
    """Between two tokens. 0: the whole answer is there with its first token."""
    output_tokens: int = 16
    """How long an answer is when the request sets no limit. A request that sets one gets exactly that many tokens."""
    max_num_seqs: int = 256
    """How many sequences run at once; what comes on top of that waits, first come, first served."""
    max_num_queued_reqs: int | None = None
    """Above so many sequences, running and waiting together, a request is refused with 503. None: no limit."""
    fail_rate: float = 0.0
    """The share of requests, 0 to 1, that are answered 500 as if the engine had died."""
    max_model_len: int = 1_048_576
    """A prompt of more tokens is refused with 400. A token is four bytes of the prompt."""
    block_size: int = 128
    num_gpu_blocks: int = 8192
    """The KV cache, in blocks of `block_size` tokens: what kv_cache_usage_perc is a share of. Without prefix caching it
    limits nothing."""
    prefix_caching: bool = False
    """Whether prompts have their blocks: what begins alike is computed once, and a request waits for room."""
    prefill_tokens_per_second: float = 0.0
    """How fast prompts are computed, one after the other, on top of `ttft_seconds`; what is cached takes no time.
    0: at once."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that it answers to, beside its own names."""
    max_loras: int = 1
    """How many adapters can be in one batch; a request for another waits."""
    lora_load_seconds: float = 0.0
    """What loading an adapter adds to the first token, unless it was among the last `max_loras` in use."""
    recorded_requests: int = 100
    """How many of the last requests are kept for tests to look at (see request_log.py). 0: none."""

    def __post_init__(self) -> None:
        if not self.models or not all(self.models):
            raise ValueError("a simulated model server needs at least one model name")
        if min(self.ttft_seconds, self.itl_seconds, self.prefill_tokens_per_second, self.lora_load_seconds) < 0:
            raise ValueError("times and rates cannot be negative")
        if set(self.adapters) & set(self.models) or self.max_loras < 1:
            raise ValueError("adapters have names of their own, and max_loras is at least 1")
        if not 0 <= self.fail_rate <= 1:
            raise ValueError("fail_rate is a share: 0 to 1")
        if min(self.output_tokens, self.max_num_seqs, self.max_model_len, self.block_size) < 1 or (
            self.num_gpu_blocks < 2  # vLLM keeps one block to itself
        ):
            raise ValueError("output_tokens, max_num_seqs, max_model_len, block_size and num_gpu_blocks are at least 1")

    @property
    def base_model(self) -> str:
        return self.models[0]

    @property
    def system_fingerprint(self) -> str:
        return f"vllm-{VERSION}-{self.name}"
