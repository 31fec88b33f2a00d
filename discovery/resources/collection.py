"""What was read in all? Every object by its kind, and where each came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from discovery.resources.core import CertificateMap, EndpointSlice, Namespace, Pod, Service
from discovery.resources.envoy_ai_gateway import AIGatewayRoute, AIServiceBackend
from discovery.resources.envoy_gateway import Backend, BackendTrafficPolicy, ClientTrafficPolicy
from discovery.resources.gateway_api import Gateway, GatewayClass, HTTPRoute, ParentReference, ReferenceGrant
from discovery.resources.inference import (
    AdapterMap,
    InferenceModel,
    InferenceModelRewrite,
    InferenceObjective,
    InferencePool,
)
from discovery.resources.meta import ObjectKey, Resource, UnimplementedPolicy
from discovery.slices import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an object was written."""

    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An object that an API server stored and that we cannot use: the others are served without it."""

    key: ObjectKey
    generation: int | None
    message: str  # the first field that is wrong, and what is wrong with it
    parents: tuple[ParentReference, ...] = ()  # of a route


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The whole state of one source, or of all together. In the order in which it was read."""

    gateway_classes: tuple[GatewayClass, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    http_routes: tuple[HTTPRoute, ...] = ()
    reference_grants: tuple[ReferenceGrant, ...] = ()
    inference_pools: tuple[InferencePool, ...] = ()
    inference_models: tuple[InferenceModel, ...] = ()
    inference_model_rewrites: tuple[InferenceModelRewrite, ...] = ()
    inference_objectives: tuple[InferenceObjective, ...] = ()
    adapter_maps: tuple[AdapterMap, ...] = ()
    certificate_maps: tuple[CertificateMap, ...] = ()
    backends: tuple[Backend, ...] = ()
    backend_traffic_policies: tuple[BackendTrafficPolicy, ...] = ()
    client_traffic_policies: tuple[ClientTrafficPolicy, ...] = ()
    ai_gateway_routes: tuple[AIGatewayRoute, ...] = ()
    ai_service_backends: tuple[AIServiceBackend, ...] = ()
    unimplemented_policies: tuple[UnimplementedPolicy, ...] = ()
    services: tuple[Service, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    # These change with every pod that comes and goes; routing does not look at them.
    pods: tuple[Pod, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    left_out: tuple[LeftOut, ...] = ()  # from an API server only; a file with such an object is refused whole
    origins: Mapping[ObjectKey, Origin] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    @property
    def routes(self) -> tuple[HTTPRoute | AIGatewayRoute, ...]:
        """All routes, HTTPRoutes first."""
        return (*self.http_routes, *self.ai_gateway_routes)

    def routing_inputs(self) -> tuple[tuple[Resource, ...], ...]:
        """Everything that routing is compiled from."""
        return tuple(getattr(self, name) for name in MODELS.values() if name not in _MEMBERSHIP_ONLY)

    def count(self) -> int:
        """How many objects there are."""
        return sum(len(getattr(self, name)) for name in MODELS.values())


MODELS: Mapping[type[Resource], str] = {
    GatewayClass: "gateway_classes",
    Gateway: "gateways",
    HTTPRoute: "http_routes",
    ReferenceGrant: "reference_grants",
    InferencePool: "inference_pools",
    InferenceModel: "inference_models",
    InferenceModelRewrite: "inference_model_rewrites",
    InferenceObjective: "inference_objectives",
    AdapterMap: "adapter_maps",
    CertificateMap: "certificate_maps",
    Backend: "backends",
    BackendTrafficPolicy: "backend_traffic_policies",
    ClientTrafficPolicy: "client_traffic_policies",
    AIGatewayRoute: "ai_gateway_routes",
    AIServiceBackend: "ai_service_backends",
    UnimplementedPolicy: "unimplemented_policies",
    Service: "services",
    Namespace: "namespaces",
    Pod: "pods",
    EndpointSlice: "endpoint_slices",
}
_MEMBERSHIP_ONLY = frozenset({"pods", "endpoint_slices"})


def gather_steps(located: Iterable[tuple[Resource, Origin]]) -> Steps[Resources]:
    """Objects put together by kind, in their order. Keys are unique (decode.py refuses duplicates)."""
    found: dict[str, list[Resource]] = {name: [] for name in MODELS.values()}
    origins: dict[ObjectKey, Origin] = {}
    for number, (resource, origin) in enumerate(located):
        if number % 64 == 0:
            yield
        found[MODELS[type(resource)]].append(resource)
        origins[resource.key] = origin
    arguments = {name: tuple(items) for name, items in found.items()}
    return Resources(**arguments, origins=MappingProxyType(origins))  # type: ignore[arg-type]  # by MODELS
