"""What do breaker, retry policy and model rewriting cost? A gateway without them beside one with them, in turns.

`make bench-rewriting`. The figures are differences of one round, so that a machine that gets slower hits both sides;
what one event costs is also measured alone, without sockets, which is the only way to see half a microsecond.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.gateway import PROJECT
from bench.loads import (
    ANSWERED_NAME,
    EVENTS_IN_BURST,
    LOADS,
    POD_ADDRESSES,
    Behaviour,
    Place,
    burst_events,
    json_answer,
    request_bytes,
)
from bench.processes import BenchError, allow_many_files, stolen_seconds
from bench.report import OURS, LoadResult
from bench.servers import Servers
from middleware.json_members import replace_model
from middleware.model_names import AnswerNames

ASKED_NAME = "food-review"
POLICIES, REWRITING = "with breaker and retries", "and a rewrite"
ALLOWED_REQUEST_MICROSECONDS = 25.0
ALLOWED_CHUNK_MICROSECONDS = 2.0
_GATEWAY_API, _INFERENCE = "gateway.networking.k8s.io", "inference.networking.k8s.io"


def manifest(ports: Mapping[str, int], *, has_policy: bool, is_rewritten: bool) -> str:
    """A rule and a pool of pods for each behaviour; the model's name says which."""
    rules: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for behaviour in (Behaviour.JSON, Behaviour.BURST):
        pool = behaviour.value
        header = {"name": "X-Gateway-Model-Name", "value": f"{ASKED_NAME}-{pool}"}
        reference = {"group": _INFERENCE, "kind": "InferencePool", "name": pool}
        rules.append({"matches": [{"headers": [header]}], "backendRefs": [reference]})
        picker = {"name": "picker", "port": {"number": 9002}, "failureMode": "FailOpen"}
        selector = {"matchLabels": {"app": pool}}
        spec = {"selector": selector, "targetPorts": [{"number": ports[pool]}], "endpointPickerRef": picker}
        objects.append(_object(f"{_INFERENCE}/v1", "InferencePool", pool, spec))
        for index, address in enumerate(POD_ADDRESSES):
            metadata = {"name": f"{pool}-{index}", "labels": {"app": pool}}
            objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"podIP": address}})
        if is_rewritten:
            match = {"model": {"value": f"{ASKED_NAME}-{pool}"}}
            rewrite = {"matches": [match], "targets": [{"modelRewrite": ANSWERED_NAME}]}
            spec = {"poolRef": {"name": pool}, "rules": [rewrite]}
            objects.append(_object("llm-d.ai/v1alpha2", "InferenceModelRewrite", pool, spec))
    objects.append(_object(f"{_GATEWAY_API}/v1", "HTTPRoute", "models", {"rules": rules}))
    if has_policy:
        policy = {
            "targetRefs": [{"group": _GATEWAY_API, "kind": "HTTPRoute", "name": "models"}],
            "healthCheck": {"passive": {"consecutive5XxErrors": 5}},
            "retry": {"numRetries": 2, "perRetry": {"timeout": "30s"}},
            "circuitBreaker": {"maxParallelRequests": 1000},
        }
        objects.append(_object("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy", "models", policy))
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _object(api_version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def piece_microseconds() -> dict[str, float]:
    """What one request's or one chunk's bytes take, without sockets, in microseconds; of five runs the best."""
    first, second, *_ = burst_events()
    half = len(second) // 2
    answer = json_answer()
    body = request_bytes(Behaviour.JSON, 0).partition(b"\r\n\r\n")[2]

    def names(*chunks: bytes, is_stream: bool = True) -> AnswerNames:
        made = AnswerNames(asked=ASKED_NAME, sent=ANSWERED_NAME, is_stream=is_stream)
        for chunk in chunks:
            made.feed(chunk)
        return made

    whole, cut = names(first, second), names(first)
    cases: dict[str, tuple[Callable[[], object], int]] = {
        "the name in a request": (lambda: replace_model(body, b'"bench"'), 1),
        "an unstreamed answer": (lambda: names(answer, is_stream=False), 1),
        "the first event of a stream": (lambda: names(first), 1),
        "every other event": (lambda: whole.feed(second), 1),
        "an event in two reads, each": (lambda: (cut.feed(second[:half]), cut.feed(second[half:])), 2),
        "64 events in one read, each": (lambda: whole.feed(second * 64), 64),
    }
    return {
        what: min(timeit.repeat(run, number=2_000, repeat=5)) / 2_000 / chunks * 1e6
        for what, (run, chunks) in cases.items()
    }


def compare(servers: Servers, *, rounds: int, seconds: float) -> None:
    """Print the differences in CPU per request, and per event of a burst."""
    ports = servers.upstream_ports
    servers.start_gateway(OURS, PROJECT, manifest(ports, has_policy=False, is_rewritten=False))
    servers.start_gateway(POLICIES, PROJECT, manifest(ports, has_policy=True, is_rewritten=False))
    servers.start_gateway(REWRITING, PROJECT, manifest(ports, has_policy=True, is_rewritten=True))
    for load in (LOADS["json"], LOADS["burst"]):
        result = LoadResult(load=load)
        asked = f"{ASKED_NAME}-{load.behaviour.value}"
        for _ in range(rounds):
            servers.round(result, seconds=seconds, place=Place.END, asked=asked, renamed=frozenset({REWRITING}))
        plain = result.costs(OURS)
        print(f"{load.title}: {statistics.median(plain):.0f} µs CPU per request without them")
        for name in (POLICIES, REWRITING):
            more = [with_it - without for with_it, without in zip(result.costs(name), plain, strict=True)]
            spread = f"{statistics.median(more):+.1f} ({min(more):+.1f} to {max(more):+.1f}) µs per request"
            each = f", {statistics.median(more) / EVENTS_IN_BURST:+.2f} per event" if load.name == "burst" else ""
            print(f"  {name}: {spread}{each}")
    print(f"allowed: {ALLOWED_REQUEST_MICROSECONDS:.0f} µs per request, and for each chunk of a stream as above")


def main(argv: list[str] | None = None) -> int:
    """Print the figures; they are for reading. Returns 1 when a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.rewriting", description="What model rewriting costs.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5)
    chosen = parser.parse_args(argv)
    allow_many_files()
    print(f"the rewriting alone; allowed: {ALLOWED_CHUNK_MICROSECONDS:.0f} µs per chunk of a stream")
    for what, microseconds in piece_microseconds().items():
        print(f"  {what}: {microseconds:.2f} µs")
    try:
        stolen = stolen_seconds()
        with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as name, Servers(Path(name)) as servers:
            compare(servers, rounds=chosen.rounds, seconds=chosen.seconds)
        print(f"CPU time that the hypervisor gave to others meanwhile: {stolen_seconds() - stolen:.1f} s")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
