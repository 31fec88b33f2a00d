"""Which addresses does each backend consist of? Pods, EndpointSlices, Backends -> endpoints that take new requests."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

import httpx

from discovery.backend import Endpoint, Membership, UpstreamTLS
from discovery.compile.filters import compile_prefix
from discovery.compile.index import Index
from discovery.compile.pod_index import PodIndex
from discovery.compile.references import ai_service_backend_fault, backend_fault
from discovery.compile.upstream_tls import compile_tls
from discovery.filters import ReplacePrefix
from discovery.model_servers.engines import ENGINE_LABELS
from discovery.resources.collection import Resources
from discovery.resources.core import EndpointSlice, Pod, Service, ServicePort
from discovery.resources.envoy_ai_gateway import AIServiceBackend, VersionedSchema
from discovery.resources.envoy_gateway import Backend
from discovery.resources.inference import InferencePool
from discovery.slices import Steps, run_at_once

# Data-parallel ranks that serve: the ports of a pod that take requests, of those that its pool names.
ACTIVE_PORTS_ANNOTATIONS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")

_AT_ONCE = 64  # pods or endpoints of one step

DEFAULT_HTTP_PORT = 80
DEFAULT_HTTPS_PORT = 443


def compile_membership(resources: Resources, *, previous: Membership | None = None) -> Membership:
    """The endpoints of every backend. Of ``previous`` each part that is the same is kept, or all of it."""
    return run_at_once(membership_steps(resources, previous=previous))


def membership_steps(resources: Resources, *, previous: Membership | None = None) -> Steps[Membership]:
    """``compile_membership`` in steps."""
    before = previous or {}
    compiler = _Compiler(resources)
    yield from compiler.prepare(before)
    membership: dict[str, tuple[Endpoint, ...]] = {}
    for key, endpoints in compiler.compile():
        membership[key] = before[key] if before.get(key) == endpoints else endpoints
        yield
    if previous is not None and len(membership) == len(previous):
        if all(value is previous.get(key) for key, value in membership.items()):
            return previous
    return MappingProxyType(membership)


class _Compiler:
    def __init__(self, resources: Resources) -> None:
        self._index = Index(resources)
        self._resources = resources
        selectors = [(pool.namespace, pool.spec.match_labels) for pool in resources.inference_pools]
        selectors += [(service.namespace, service.spec.selector or {}) for service in resources.services]
        self._pods = PodIndex((), selectors)
        self._slices: dict[tuple[str, str | None], list[EndpointSlice]] = defaultdict(list)
        for piece in resources.endpoint_slices:
            self._slices[piece.namespace, piece.service].append(piece)
        self._known: dict[str, Endpoint] = {}
        self._urls: dict[tuple[str, str, int], httpx.URL] = {}

    def prepare(self, previous: Membership) -> Steps[None]:
        """Take in the pods, and the endpoints that there were."""
        for endpoints in previous.values():
            for start in range(0, len(endpoints), _AT_ONCE):
                for endpoint in endpoints[start : start + _AT_ONCE]:
                    self._known[endpoint.id] = endpoint
                    self._urls[endpoint.url.scheme, endpoint.address, endpoint.port] = endpoint.url
                yield
        for number, pod in enumerate(self._resources.pods):
            self._pods.add(pod)
            if not number % _AT_ONCE:
                yield

    def compile(self) -> Iterator[tuple[str, tuple[Endpoint, ...]]]:
        for backend in self._resources.backends:
            yield f"Backend/{backend.path}", self._of_backend(backend)
        for ai_backend in self._resources.ai_service_backends:
            yield f"AIServiceBackend/{ai_backend.path}", self._of_ai_service_backend(ai_backend)
        for pool in self._resources.inference_pools:
            yield self._index.pool_id(pool), _unique(self._of_pool(pool))
        for service in self._resources.services:
            for port in service.spec.ports:
                yield f"Service/{service.path}:{port.port}", _unique(self._of_service(service, port))

    def _of_backend(self, backend: Backend) -> tuple[Endpoint, ...]:
        if backend_fault(backend, self._index) is not None:
            return ()
        endpoints: list[Endpoint] = []
        for given in backend.spec.endpoints:
            tls = compile_tls(backend, given, self._index)
            if given.ip is not None:
                endpoints.append(self._endpoint(given.ip.address, given.ip.port, tls=tls))
            elif given.fqdn is not None:
                name, port = given.fqdn.hostname, given.fqdn.port
                default_port = DEFAULT_HTTP_PORT if tls is None else DEFAULT_HTTPS_PORT
                host = name if port == default_port else f"{name}:{port}"
                # What the name stands for is only known when it is resolved. Files may name what a cluster must not,
                # so the two are told apart.
                identity = "cluster/" if backend.is_from_api else ""
                made = self._endpoint(name, port, identity, tls=tls)
                endpoints.append(replace(made, host=host.encode("ascii"), is_confined=backend.is_from_api))
            if given.hostname is not None and endpoints:
                endpoints[-1] = replace(endpoints[-1], check_host=given.hostname.encode("ascii"))
        return _unique(endpoints)

    def _of_ai_service_backend(self, backend: AIServiceBackend) -> tuple[Endpoint, ...]:
        ref = backend.spec.backend_ref
        found = self._index.backends.get((ref.namespace or backend.namespace, ref.name))
        if found is None or ai_service_backend_fault(backend, self._index) is not None:
            return ()
        rewrites = path_rewrites(backend.spec.api_schema)
        return tuple(replace(endpoint, path_rewrites=rewrites) for endpoint in self._of_backend(found))

    def _of_pool(self, pool: InferencePool) -> Iterator[Endpoint]:
        if not pool.spec.target_ports:
            for member in self._index.pool_members(pool):
                yield from self._of_ai_service_backend(member)
            return
        for pod in self._pods.find(pool.namespace, pool.spec.match_labels):
            address = pod.status.pod_ip
            if address and pod.is_ready:
                engine = _engine(pod)
                for port in _active_ports(pod, pool.spec.target_ports):
                    yield self._pod_endpoint(pod.path, pod.metadata.uid, address, port, engine)

    def _of_service(self, service: Service, port: ServicePort) -> Iterator[Endpoint]:
        slices = self._slices.get((service.namespace, service.name))
        if slices:
            # A dual-stack Service has slices of both families: each pod is one endpoint all the same.
            pods: set[tuple[str, int]] = set()
            for piece in sorted(slices, key=_is_ipv6):
                for endpoint in self._of_slice(piece, port):
                    member = (endpoint.id.rpartition("/")[0], endpoint.port)  # the pod's uid, or its name
                    if endpoint.pod is None or member not in pods:
                        pods.add(member)
                        yield endpoint
            return
        selector = service.spec.selector
        selected = self._pods.find(service.namespace, selector) if selector else []
        for pod in selected:
            number = _target_port(port, pod)
            if pod.is_ready and pod.status.pod_ip and number is not None:
                yield self._pod_endpoint(pod.path, pod.metadata.uid, pod.status.pod_ip, number)
        if not selected and not service.is_from_api:
            is_headless = service.spec.cluster_ip == "None" and isinstance(port.target_port, int)
            number = port.target_port if is_headless and isinstance(port.target_port, int) else port.port
            yield self._endpoint(f"{service.name}.{service.namespace}.svc.cluster.local", number)

    def _of_slice(self, piece: EndpointSlice, port: ServicePort) -> Iterator[Endpoint]:
        numbers = [p.port for p in piece.ports if (p.name or "") == (port.name or "") and p.port]
        for given in piece.endpoints:
            if given.conditions.ready is False or given.conditions.terminating or not given.addresses:
                continue
            target = given.target_ref
            is_pod = target is not None and target.kind == "Pod" and target.name
            for number in numbers:
                if target is not None and is_pod:
                    path = f"{target.namespace or piece.namespace}/{target.name}"
                    yield self._pod_endpoint(path, target.uid, given.addresses[0], number)
                else:
                    yield self._endpoint(given.addresses[0], number)

    def _pod_endpoint(self, path: str, uid: str | None, address: str, port: int, engine: str | None = None) -> Endpoint:
        return self._endpoint(address, port, f"{uid or path}/", pod=path, engine=engine)

    def _endpoint(
        self,
        address: str,
        port: int,
        identity: str = "",
        *,
        tls: UpstreamTLS | None = None,
        pod: str | None = None,
        engine: str | None = None,
    ) -> Endpoint:
        if ":" in address:
            address = str(ipaddress.ip_address(address))  # one form, so that one address is one endpoint
        bracketed = f"[{address}]" if ":" in address else address
        scheme = "http" if tls is None else "https"
        if tls is not None:
            identity = f"tls-{tls.fingerprint}/{identity}"
        endpoint_id = f"{identity}{bracketed}:{port}"
        if pod is not None:  # most of them are the same as the last time
            known = self._known.get(endpoint_id)
            if known is not None and (known.pod, known.engine, known.address) == (pod, engine, address):
                return known
        url = self._urls.get((scheme, address, port))
        if url is None:
            url = self._urls[scheme, address, port] = httpx.URL(f"{scheme}://{bracketed}:{port}/")
        return Endpoint(id=endpoint_id, address=address, port=port, url=url, tls=tls, pod=pod, engine=engine)


def path_rewrites(schema: VersionedSchema) -> tuple[ReplacePrefix, ...]:
    """How a client's path becomes the backend's: Envoy AI Gateway shows Anthropic's API below `/anthropic`, Cohere's
    below `/cohere`, and a schema's `prefix` stands where the API has its version (`/v1`; `/v2` of Cohere)."""
    version = "/v2" if schema.name == "Cohere" else "/v1"
    shown = {"Anthropic": "/anthropic", "Cohere": "/cohere"}.get(schema.name)
    prefix = f"/{schema.prefix.strip('/')}" if schema.prefix else version
    rewrites: list[ReplacePrefix] = []
    if shown is not None:
        if prefix != version:
            rewrites.append(compile_prefix(shown + version, prefix))
        rewrites.append(compile_prefix(shown, ""))
    if prefix != version:
        rewrites.append(compile_prefix(version, prefix))
    return tuple(rewrites)


def _engine(pod: Pod) -> str | None:
    """Whose metrics the pod has; None when its labels do not say."""
    labels = pod.metadata.labels
    return next((labels[name] for name in ENGINE_LABELS if name in labels), None)


def _active_ports(pod: Pod, target_ports: Sequence[int]) -> Sequence[int]:
    for annotation in ACTIVE_PORTS_ANNOTATIONS:
        text = pod.metadata.annotations.get(annotation)
        if text is not None:
            active = {part.strip() for part in text.split(",")}
            return [port for port in target_ports if str(port) in active]
    return target_ports


def _is_ipv6(piece: EndpointSlice) -> bool:
    return any(":" in address for endpoint in piece.endpoints for address in endpoint.addresses)


def _target_port(port: ServicePort, pod: Pod) -> int | None:
    target = port.target_port if port.target_port is not None else port.port
    if isinstance(target, int):
        return target
    return int(target) if target.isdigit() else pod.port_named(target)


def _unique(endpoints: Sequence[Endpoint] | Iterator[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple({endpoint.id: endpoint for endpoint in endpoints}.values())
