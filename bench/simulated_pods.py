"""Sixteen pods in one process, for a benchmark of routing: `python -m bench.simulated_pods PORT`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import uvloop

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings

PODS = 16
ADDRESSES = tuple(f"127.2.0.{number + 1}" for number in range(PODS))
BLOCK_TOKENS = 64
PREFILL_TOKENS_PER_SECOND = 3000.0  # of one pod: a slow GPU, so that few requests a second fill it
POLICIES = ("random", "round robin", "least request", "default profile")


def model_of(policy: str) -> str:
    """Each way of picking has a model name of its own; the pods answer to all."""
    return policy.replace(" ", "-")


SETTINGS = SimulatorSettings(
    models=tuple(model_of(policy) for policy in POLICIES),
    ttft_seconds=0.02,
    itl_seconds=0.02,
    max_num_seqs=32,
    prefix_caching=True,
    prefill_tokens_per_second=PREFILL_TOKENS_PER_SECOND,
    block_size=BLOCK_TOKENS,
    num_gpu_blocks=1024,
    recorded_requests=0,
)


async def main(port: int) -> None:
    """Serve until killed."""
    async with AsyncExitStack() as stack:
        for address in ADDRESSES:
            await stack.enter_async_context(SimulatedModelServer(SETTINGS, host=address, port=port))
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
