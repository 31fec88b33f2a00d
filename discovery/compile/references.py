"""What does a backendRef resolve to, or why to nothing? Kinds, existence, ReferenceGrants, protocols."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.backend import Backend
from discovery.compile.index import POOL_GROUPS, Index, Route
from discovery.compile.upstream_tls import tls_fault
from discovery.resources.core import Service
from discovery.resources.envoy_ai_gateway import AIBackendReference, AIGatewayRoute, AIServiceBackend
from discovery.resources.envoy_gateway import Backend as BackendResource
from discovery.resources.envoy_gateway import BackendEndpoint
from discovery.resources.gateway_api import BackendReference
from discovery.resources.inference import InferencePool
from discovery.resources.meta import ENVOY_AI_GATEWAY, ENVOY_GATEWAY, is_internal_address, is_ip_address

PASS_THROUGH_SCHEMAS = frozenset({"OpenAI", "Anthropic", "Cohere"})

_UNSUPPORTED_APP_PROTOCOLS = frozenset(
    {"kubernetes.io/h2c", "kubernetes.io/wss", "https", "gateway.envoyproxy.io/h2c", "gateway.envoyproxy.io/wss"}
)

Source = tuple[str, str, str]  # group, kind, namespace of the object that refers


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A backend, or the standard reason of ResolvedRefs=False and a message for the operator."""

    backend: Backend | None = None
    pool: InferencePool | None = None
    reason: str = ""
    message: str = ""
    touches: tuple[tuple[str, str, str], ...] = ()  # (kind, namespace, name) of every object on the way
    is_fallback: bool = False  # the Backend says that it is only for when the others fail


def resolve(route: Route, ref: BackendReference | AIBackendReference, index: Index) -> Resolved:
    """What one backendRef of a route stands for."""
    namespace = ref.namespace or route.namespace
    source = (route.group, route.kind, route.namespace)
    if isinstance(ref, AIBackendReference):
        group = ref.group if ref.group is not None else ENVOY_AI_GATEWAY
        kind = ref.kind or "AIServiceBackend"
        port = None
    else:
        group, kind, port = ref.group, ref.kind, ref.port
    is_ai_route = isinstance(route, AIGatewayRoute)
    if group in POOL_GROUPS and kind == "InferencePool":
        return _resolve_pool(source, group, namespace, ref.name, index)
    if (group, kind) == (ENVOY_GATEWAY, "Backend") and not is_ai_route:
        return _resolve_backend(source, namespace, ref.name, index)
    if (group, kind) == ("", "Service") and not is_ai_route:
        return _resolve_service(source, namespace, ref.name, port, index)
    if (group, kind) == (ENVOY_AI_GATEWAY, "AIServiceBackend") and is_ai_route:
        return _resolve_ai_service_backend(source, namespace, ref.name, index)
    full_kind = f"{group}/{kind}" if group else kind
    return Resolved(reason="InvalidKind", message=f"{full_kind} cannot be a backend of {route.kind}")


def backend_fault(backend: BackendResource, index: Index) -> tuple[str, str] | None:
    """The reason and message why a Backend cannot be served, or None."""
    spec = backend.spec
    if spec.type != "Endpoints":
        return "UnsupportedValue", f"type {spec.type} is not supported"
    if (fault := tls_fault(backend, index)) is not None:
        return fault
    for protocol in spec.app_protocols:
        if protocol in _UNSUPPORTED_APP_PROTOCOLS:
            return "UnsupportedProtocol", f"appProtocol {protocol} is not supported"
    for endpoint in spec.endpoints:
        if endpoint.unix is not None:
            return "UnsupportedValue", "unix domain sockets are not supported"
        address = endpoint.ip or endpoint.fqdn
        if address is not None and address.port == 0:
            return "UnsupportedValue", "port 0 cannot be connected to"
        if endpoint.ip is not None and not is_ip_address(endpoint.ip.address):
            return "UnsupportedValue", f"{endpoint.ip.address} is not an IP address"
        if backend.is_from_api and address is not None and is_internal_address(_host_of(endpoint)):
            message = (
                f"{_host_of(endpoint)} leads into the gateway's own pod or node, where objects of a cluster must not"
            )
            return "UnsupportedValue", message
        if endpoint.fqdn is not None and endpoint.fqdn.hostname.rpartition(".")[2].isdigit():
            return "UnsupportedValue", f"{endpoint.fqdn.hostname} is not a host name: give IP addresses as ip"
    if not spec.endpoints:
        return "UnsupportedValue", "it has no endpoints"
    return None


def _host_of(endpoint: BackendEndpoint) -> str:
    if endpoint.ip is not None:
        return endpoint.ip.address
    return endpoint.fqdn.hostname if endpoint.fqdn is not None else ""


def ai_service_backend_fault(backend: AIServiceBackend, index: Index) -> tuple[str, str] | None:
    """The reason and message why an AIServiceBackend cannot be served, or None."""
    schema = backend.spec.api_schema.name
    if schema not in PASS_THROUGH_SCHEMAS:
        return "UnsupportedProtocol", f"schema {schema} is not supported"
    ref = backend.spec.backend_ref
    source = (ENVOY_AI_GATEWAY, "AIServiceBackend", backend.namespace)
    resolved = _resolve_backend(source, ref.namespace or backend.namespace, ref.name, index)
    return (resolved.reason, resolved.message) if resolved.backend is None else None


def _resolve_pool(source: Source, group: str, namespace: str, name: str, index: Index) -> Resolved:
    label = f"InferencePool {namespace}/{name}"
    if not index.is_granted(source, (group, "InferencePool", namespace, name)):
        return _not_permitted(label)
    pool = index.find_pool(group, namespace, name)
    if pool is None:
        return Resolved(reason="BackendNotFound", message=f"there is no {label}")
    if pool.spec.app_protocol not in ("http", ""):
        message = f"{label}: appProtocol {pool.spec.app_protocol} is not supported"
        return Resolved(reason="UnsupportedProtocol", message=message)
    members = index.pool_members(pool)
    touches = [("InferencePool", namespace, name)]
    for member in members:
        touches.append(("AIServiceBackend", member.namespace, member.name))
        ref = member.spec.backend_ref
        touches.append(("Backend", ref.namespace or member.namespace, ref.name))
    backend = Backend(
        id=index.pool_id(pool), kind="InferencePool", namespace=namespace, name=name, pool=index.settings_of(pool)
    )
    return Resolved(backend=backend, pool=pool, touches=tuple(touches))


def _resolve_backend(source: Source, namespace: str, name: str, index: Index) -> Resolved:
    label = f"Backend {namespace}/{name}"
    if not index.is_granted(source, (ENVOY_GATEWAY, "Backend", namespace, name)):
        return _not_permitted(label)
    found = index.backends.get((namespace, name))
    if found is None:
        return Resolved(reason="BackendNotFound", message=f"there is no {label}")
    if found.key not in index.backend_faults:
        index.backend_faults[found.key] = backend_fault(found, index)
    fault = index.backend_faults[found.key]
    if fault is not None:
        return Resolved(reason=fault[0], message=f"{label}: {fault[1]}")
    backend = Backend(id=f"Backend/{namespace}/{name}", kind="Backend", namespace=namespace, name=name)
    return Resolved(backend=backend, touches=(("Backend", namespace, name),), is_fallback=found.spec.fallback)


def _resolve_service(source: Source, namespace: str, name: str, port: int | None, index: Index) -> Resolved:
    label = f"Service {namespace}/{name}"
    if not index.is_granted(source, ("", "Service", namespace, name)):
        return _not_permitted(label)
    service = index.services.get((namespace, name))
    if service is None:
        return Resolved(reason="BackendNotFound", message=f"there is no {label}")
    fault = _service_fault(service, port)
    if fault is not None:
        return Resolved(reason=fault[0], message=f"{label}: {fault[1]}")
    backend = Backend(id=f"Service/{namespace}/{name}:{port}", kind="Service", namespace=namespace, name=name)
    return Resolved(backend=backend, touches=(("Service", namespace, name),))


def _service_fault(service: Service, port: int | None) -> tuple[str, str] | None:
    if service.spec.type == "ExternalName":
        return "UnsupportedValue", "a Service of type ExternalName is not supported, use a Backend"
    found = next((p for p in service.spec.ports if p.port == port), None)
    if found is None:
        return "BackendNotFound", f"it has no port {port}"
    if found.app_protocol in _UNSUPPORTED_APP_PROTOCOLS:
        return "UnsupportedProtocol", f"appProtocol {found.app_protocol} is not supported"
    return None


def _resolve_ai_service_backend(source: Source, namespace: str, name: str, index: Index) -> Resolved:
    label = f"AIServiceBackend {namespace}/{name}"
    if not index.is_granted(source, (ENVOY_AI_GATEWAY, "AIServiceBackend", namespace, name)):
        return _not_permitted(label)
    found = index.ai_service_backends.get((namespace, name))
    if found is None:
        return Resolved(reason="BackendNotFound", message=f"there is no {label}")
    fault = ai_service_backend_fault(found, index)
    if fault is not None:
        return Resolved(reason=fault[0], message=f"{label}: {fault[1]}")
    ref = found.spec.backend_ref
    backend = Backend(
        id=f"AIServiceBackend/{namespace}/{name}", kind="AIServiceBackend", namespace=namespace, name=name
    )
    below = (ref.namespace or namespace, ref.name)
    touches = (("AIServiceBackend", namespace, name), ("Backend", *below))
    return Resolved(backend=backend, touches=touches, is_fallback=index.backends[below].spec.fallback)


def _not_permitted(label: str) -> Resolved:
    return Resolved(reason="RefNotPermitted", message=f"no ReferenceGrant permits a reference to {label}")
