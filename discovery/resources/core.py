"""Pod, Service, EndpointSlice, Namespace: read leniently, only what endpoints and selectors need."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from discovery.resources.meta import Model, Resource, is_ip_address


def _check_ip(text: str) -> str:
    if text and not is_ip_address(text):
        raise ValueError("must be an IP address")
    return text


IPAddress = Annotated[str, AfterValidator(_check_ip)]
Port = Annotated[int, Field(ge=1, le=65535)]


class ContainerPort(Model):
    name: str | None = None
    container_port: Port


class Container(Model):
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Model):
    containers: tuple[Container, ...] = ()


class PodCondition(Model):
    type: str
    status: str


class PodStatus(Model):
    phase: str | None = None
    pod_ip: IPAddress | None = Field(default=None, alias="podIP")
    conditions: tuple[PodCondition, ...] | None = None


class Pod(Resource):
    """v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

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


class ServicePort(Model):
    name: str | None = None
    port: Port
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class ServiceSpec(Model):
    type: str = "ClusterIP"
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    selector: dict[str, str] | None = None
    ports: tuple[ServicePort, ...] = ()


class Service(Resource):
    """v1 Service."""

    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(Model):
    ready: bool | None = None
    terminating: bool | None = None


class TargetRef(Model):
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


class SliceEndpoint(Model):
    addresses: tuple[IPAddress, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: TargetRef | None = None


class SlicePort(Model):
    name: str | None = None
    port: Port | None = None


class EndpointSlice(Resource):
    """discovery.k8s.io/v1 EndpointSlice."""

    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    @property
    def service(self) -> str | None:
        """The name of the Service it belongs to."""
        return self.metadata.labels.get("kubernetes.io/service-name")


class Namespace(Resource):
    """v1 Namespace, for its labels."""
