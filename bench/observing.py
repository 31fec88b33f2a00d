"""What does being watched cost? One gateway with metrics, log and traces, and without them, in turns.

`make bench-observing`. Traces go to a collector that is not there and none is sampled: what every request pays. The
figures are differences of one round, so that a machine that gets slower hits both sides; what a chunk pays, and each
observer, is also measured alone, without sockets. At the end: how long a scrape of 10,000 models holds up the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import uvloop
from starlette.types import Message

from app.access_log import AccessLog
from app.counting import RequestCounts
from app.exposition import exposition
from app.logs import LineWriter
from app.memory import settle_memory
from app.tracing.settings import read_tracing_settings
from app.tracing.setup import TracingPipeline
from bench.client import drive
from bench.gateway import PROJECT
from bench.loads import EVENTS_IN_BURST, LOADS
from bench.processes import BenchError, allow_many_files, stolen_seconds
from bench.report import OURS
from bench.servers import Servers
from discovery.backend import Backend, Endpoint
from discovery.snapshot import BackendRef, Routing, Rule, SnapshotStore
from middleware.exchange import Exchange
from middleware.telemetry import ExchangeObserver, new_exchange, noting_send
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Pick, Upstream
from middleware.upstream.transport import UpstreamTransport

ALLOWED_REQUEST_MICROSECONDS = 40.0
ALLOWED_CHUNK_MICROSECONDS = 1.0
UNSAMPLED = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0",
}

_SCOPE = {
    "type": "http",
    "method": "POST",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "headers": [
        (b"host", b"gateway"),
        (b"content-type", b"application/json"),
        (b"user-agent", b"OpenAI/Python 1.60.0"),
    ],
    "client": ("192.0.2.7", 50000),
    "scheme": "http",
}


def _rule(number: int) -> Rule:
    backend = Backend(id=f"InferencePool/default/model-{number}", kind="InferencePool", namespace="default", name="m")
    ref = BackendRef(name=f"default/model-{number}", weight=1, backend=backend)
    route = f"default/models-{number // 16}"
    name = str(number % 16)
    return Rule(id=f"HTTPRoute/{route}/{name}", route=route, route_kind="HTTPRoute", name=name, backend_refs=(ref,))


def _pick(rule: Rule) -> Pick:
    url = httpx.URL("http://192.0.2.1:8000/")
    endpoint = Endpoint(id="192.0.2.1:8000", address="192.0.2.1", port=8000, url=url)
    upstream = Upstream(endpoint=endpoint, transport=UpstreamTransport(address="192.0.2.1", port=8000))
    return Pick(rule.backend_refs[0], endpoint, upstream)


def _finished(rule: Rule, pick: Pick, model: str) -> Exchange:
    """A stream that ended well."""
    exchange = new_exchange(_SCOPE, 0.0)
    exchange.rule, exchange.model, exchange.status = rule, model, 200
    exchange.attempts.append(Attempt(pick=pick, started_at=0.1, ended_at=1.0, status=200, outcome=Outcome.ANSWERED))
    exchange.read_at, exchange.first_byte_at, exchange.ended_at = 0.1, 0.5, 1.0
    exchange.chunks_sent, exchange.bytes_sent, exchange.input_tokens, exchange.output_tokens = 64, 9_000, 31, 62
    return exchange


def _each(run: Callable[[], object]) -> float:
    """Microseconds; of five runs the best."""
    return min(timeit.repeat(run, number=5_000, repeat=5)) / 5_000 * 1e6


async def print_pieces() -> None:
    """Each observer alone, and what a chunk pays."""
    rule = _rule(0)
    pick = _pick(rule)
    store = SnapshotStore()
    store.publish(Routing(rules=(rule,), model_names=frozenset({"model-0"})), {})
    descriptor = os.open(os.devnull, os.O_WRONLY)
    writer = LineWriter(file_descriptor=descriptor)
    writer.use_loop(asyncio.get_running_loop().call_later)
    settings = read_tracing_settings(UNSAMPLED)
    assert settings is not None
    pipeline = TracingPipeline(settings)
    counts, log = RequestCounts(store=store), AccessLog(writer, is_readable=False)
    exchange = _finished(rule, pick, "model-0")

    def observed(observer: ExchangeObserver) -> Callable[[], None]:
        def run() -> None:
            observer.started(exchange)
            observer.finished(exchange)

        return run

    def named() -> object:
        assert exchange.trace is not None
        return exchange.trace.attempt_headers(exchange, exchange.attempts[0], [(b"host", b"pod")])

    print("metrics, per request: ", f"{_each(observed(counts)):.1f} µs")
    print("traces that are not sampled, per request:", f"{_each(observed(pipeline.observer)):.1f} µs,", end=" ")
    print(f"and {_each(named):.1f} µs per attempt")
    os.environ["OTEL_TRACES_SAMPLER_ARG"] = "1"
    sampling = TracingPipeline(settings)

    def sampled() -> None:
        sampling.observer.started(exchange)
        assert exchange.trace is not None
        exchange.trace.attempt_headers(exchange, exchange.attempts[0], [(b"host", b"pod")])
        sampling.observer.finished(exchange)

    print("traces that are sampled, per request with one attempt, of which three spans:", f"{_each(sampled):.0f} µs")
    os.environ.update(UNSAMPLED)
    await sampling.close()
    print("log line, per request:", f"{_each(observed(log)):.1f} µs")
    await pipeline.close()
    writer.close()
    os.close(descriptor)

    async def nothing(message: Message) -> None: ...

    chunk: Message = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
    noting = noting_send(exchange, nothing, time.perf_counter)
    noted = _each(lambda: noting(chunk).close())  # type: ignore[attr-defined]  # it is a coroutine
    plain = _each(lambda: nothing(chunk).close())
    print(f"noting a chunk: {noted - plain:.2f} µs, allowed: {ALLOWED_CHUNK_MICROSECONDS:.0f}")


def compare(servers: Servers, *, rounds: int, seconds: float) -> None:
    """Print the differences in CPU per request, and per event of a burst, between one gateway's two states."""
    prefix = ("env", *(f"{name}={value}" for name, value in UNSAMPLED.items()))
    server = servers.start_gateway(OURS, PROJECT, module="bench.switched", prefix=prefix)
    medians = {}
    for load in (LOADS["json"], LOADS["burst"]):
        run = partial(drive, load, port=servers.port(OURS, load), seconds=seconds, cpu_seconds=server.cpu_seconds)
        run()  # caches fill, code is specialised
        costs: dict[int, list[float]] = {signal.SIGUSR1: [], signal.SIGUSR2: []}
        for number in range(2 * rounds):
            # Unobserved and observed, observed and unobserved: what drifts hits both.
            switch = signal.SIGUSR1 if number % 4 in (0, 3) else signal.SIGUSR2
            os.kill(server.pid, switch)
            costs[switch].append(run().cpu_per_unit * 1e6)
        plain = costs[signal.SIGUSR1]
        more = [with_it - without for with_it, without in zip(costs[signal.SIGUSR2], plain, strict=True)]
        medians[load.name] = statistics.median(more)
        low, _, high = statistics.quantiles(more, n=4)
        print(
            f"{load.title}: {statistics.median(plain):.0f} µs CPU per request unobserved, observed "
            f"{statistics.median(more):+.1f} (half of the rounds {low:+.1f} to {high:+.1f}) µs"
        )
    each = (medians["burst"] - medians["json"]) / EVENTS_IN_BURST
    print(f"allowed: {ALLOWED_REQUEST_MICROSECONDS:.0f} µs per request; an event more: {each:+.2f} µs")


async def print_scrape(models: int) -> None:
    """The longest break for everybody else while everything of so many models is told."""
    rules = tuple(_rule(number) for number in range(models))
    store = SnapshotStore()
    counts = RequestCounts(store=store)
    store.publish(Routing(rules=rules, model_names=frozenset(f"model-{number}" for number in range(models))), {})
    pick = _pick(rules[0])
    for number, rule in enumerate(rules):
        mine = replace(pick.backend_ref, name=f"default/model-{number}")
        exchange = _finished(rule, Pick(mine, pick.endpoint, pick.upstream), f"model-{number}")
        counts.started(exchange)
        counts.finished(exchange)
    settle_memory()
    breaks: list[float] = []
    is_over = asyncio.Event()

    async def stream() -> None:
        last = time.thread_time()  # of this thread alone: who else has the core does not matter
        while not is_over.is_set():
            await asyncio.sleep(0)
            now = time.thread_time()
            breaks.append(now - last)
            last = now

    streaming = asyncio.create_task(stream())
    size, before = 0, time.process_time()
    async for part in exposition(counts.families(), is_openmetrics=True):
        size += len(part)
    took = time.process_time() - before
    is_over.set()
    await streaming
    print(
        f"a scrape of {models:,} models that all have been asked: {size / 1e6:.0f} MB in {took:.2f} s of CPU; "
        f"longest break {max(breaks) * 1e3:.1f} ms, half are below {statistics.median(breaks) * 1e3:.1f} ms"
    )


def main(argv: list[str] | None = None) -> int:
    """Print the figures; they are for reading. Returns 1 when a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.observing", description="What being watched costs.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--models", type=int, default=10_000, help="of the scrape")
    chosen = parser.parse_args(argv)
    allow_many_files()
    os.environ.update(UNSAMPLED)
    logging.getLogger("app.tracing").setLevel(logging.ERROR)  # that nobody takes the traces is meant
    uvloop.run(print_pieces())
    try:
        stolen = stolen_seconds()
        with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as name, Servers(Path(name)) as servers:
            compare(servers, rounds=chosen.rounds, seconds=chosen.seconds)
        print(f"CPU time that the hypervisor gave to others meanwhile: {stolen_seconds() - stolen:.1f} s")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    uvloop.run(print_scrape(chosen.models))
    return 0


if __name__ == "__main__":
    sys.exit(main())
