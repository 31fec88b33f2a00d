"""What does the gateway watch? An API server with many pods and routes, in a process of its own.

Prints its kubeconfig's path as one line and serves until it is terminated. At SIGUSR1 it changes pods, at a steady rate
for some seconds: what kubelets report, and for some a readiness that flips, which changes what the gateway may pick.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import uvloop

from bench.metrics_pods import addresses
from tests.support.clusters import gateway, gateway_class, pod, pool, route
from tests.support.kube_api import KubeApi

POOLS = 20
_TICK_SECONDS = 0.02


def fill(api: KubeApi, *, pods: int, routes: int, port: int) -> None:
    """A class, a Gateway, some pools with all pods in them, and a route for each model."""
    api.create(gateway_class())
    api.create(gateway())
    for number in range(POOLS):
        api.create(pool(f"pool-{number}", port=port))
    for number in range(routes):
        api.create(route(f"route-{number}", models={f"org/model-{number}": f"pool-{number % POOLS}"}))
    for number, address in enumerate(addresses(pods)):
        api.create(_pod(number, address))


def _pod(number: int, address: str) -> dict[str, Any]:
    """A pod about as large as real ones are."""
    made = pod(f"pod-{number}", address)
    made["metadata"]["labels"] = {"app": f"pool-{number % POOLS}", "pod-template-hash": "5d4f8c7b9", "version": "v1"}
    made["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": {f"f:{n}": {} for n in range(60)}}]
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11",
        "env": [{"name": f"E{n}", "value": "x" * 20} for n in range(20)],
    }
    made["spec"]["containers"] = [{**container, "ports": [{"name": "http", "containerPort": 8000}]}]
    made["spec"]["tolerations"] = [{"key": f"k{n}", "operator": "Exists"} for n in range(4)]
    return made


async def churn(api: KubeApi, *, pods: int, rate: int, flips: int, seconds: float) -> None:
    """Change one pod after the other; every ``flips``-th change turns a pod ready or unready."""
    loop = asyncio.get_running_loop()
    started, done = loop.time(), 0
    while (elapsed := loop.time() - started) < seconds:
        while done < elapsed * rate:
            name = f"pod-{done % pods}"
            found = api.get("pods", name)
            ready = found["status"]["conditions"][0]["status"]
            if done % flips == 0:
                ready = "False" if ready == "True" else "True"
            conditions = [{"type": "Ready", "status": ready, "lastProbeTime": f"probe {done}"}]
            api.set_status("pods", name, {**found["status"], "conditions": conditions})
            done += 1
        await asyncio.sleep(_TICK_SECONDS)


async def serve(arguments: argparse.Namespace) -> None:
    """Until SIGTERM."""
    stop, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, go.set)

    async def churn_when_told(api: KubeApi) -> None:
        while True:
            await go.wait()
            go.clear()
            await churn(api, pods=arguments.pods, rate=arguments.rate, flips=arguments.flips, seconds=arguments.seconds)

    async with KubeApi() as api:
        fill(api, pods=arguments.pods, routes=arguments.routes, port=arguments.port)
        churning = asyncio.create_task(churn_when_told(api))
        print(api.kubeconfig(arguments.folder), flush=True)
        await stop.wait()
        churning.cancel()


def main() -> None:
    """The process's entry."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True, help="that the pods take requests at")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--routes", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--flips", type=int, default=11, help="one in so many events flips a readiness")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    os.nice(5)  # it shares a core with what asks and answers, whose times are measured
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments))


if __name__ == "__main__":
    main()
