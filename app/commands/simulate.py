"""What does `pointsman simulate` take, and how long does it run?"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import click

from app.commands.process import fail, run, say
from app.commands.values import PORT

if TYPE_CHECKING:
    from app.simulator.settings import SimulatorSettings


@click.command()
@click.option("--port", required=True, type=PORT, help="Where it listens; 0 takes a free port.")
@click.option(
    "--model", required=True, multiple=True, help="A name it serves. Repeatable; the first is the base model."
)
@click.option("--host", default="127.0.0.1", help="The address it listens on.")
@click.option("--name", default="simulator", help="The pod's name, which its answers tell.")
@click.option("--ttft", default=0.0, type=click.FloatRange(0), help="Seconds to the first token.")
@click.option("--itl", default=0.0, type=click.FloatRange(0), help="Seconds between tokens.")
@click.option(
    "--output-tokens",
    default=16,
    type=click.IntRange(1),
    help="Tokens of an answer to a request without a limit.",
)
@click.option(
    "--max-num-seqs",
    default=256,
    type=click.IntRange(1),
    help="How many requests run at once; others wait.",
)
@click.option(
    "--fail-rate",
    default=0.0,
    type=click.FloatRange(0, 1),
    help="The share of requests that are answered with 500.",
)
@click.option("--prefix-caching", is_flag=True, help="Prompts that begin alike are computed once.")
@click.option(
    "--prefill-rate",
    default=0.0,
    type=click.FloatRange(0),
    help="Prompt tokens computed in a second, one prompt after the other; 0: at once.",
)
@click.option("--kv-blocks", default=8192, type=click.IntRange(2), help="Blocks of its KV cache.")
@click.option("--block-size", default=128, type=click.IntRange(1), help="Tokens in a block.")
@click.option("--adapter", multiple=True, help="A LoRA adapter that it answers to. Repeatable.")
@click.option("--max-loras", default=1, type=click.IntRange(1), help="How many adapters run at once; others wait.")
@click.option("--while-stdin-is-open", is_flag=True, hidden=True, help="End with the process that started this one.")
def simulate(
    port: int,
    model: tuple[str, ...],
    host: str,
    name: str,
    ttft: float,
    itl: float,
    output_tokens: int,
    max_num_seqs: int,
    fail_rate: float,
    prefix_caching: bool,
    prefill_rate: float,
    kv_blocks: int,
    block_size: int,
    adapter: tuple[str, ...],
    max_loras: int,
    while_stdin_is_open: bool,
) -> None:
    """Run a simulated model server, without a GPU."""
    from app.simulator.settings import SimulatorSettings

    settings = SimulatorSettings(
        models=model,
        name=name,
        ttft_seconds=ttft,
        itl_seconds=itl,
        output_tokens=output_tokens,
        max_num_seqs=max_num_seqs,
        fail_rate=fail_rate,
        prefix_caching=prefix_caching,
        prefill_tokens_per_second=prefill_rate,
        num_gpu_blocks=kv_blocks,
        block_size=block_size,
        adapters=adapter,
        max_loras=max_loras,
        recorded_requests=0,
    )
    run(lambda: _simulate(settings, host, port, while_stdin_is_open=while_stdin_is_open))


async def _simulate(settings: SimulatorSettings, host: str, port: int, *, while_stdin_is_open: bool) -> None:
    from app.simulator.server import SimulatedModelServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if while_stdin_is_open:

        def look_at_stdin() -> None:
            if not os.read(0, 4096):
                asyncio.get_running_loop().remove_reader(0)
                stop.set()

        asyncio.get_running_loop().add_reader(0, look_at_stdin)
    try:
        async with SimulatedModelServer(settings, host=host, port=port) as server:
            say(f"simulating {', '.join(settings.models)} at {server.url}")
            await stop.wait()
    except OSError as error:
        raise fail(f"cannot listen: {error.strerror or error}") from None
