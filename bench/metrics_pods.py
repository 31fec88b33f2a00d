"""A hundred pods that do nothing but tell their metrics, 60 KB each: `python -m bench.metrics_pods PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

PODS = 100
ADDRESSES = tuple(f"127.3.0.{number + 1}" for number in range(PODS))


def page() -> bytes:
    """As long as a vLLM's after some traffic, with the lines that count where they stand there."""
    line = 'vllm:some_histogram_seconds_bucket{{engine="0",le="{0}",model_name="qwen"}} {0}.0\n'
    many = "".join(line.format(number) for number in range(760))
    return (
        f"{many[:4000]}\n"
        'vllm:num_requests_running{engine="0",model_name="qwen"} 8.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="qwen"} 2.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="qwen"} 0.25\n'
        f"{many}"
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="8192"} 1.0\n'
    ).encode()


class _Pod(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


async def main(port: int) -> None:
    """Serve until killed."""
    body = page()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=1.0.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: _Pod(head + body), address, port) for address in ADDRESSES]
    print("ready", flush=True)
    await servers[0].serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
