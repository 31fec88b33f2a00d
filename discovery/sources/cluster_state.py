"""What is made of the objects that a cluster's reflectors hold? Resources with origins, and what is wrong (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from discovery.resources.collection import MODELS, LeftOut, Origin, Resources
from discovery.resources.core import CertificateMap, EndpointSlice, Pod
from discovery.resources.meta import ObjectKey, Resource
from discovery.resources.problem import Problem, Severity
from discovery.sources.kube_objects import StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """What is known of a cluster at one moment, but for pods and EndpointSlices."""

    resources: Resources
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What is known of pods and EndpointSlices at one moment."""

    pods: tuple[Pod, ...]
    endpoint_slices: tuple[EndpointSlice, ...]
    problems: tuple[Problem, ...] = ()


def collect_state(objects: Iterable[StoredObject], planned: Iterable[StoredObject]) -> ClusterState:
    """Everything of ``objects``, and of ``planned`` the ConfigMaps that may hold certificate authorities."""
    found: dict[str, list[Resource]] = {name: [] for name in MODELS.values()}
    problems: list[Problem] = []
    left_out: list[LeftOut] = []
    origins: dict[ObjectKey, Origin] = {}
    for stored in objects:
        resource = stored.resource
        problems += stored.problems
        if stored.left_out is not None:
            left_out.append(stored.left_out)
            origins[stored.left_out.key] = _origin(stored.left_out.key.namespace)
        if resource is not None:
            found[MODELS[type(resource)]].append(resource)
            origins[resource.key] = _origin(resource.namespace)
    for stored in planned:
        authorities = stored.resource
        if isinstance(authorities, CertificateMap) and authorities.key not in origins:
            found[MODELS[CertificateMap]].append(authorities)
            origins[authorities.key] = _origin(authorities.namespace)
    arguments: dict[str, Any] = {name: tuple(items) for name, items in found.items()}
    resources = Resources(**arguments, left_out=tuple(left_out), origins=MappingProxyType(origins))
    return ClusterState(resources=resources, problems=tuple(problems))


def collect_members(planned: Iterable[StoredObject]) -> Members:
    """Pods and EndpointSlices, each once: several selectors may find the same one."""
    pods: dict[ObjectKey, Pod] = {}
    slices: dict[ObjectKey, EndpointSlice] = {}
    problems: list[Problem] = []
    for stored in planned:
        problems += stored.problems
        match stored.resource:
            case Pod() as pod:
                pods.setdefault(pod.key, pod)
            case EndpointSlice() as piece:
                slices.setdefault(piece.key, piece)
            case _ if stored.left_out is not None:
                problems.append(_left_out_problem(stored.left_out))
    return Members(pods=tuple(pods.values()), endpoint_slices=tuple(slices.values()), problems=tuple(problems))


def _origin(namespace: str) -> Origin:
    return Origin(file=f"namespace {namespace}" if namespace else "cluster", line=0)


def _left_out_problem(lost: LeftOut) -> Problem:
    return Problem(
        severity=Severity.INVALID,
        message=f"left out: {lost.message}",
        file=_origin(lost.key.namespace).file,
        kind=lost.key.kind,
        namespace=lost.key.namespace,
        name=lost.key.name,
    )
