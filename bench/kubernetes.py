"""What does following a cluster cost? Memory and CPU at rest, and what a thousand events a second do to requests.

`make bench-kubernetes` prints the figures beside the bounds of issue 5. Requests go to models of a file, so that they
have pods that answer; the cluster beside it has as many pods and routes as are asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.gateway import PROJECT
from bench.loads import MODELS_IN_USE, POD_ADDRESSES, Behaviour, Place, json_answer, model_name, request_bytes
from bench.processes import BenchError, Server, allow_many_files, cores, free_port
from bench.servers import Servers

ALLOWED_IDLE_SHARE = 0.03
ALLOWED_P99_SECONDS = 0.020
ALLOWED_RSS_BYTES = 200_000_000
_CLIENTS = 20
_REQUESTS_PER_SECOND = 200


def start_cluster(folder: Path, core: set[int], arguments: argparse.Namespace) -> tuple[Server, str]:
    """The API server's process and the path of its kubeconfig."""
    command = [sys.executable, "-m", "bench.cluster", "--folder", str(folder)]
    command += ["--pods", str(arguments.pods), "--routes", str(arguments.routes)]
    command += ["--rate", str(arguments.rate), "--flips", str(arguments.flips)]
    command += ["--seconds", str(arguments.seconds + 2)]
    server = Server(name="cluster", command=command, core=core, output=folder / "cluster.log", directory=PROJECT)
    return server, server.wait_line().decode().strip()


def manifests(port: int) -> str:
    """A rule for each model that is asked for, to the model server."""
    reference = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "server"}
    matches = [
        {"headers": [{"name": "X-Gateway-Model-Name", "value": model_name(Behaviour.JSON, number)}]}
        for number in range(MODELS_IN_USE)
    ]
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "asked"},
        "spec": {"rules": [{"matches": matches, "backendRefs": [reference]}]},
    }
    backend = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": "server"},
        "spec": {"endpoints": [{"ip": {"address": address, "port": port}} for address in POD_ADDRESSES]},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [route, backend]})


def start_gateway(folder: Path, core: set[int], name: str, *arguments: str) -> tuple[Server, int]:
    """A gateway over what the arguments name."""
    port = free_port()
    command = [sys.executable, "-m", "app", "serve", *arguments, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--admin-port", str(free_port()), "--drain-grace", "0s", "--drain-timeout", "0s"]
    server = Server(name=name, command=command, core=core, output=folder / f"{name}.log", directory=PROJECT)
    server.wait_listening(port)
    return server, port


def idle_share_of_file(folder: Path, core: set[int], arguments: argparse.Namespace) -> float:
    """The same objects from a file: what is left is the following of the cluster."""
    snapshot = folder / "snapshot.yaml"
    with snapshot.open("wb") as file:
        subprocess.run([sys.executable, "-m", "app", "snapshot"], cwd=PROJECT, stdout=file, check=True)
    server, _ = start_gateway(folder, core, "file", str(snapshot))
    try:
        time.sleep(arguments.settle)
        return idle_share(server, min(arguments.idle, 20.0))
    finally:
        server.stop()


def idle_share(server: Server, seconds: float) -> float:
    """The share of a core that it takes while nothing happens."""
    started, before = time.perf_counter(), server.cpu_seconds()
    time.sleep(seconds)
    return (server.cpu_seconds() - before) / (time.perf_counter() - started)


def p99_of_requests(port: int, seconds: float) -> float:
    """The time that 99 % of answers stay under, of requests that come at a steady rate whatever the answers do."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        latencies = sorted(runner.run(_ask_steadily(port, seconds)))
    return latencies[int(len(latencies) * 0.99)]


async def _ask_steadily(port: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    request = request_bytes(Behaviour.JSON, 0, prompt_bytes=120, place=Place.END)
    expected = json_answer()
    pause = _CLIENTS / _REQUESTS_PER_SECOND

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = loop.time() + pause * number / _CLIENTS
        end = due + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            if await reader.readexactly(len(expected)) != expected:
                raise BenchError("another answer than the expected one")
            latencies.append(loop.time() - due)  # from when it was due: what waits for a late one counts, too
            due += pause
        writer.close()

    await asyncio.gather(*(ask(number) for number in range(_CLIENTS)))
    return latencies


def main() -> int:
    """Print the figures. Returns 0; they are for reading, not for judging."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--routes", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000, help="pod events a second")
    parser.add_argument("--flips", type=int, default=11, help="one in so many of them turns a pod ready or unready")
    parser.add_argument("--idle", type=float, default=70.0, help="seconds at rest: bookmarks come once a minute")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds until a status is written for each route")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round of requests")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    allow_many_files()
    measured_core, other_core = cores()
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as name, Servers(Path(name)) as servers:
        folder = Path(name)
        cluster, kubeconfig = start_cluster(folder, other_core, arguments)
        gateway: Server | None = None
        try:
            os.environ["KUBECONFIG"] = kubeconfig
            started = time.perf_counter()
            manifest = folder / "asked.json"
            manifest.write_text(manifests(servers.upstream_ports["json"]))
            gateway, port = start_gateway(folder, measured_core, "gateway", str(manifest), "--kubernetes")
            print(f"{arguments.pods:,} pods and {arguments.routes:,} routes, from a kubeconfig")
            print(f"from the start to the first request: {time.perf_counter() - started:.1f} s")
            time.sleep(arguments.settle)
            print(f"memory: {gateway.rss_bytes() / 1e6:.0f} MB (allowed: {ALLOWED_RSS_BYTES / 1e6:.0f} MB)")
            share = idle_share(gateway, arguments.idle)
            of_file = idle_share_of_file(folder, measured_core, arguments)
            print(
                f"at rest: {share:.2%} of a core (allowed: {ALLOWED_IDLE_SHARE:.0%}); the same objects from a file: "
                f"{of_file:.2%}, which is mostly the asking of every pod for its metrics"
            )
            quiet: list[float] = []
            busy: list[float] = []
            for _ in range(arguments.rounds):
                quiet.append(p99_of_requests(port, arguments.seconds))
                os.kill(cluster.pid, signal.SIGUSR1)
                time.sleep(1.0)
                busy.append(p99_of_requests(port, arguments.seconds))
                time.sleep(2.0)
            before, after = min(quiet), min(busy)  # what else runs on the machine can only add to it
            print(
                f"p99 of {_REQUESTS_PER_SECOND} requests a second: {before * 1000:.1f} ms, with {arguments.rate:,} pod "
                f"events a second {after * 1000:.1f} ms: {(after - before) * 1000:+.1f} ms (allowed: "
                f"{ALLOWED_P99_SECONDS * 1000:.0f} ms)"
            )
            print(f"memory afterwards: {gateway.rss_bytes() / 1e6:.0f} MB")
        finally:
            if gateway is not None:
                gateway.stop()
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
