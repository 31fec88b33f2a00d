"""How is our gateway started for a measurement? As a user would start it, with a manifest of 52 models, all logs on."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.loads import MODELS_PER_BEHAVIOUR, POD_ADDRESSES, Behaviour, model_name
from bench.processes import Server, free_port

PROJECT = Path(__file__).resolve().parent.parent


def manifests(ports: Mapping[str, int]) -> str:
    """An HTTPRoute rule, an InferencePool and its Pods for each model, as a Kubernetes List."""
    rules: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for behaviour in Behaviour:
        for number in range(MODELS_PER_BEHAVIOUR):
            pool = f"{behaviour.value}-{number}"
            header = {"type": "Exact", "name": "X-Gateway-Model-Name", "value": model_name(behaviour, number)}
            reference = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool}
            rules.append({"matches": [{"headers": [header]}], "backendRefs": [reference]})
            objects.append(
                {
                    "apiVersion": "inference.networking.k8s.io/v1",
                    "kind": "InferencePool",
                    "metadata": {"name": pool},
                    "spec": {
                        "selector": {"matchLabels": {"app": pool}},
                        "targetPorts": [{"number": ports[behaviour.value]}],
                        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}, "failureMode": "FailOpen"},
                    },
                }
            )
            objects.extend(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": f"{pool}-{index}", "labels": {"app": pool}},
                    "status": {"podIP": address},
                }
                for index, address in enumerate(POD_ADDRESSES)
            )
    # An HTTPRoute holds at most 16 rules.
    routes = [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": f"models-{start}"},
            "spec": {"rules": rules[start : start + 16]},
        }
        for start in range(0, len(rules), 16)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": routes + objects}, indent=1)


def start_gateway(
    *,
    ports: Mapping[str, int],
    core: set[int],
    folder: Path,
    name: str = "pointsman",
    tree: Path = PROJECT,
    prefix: Sequence[str] = (),
    manifest: str | None = None,
    module: str = "app",
) -> tuple[Server, int]:
    """Start the gateway of a source tree, under the program that ``prefix`` names. Returns it and its data port.

    ``manifest`` is what it serves in place of the 52 models, ``module`` what runs in place of `python -m app`.
    """
    file = folder / f"{name}.json"
    file.write_text(manifests(ports) if manifest is None else manifest)
    port = free_port()
    command = [*prefix, sys.executable, "-m", module, "serve", str(file)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--admin-host", "127.0.0.1", "--admin-port", str(free_port())]
    command += ["--drain-grace", "0s", "--drain-timeout", "0s"]
    server = Server(name=name, command=command, core=core, output=folder / f"{name}.log", directory=tree)
    server.wait_listening(port)
    return server, port
