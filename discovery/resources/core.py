"""Pod, Service, EndpointSlice, Namespace: read leniently, only what endpoints and selectors need."""

from __future__ import annotations

from typing import Annotated

import msgspec

from discovery.resources.meta import Model, Resource, is_ip_address

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class ContainerPort(Model, frozen=True, kw_only=True):
    name: str | None = None
    container_port: Port


class Container(Model, frozen=True, kw_only=True):
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Model, frozen=True, kw_only=True):
    containers: tuple[Container, ...] = ()


class PodCondition(Model, frozen=True, kw_only=True):
    type: str
    status: str


class PodStatus(Model, frozen=True, kw_only=True):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: tuple[PodCondition, ...] | None = None

    def __post_init__(self) -> None:
        if self.pod_ip and not is_ip_address(self.pod_ip):
            raise ValueError("podIP must be an IP address")


class Pod(Resource, frozen=True, kw_only=True):
    """v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def identity(self) -> str:
        """What makes it this pod and not another of its name: the uid, which Pods written by hand lack."""
        return self.metadata.uid or self.path

    @property
    def is_ready(self) -> bool:
        """Ready, running and not terminating. Without conditions (a Pod written by hand) it counts as ready."""
        if self.metadata.deletion_timestamp is not None or self.status.phase in ("Succeeded", "Failed"):
            return False
        conditions = self.status.conditions
        return conditions is None or any(c.type == "Ready" and c.status == "True" for c in conditions)

    def port_named(self, name: str) -> int | None:
        """The number of a named container port."""
        for container in self.spec.containers:
            for port in container.ports:
                if port.name == name:
                    return port.container_port
        return None


class ServicePort(Model, frozen=True, kw_only=True):
    name: str | None = None
    port: Port
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class ServiceSpec(Model, frozen=True, kw_only=True):
    type: str = "ClusterIP"
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    selector: dict[str, str] | None = None
    ports: tuple[ServicePort, ...] = ()


class Service(Resource, frozen=True, kw_only=True):
    """v1 Service."""

    spec: ServiceSpec = ServiceSpec()
    is_from_api: bool = False  # its EndpointSlices are known; there is no need to guess by name


class EndpointConditions(Model, frozen=True, kw_only=True):
    ready: bool | None = None
    terminating: bool | None = None


class TargetRef(Model, frozen=True, kw_only=True):
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


class SliceEndpoint(Model, frozen=True, kw_only=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: TargetRef | None = None

    def __post_init__(self) -> None:
        if not all(is_ip_address(address) for address in self.addresses):
            raise ValueError("addresses must be IP addresses")


class SlicePort(Model, frozen=True, kw_only=True):
    name: str | None = None
    port: Port | None = None


class EndpointSlice(Resource, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    @property
    def service(self) -> str | None:
        """The name of the Service it belongs to."""
        return self.metadata.labels.get("kubernetes.io/service-name")


class Namespace(Resource, frozen=True, kw_only=True):
    """v1 Namespace, for its labels."""


class CertificateMap(Resource, frozen=True, kw_only=True):
    """A ConfigMap with certificate authorities in PEM (`data` has "ca.crt"), for the tls of Backends."""

    ca_certificates: str
