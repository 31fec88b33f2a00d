"""What does picking cost? `make bench-picking`: a pick, a prompt's hashes, and reading a hundred pods' metrics.

Beside each figure stands what issue 6 allows. The first four are the best of several rounds, in one process without any
traffic; the last is the CPU time of a process that does nothing but read metrics.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import httpx
import orjson
import uvloop

from app.main import make_transport
from bench.gateway import PROJECT
from bench.metrics_pods import PODS, addresses, page
from bench.processes import Server, cores, free_port, pinned
from discovery.backend import Backend, Endpoint, PoolSettings
from discovery.model_servers.engines import read_metrics
from discovery.model_servers.server_load import KvCache, ServerLoad
from discovery.snapshot import BackendRef, Routing, Rule, Snapshot
from middleware.inference_request import read_body
from middleware.scheduling.load import Load
from middleware.scheduling.prompt import block_hashes, first_bytes, salt_of, seed_of
from middleware.scheduling.scheduler import Asked, Scheduler
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.scraper import MetricsScraper

POOL = PoolSettings()
JSON = b"application/json"
ROUNDS = 20
SCRAPED_SECONDS = 8.0


def best_microseconds(act: Callable[[], object], *, times: int) -> float:
    """Of one call, in the best of the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(times):
            act()
        best = min(best, (time.perf_counter() - started) / times)
    return best * 1e6


def chat(size: int, seed: int) -> bytes:
    """A request whose prompt has so many bytes."""
    text = random.Random(seed).randbytes(size // 2).hex()
    return orjson.dumps({"model": "qwen", "messages": [{"role": "user", "content": text}]})


def loads_of(count: int, draw: random.Random) -> list[Load]:
    """Endpoints that differ."""
    loads = []
    for _ in range(count):
        load = Load()
        reading = ServerLoad(draw.randrange(5), draw.randrange(30), draw.random(), None, KvCache(16, 8192))
        load.read(reading, mark=0, at=time.monotonic(), interval_seconds=10.0)
        loads.append(load)
    return loads


def hashes_of(body: bytes) -> list[int]:
    """Of the blocks of its prompt."""
    prompt = read_body(body, JSON).prompt
    assert prompt is not None
    return block_hashes(first_bytes(prompt), seed=seed_of("qwen", salt_of(prompt)), block_tokens=64)


def pick_microseconds(count: int) -> float:
    """Reading and hashing a prompt of 8 KB, looking it up, scoring ``count`` endpoints and picking one. Every second
    endpoint has some of the prompt."""
    draw = random.Random(count)
    scheduler, loads, body = Scheduler(), loads_of(count, draw), chat(8000, 1)
    hashes = hashes_of(body)
    for load in loads[::2]:
        scheduler.index.add(load, hashes[: draw.randrange(len(hashes))], capacity=1000)

    def pick() -> None:
        asked = Asked(read_body(body, JSON))
        asked.model = "qwen"
        scheduler.pick("pool", POOL, asked, loads)
        scheduler.failed(asked)

    return best_microseconds(pick, times=20)


def hash_microseconds() -> float:
    """Finding and hashing a prompt of 1 MB."""
    body = chat(1_000_000, 2)
    return best_microseconds(lambda: hashes_of(body), times=3)


async def scraping_share(port: int) -> tuple[float, float]:
    """The share of a core that reading all pods takes, and the seconds between two readings of one pod."""
    endpoints = tuple(
        Endpoint(id=address, address=address, port=port, url=httpx.URL(f"http://{address}:{port}/"))
        for address in addresses(PODS)
    )
    backend = Backend(id="InferencePool/default/p", kind="InferencePool", namespace="default", name="p", pool=POOL)
    rule = Rule(
        id="r",
        route="default/r",
        route_kind="HTTPRoute",
        name="0",
        backend_refs=(BackendRef(name="default/p", weight=1, backend=backend),),
    )
    membership = MappingProxyType({backend.id: endpoints})
    snapshot = Snapshot(version=1, routing=Routing(rules=(rule,)), membership=membership)
    registry = UpstreamRegistry(make_transport=make_transport)
    scraper = MetricsScraper(registry=registry, make_transport=make_transport)
    registry.follow(snapshot)
    scraper.follow(snapshot)
    await asyncio.sleep(1.5)  # until all are known to be busy
    started = time.process_time()
    await asyncio.sleep(SCRAPED_SECONDS)
    share = (time.process_time() - started) / SCRAPED_SECONDS
    interval = registry.upstream(endpoints[0]).load.interval_seconds
    await scraper.close()
    registry.close()
    return share, interval


def main() -> None:
    """`python -m bench.picking`."""
    measured, other = cores()
    text = page()
    rows = [
        ("pick among 100, prompt of 8 KB", pick_microseconds(100), 250.0),
        ("pick among 1,000", pick_microseconds(1000), 1000.0),
        ("hash 1 MB", hash_microseconds(), 2000.0),
        (
            f"read metrics of {len(text) // 1000} KB",
            best_microseconds(lambda: read_metrics(text, "vllm"), times=50),
            None,
        ),
    ]
    for what, found, allowed in rows:
        verdict = "" if allowed is None else f"   allowed {allowed:.0f}: {'kept' if found < allowed else 'MISSED'}"
        print(f"{what:<34} {found:>8.0f} µs{verdict}")
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        pods = Server(
            name="pods",
            command=[sys.executable, "-m", "bench.metrics_pods", str(port), "--busy"],
            core=other,
            output=Path(name) / "pods.log",
            directory=PROJECT,
        )
        try:
            pods.wait_line()
            with pinned(measured), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                share, interval = runner.run(scraping_share(port))
        finally:
            pods.stop()
    verdict = "kept" if share < 0.15 else "MISSED"
    every = f"{PODS} pods' metrics every {interval * 1000:.0f} ms"
    print(f"{every:<34} {share:>8.1%} of a core   allowed 15%: {verdict}")


if __name__ == "__main__":
    main()
