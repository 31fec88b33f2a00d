"""Whose metrics are these? By the pod's label, else by the names that are in the text (pure)."""

from __future__ import annotations

from collections.abc import Callable

from discovery.model_servers.exposition import Page, Places
from discovery.model_servers.server_load import ServerLoad
from discovery.model_servers.sglang import read_sglang
from discovery.model_servers.tensorrt_llm import read_tensorrt_llm
from discovery.model_servers.triton import read_triton, read_triton_tensorrt_llm
from discovery.model_servers.vllm import read_vllm

# Pod labels whose value is one of PARSERS; llm-d's name first.
ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")

Parser = Callable[[Page], ServerLoad]

PARSERS: dict[str, Parser] = {
    "vllm": read_vllm,
    "sglang": read_sglang,
    "trtllm-serve": read_tensorrt_llm,
    "triton-tensorrt-llm": read_triton_tensorrt_llm,
    "triton": read_triton,
}
# What only this engine's text holds. A Triton with the TensorRT-LLM backend has both of Triton's.
_SIGNS = (
    (b"\nvllm:", "vllm"),
    (b"\nsglang:", "sglang"),
    (b"\ntrtllm_", "trtllm-serve"),
    (b"\nnv_trt_llm_", "triton-tensorrt-llm"),
    (b"\nnv_inference_", "triton"),
)


def recognise(text: bytes) -> str | None:
    """The engine whose metrics these are, or None."""
    for sign, engine in _SIGNS:
        if text.startswith(sign[1:]) or sign in text:
            return engine
    return None


def read_metrics(text: bytes, engine: str | None, places: Places | None = None) -> tuple[ServerLoad, str | None]:
    """What the text tells, and the engine that it is of. ``engine`` as the pod's label has it or as it was found out
    before; None or one that nobody knows: found out now. Text of no known engine tells nothing: all is 0.

    ``places`` are those of the endpoint that said it. Raises UnusableMetricsError.
    """
    parser = PARSERS.get(engine) if engine is not None else None
    if parser is None:
        engine = recognise(text)
        if engine is None:
            return ServerLoad(), None
        parser = PARSERS[engine]
    return parser(Page(text, places)), engine
