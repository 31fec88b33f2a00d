"""Which pods, EndpointSlices and ConfigMaps are worth watching? Those that a pool or a Service of ours selects, and
those beside a Backend that names certificate authorities (pure).

Clusters have thousands of pods that serve no models. Each distinct selector is a watch of its own, up to a number of
them; beyond it there is one watch per namespace, and what no selector wants is left out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from discovery.resources.collection import Resources
from discovery.resources.meta import has_labels

MAX_SELECTORS = 32  # watches of a kind; an API server counts each
SERVICE_LABEL = "kubernetes.io/service-name"

Labels = tuple[tuple[str, str], ...]  # sorted


class Want(NamedTuple):
    """Objects of a kind that somebody asks for."""

    kind: str  # Pod, EndpointSlice or ConfigMap
    namespace: str
    labels: Labels


class WatchScope(NamedTuple):
    """One watch."""

    kind: str
    namespace: str
    selector: str  # "" for the whole namespace


Plan = Mapping[WatchScope, frozenset[Labels]]  # what is wanted of what each watch sees; nothing: everything


def wants_of(resources: Resources) -> frozenset[Want]:
    """What pools and Services select, and the namespaces whose ConfigMaps Backends refer to.

    A Service that a file describes may have no EndpointSlices but pods.
    """
    wants: set[Want] = set()
    for pool in resources.inference_pools:
        if pool.spec.target_ports:
            wants.add(Want("Pod", pool.namespace, _sorted(pool.spec.match_labels)))
    for service in resources.services:
        wants.add(Want("EndpointSlice", service.namespace, ((SERVICE_LABEL, service.name),)))
        if not service.is_from_api and service.spec.selector:
            wants.add(Want("Pod", service.namespace, _sorted(service.spec.selector)))
    for backend in resources.backends:
        if backend.spec.tls is not None and backend.spec.tls.ca_certificate_refs:
            wants.add(Want("ConfigMap", backend.namespace, ()))
    return frozenset(wants)


def plan_watches(wants: Iterable[Want], *, most: int = MAX_SELECTORS) -> Plan:
    """The watches for what is wanted."""
    by_kind: dict[str, set[Want]] = {}
    for want in wants:
        by_kind.setdefault(want.kind, set()).add(want)
    plan: dict[WatchScope, frozenset[Labels]] = {}
    for kind, asked in by_kind.items():
        if len(asked) <= most:
            for want in asked:
                plan[WatchScope(kind, want.namespace, selector_text(want.labels))] = frozenset()
            continue
        for namespace in {want.namespace for want in asked}:
            scope = WatchScope(kind, namespace, "")
            plan[scope] = frozenset(want.labels for want in asked if want.namespace == namespace)
    return plan


def is_wanted(labels: Mapping[str, str], wanted: frozenset[Labels]) -> bool:
    """Whether any of the selectors takes these labels; without selectors all are taken."""
    return not wanted or any(has_labels(labels, dict(selector)) for selector in wanted)


def selector_text(labels: Labels) -> str:
    """As the API takes it."""
    return ",".join(f"{key}={value}" for key, value in labels)


def _sorted(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
