"""How is this process to run? Everything that flags and POINTSMAN_* variables say, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from discovery.scope import CONTROLLER_NAME

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of `pointsman serve`. Times in seconds, sizes in bytes."""

    paths: tuple[Path, ...] = ()
    """Manifests: files, or folders whose *.yaml, *.yml and *.json are read."""
    watches_cluster: bool = False
    """Follow the cluster that this process belongs to, beside the files."""
    namespaces: tuple[str, ...] = ()
    """What is followed of the cluster; none: all of it."""
    gateway: tuple[str, str] | None = None
    """Namespace and name of the one Gateway of the cluster that is ours, whatever its class."""
    controller_name: str = CONTROLLER_NAME
    """Else those are ours whose GatewayClass names this controller."""
    models: tuple[str, ...] = ()
    """NAME=URL[,URL…] shorthands, each one HTTPRoute rule and one Backend."""
    host: str = "0.0.0.0"  # pods are reached through their address
    """Where the data port listens."""
    port: int = 8080
    """0 takes a free one."""
    admin_host: str = "127.0.0.1"
    """Where the admin port listens; not for clients, it tells the whole configuration."""
    admin_port: int = 9090
    listens_on_gateway_ports: bool = False
    """Bind each listener's own port at start instead of ``port``."""
    drain_grace_seconds: float = 1.0
    """After SIGTERM requests are still taken for so long, until every load balancer has noticed."""
    drain_timeout_seconds: float = 600.0
    """Then running answers may finish for so long; what is left is cut as a broken stream."""
    max_body_memory_bytes: int = 512 * MIB
    """What all request bodies in memory may take together; above it requests are refused with 503 `overloaded`."""
    picker_config: Path | None = None
    """An EndpointPickerConfig: how endpoints of InferencePools are picked. None: as docs/scheduling.md says."""
    trusts_objective_header: bool = False
    """Whether clients may name their InferenceObjective, and with it their priority."""
    tells_picks: bool = False
    """Whether an answer tells how its endpoint was picked, when the request asks for it."""
    ignored_policies: frozenset[str] = frozenset()
    """Policy kinds that we do not implement and that may be ignored all the same."""
