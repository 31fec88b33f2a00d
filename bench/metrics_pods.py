"""Pods that do nothing but tell their metrics, 68 KB each as a vLLM does: `python -m bench.metrics_pods PORT`.

The page is a recorded one. It differs from answer to answer as a vLLM's does: counters grow, and with them their
digits, so that lines do not stay where they were. A pod is busy (`--busy`) or at rest.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
from pathlib import Path
from typing import cast

import uvloop

from bench.processes import allow_many_files

PODS = 100
_RECORDING = Path(__file__).parent.parent / "tests/discovery/model_servers/recordings/under-load.txt"
_PAGES = 16  # that take turns
_COUNTER = re.compile(rb"^([^#\n]*_(sum|seconds_total|count|total|bucket)(?:\{[^\n]*\})? )([0-9][^\n]*)$", re.MULTILINE)


def addresses(pods: int) -> list[str]:
    """An address for each pod."""
    return [f"127.3.{number // 250}.{number % 250 + 1}" for number in range(pods)]


def page(*, is_busy: bool = True, number: int = 0) -> bytes:
    """One of the pages that a pod tells."""
    text = _RECORDING.read_bytes()
    if not is_busy:
        for name in (rb"vllm:num_requests_running", rb"vllm:num_requests_waiting", rb"vllm:kv_cache_usage_perc"):
            text = re.sub(rb"^(%b\{[^\n]*\} ).*$" % name, rb"\g<1>0.0", text, flags=re.MULTILINE)

    def grown(match: re.Match[bytes]) -> bytes:
        step = number * (0.0371 if match[2] in (b"sum", b"seconds_total") else 1.0)
        return match[1] + repr(float(match[3]) + step).encode()

    return _COUNTER.sub(grown, text)


class _Pod(asyncio.Protocol):
    def __init__(self, answers: itertools.cycle[bytes]) -> None:
        self._answers = answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(next(self._answers))


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=1.0.0; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


async def serve(port: int, *, pods: int, is_busy: bool) -> None:
    """Until killed."""
    answers = itertools.cycle([_answer(page(is_busy=is_busy, number=number)) for number in range(_PAGES)])
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: _Pod(answers), address, port) for address in addresses(pods)]
    print("ready", flush=True)
    await servers[0].serve_forever()


def main() -> None:
    """The process's entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--pods", type=int, default=PODS)
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    allow_many_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.port, pods=arguments.pods, is_busy=arguments.busy))


if __name__ == "__main__":
    main()
