"""Which Gateways are ours, and which of a cluster's objects do they concern? (pure)

A cluster has Gateways of several controllers. Of the objects that the API gave, those of other Gateways are left out
before anything is compiled, so that nobody is told about them; what files hold is always ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import msgspec

from discovery.resources.collection import MODELS, LeftOut, Origin, Resources
from discovery.resources.envoy_ai_gateway import AIGatewayRoute
from discovery.resources.gateway_api import BackendReference, Gateway, HTTPRoute, ParentReference, RouteRule
from discovery.resources.meta import ObjectKey, Resource
from discovery.resources.problem import Problem, Severity

CONTROLLER_NAME = "pointsman.dev/gatewayclass-controller"

Route = HTTPRoute | AIGatewayRoute
Path = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which Gateways of the cluster are ours: the one named, else those of a GatewayClass with our controller name."""

    gateway: Path | None = None
    controller_name: str = CONTROLLER_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is compiled: files and cluster together, and what was said about it."""

    resources: Resources
    problems: tuple[Problem, ...] = ()
    gateways: frozenset[Path] = frozenset()  # ours, of the cluster
    routes: Mapping[int, tuple[Route, Route]] = field(default_factory=lambda: MappingProxyType({}))


def select(cluster: Resources, files: Resources, scope: Scope, *, previous: Selection | None = None) -> Selection:
    """Files and what concerns us of the cluster. An object that both have is the file's, with a warning.

    Routes that ``previous`` has are the same objects in the result, which makes comparing them cheap.
    """
    classes = {c.name for c in cluster.gateway_classes if c.spec.controller_name == scope.controller_name}
    gateways = tuple(gateway for gateway in cluster.gateways if _is_ours(gateway, classes, scope))
    ours = {(gateway.namespace, gateway.name) for gateway in gateways}
    all_ours = ours | {(gateway.namespace, gateway.name) for gateway in files.gateways}
    known = previous.routes if previous is not None else {}
    routes = {id(route): _with_our_parents(route, all_ours, known) for route in cluster.routes}
    kept = [narrowed for _, narrowed in routes.values() if narrowed.spec.parent_refs]
    narrowed = replace(
        cluster,
        gateway_classes=tuple(c for c in cluster.gateway_classes if c.name in classes),
        gateways=gateways,
        http_routes=tuple(route for route in kept if isinstance(route, HTTPRoute)),
        ai_gateway_routes=tuple(route for route in kept if isinstance(route, AIGatewayRoute)),
        left_out=tuple(found for found in (_ours_of(lost, all_ours) for lost in cluster.left_out) if found),
    )
    problems: list[Problem] = []
    merged = _merge(files, narrowed, problems)
    named = _named_backends(merged)
    merged = replace(
        merged,
        inference_pools=tuple(p for p in merged.inference_pools if _is_used(p, ("InferencePool",), named, files)),
        services=tuple(s for s in merged.services if _is_used(s, ("Service",), named, files)),
    )
    return Selection(resources=merged, problems=tuple(problems), gateways=frozenset(ours), routes=routes)


def _is_ours(gateway: Gateway, classes: set[str], scope: Scope) -> bool:
    if scope.gateway is not None:
        return (gateway.namespace, gateway.name) == scope.gateway
    return gateway.spec.gateway_class_name in classes


def _with_our_parents(route: Route, ours: set[Path], known: Mapping[int, tuple[Route, Route]]) -> tuple[Route, Route]:
    """A route and the same with those of its parents that are ours."""
    refs = tuple(ref for ref in route.spec.parent_refs if _parent(ref, route.namespace) in ours and ref.is_gateway)
    before = known.get(id(route))
    if before is not None and before[0] is route and before[1].spec.parent_refs == refs:
        return before
    if refs == route.spec.parent_refs:
        return route, route
    spec = msgspec.structs.replace(route.spec, parent_refs=refs)
    return route, msgspec.structs.replace(route, spec=spec)


def _ours_of(lost: LeftOut, ours: set[Path]) -> LeftOut | None:
    """Of a route that cannot be used the parents that are ours; None when it has none of them."""
    if lost.key.kind not in ("HTTPRoute", "AIGatewayRoute"):
        return lost
    parents = tuple(ref for ref in lost.parents if ref.is_gateway and _parent(ref, lost.key.namespace) in ours)
    return replace(lost, parents=parents) if parents else None


def _parent(ref: ParentReference, namespace: str) -> Path:
    return (ref.namespace or namespace, ref.name)


def _merge(files: Resources, cluster: Resources, problems: list[Problem]) -> Resources:
    """Both together, files first."""
    if not files.count():
        return cluster
    values: dict[str, Any] = {}
    for name in MODELS.values():
        own: tuple[Resource, ...] = getattr(files, name)
        others: tuple[Resource, ...] = getattr(cluster, name)
        if own and others:
            keys = {resource.key for resource in own}
            problems += [_shadowed(other, files.origins) for other in others if other.key in keys]
            others = tuple(other for other in others if other.key not in keys)
        values[name] = (*own, *others)
    origins = MappingProxyType({**cluster.origins, **files.origins})
    return Resources(**values, left_out=cluster.left_out, origins=origins)


def _shadowed(resource: Resource, origins: Mapping[ObjectKey, Origin]) -> Problem:
    origin = origins.get(resource.key, Origin(file="", line=0))
    return Problem(
        severity=Severity.WARNING,
        message="the cluster has this object too: the file's is used",
        file=origin.file,
        line=origin.line,
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
    )


def _is_used(resource: Resource, kinds: Iterable[str], named: set[tuple[str, str, str]], files: Resources) -> bool:
    return resource.key in files.origins or any((kind, resource.namespace, resource.name) in named for kind in kinds)


def _named_backends(resources: Resources) -> set[tuple[str, str, str]]:
    """Kind, namespace and name of every pool and Service that a route refers to."""
    named: set[tuple[str, str, str]] = set()
    for route in resources.routes:
        for kind, namespace, name in _references(route):
            named.add((kind, namespace or route.namespace, name))
    return named


def _references(route: Route) -> Iterator[tuple[str, str | None, str]]:
    rules = route.spec.rules
    for rule in rules:
        for ref in rule.backend_refs:
            yield ref.kind or "", ref.namespace, ref.name
        if isinstance(rule, RouteRule):
            refs: list[BackendReference] = [
                item.request_mirror.backend_ref for item in rule.filters if item.request_mirror
            ]
            for ref in rule.backend_refs:
                refs += [item.request_mirror.backend_ref for item in ref.filters if item.request_mirror]
            for ref in refs:
                yield ref.kind, ref.namespace, ref.name
