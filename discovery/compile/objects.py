"""What became of pools, backends and adapter maps? Their conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from discovery.compile.adapters import Adapters
from discovery.compile.attachment import parent_name
from discovery.compile.index import Index
from discovery.compile.references import ai_service_backend_fault, backend_fault
from discovery.resources.collection import LeftOut
from discovery.resources.inference import InferencePool
from discovery.resources.meta import ObjectKey, Resource
from discovery.status import Condition, ObjectStatus


class PoolUse(NamedTuple):
    """A pool that routes of one Gateway refer to, and whether any of them is accepted there."""

    pool: InferencePool
    is_accepted: bool


def object_statuses(
    index: Index, used_pools: Mapping[tuple[ObjectKey, str | None], PoolUse], adapters: Adapters
) -> Iterator[ObjectStatus]:
    """Conditions of what routes refer to. A pool has some for each Gateway (by name) with a route that uses it."""
    for gateway_class in index.resources.gateway_classes:
        yield _status(gateway_class, _true(gateway_class, "Accepted"))
    for (_, gateway), (pool, is_accepted) in used_pools.items():
        accepted = _true(pool, "Accepted")
        if not is_accepted:
            accepted = _false(pool, "Accepted", "HTTPRouteNotAccepted", "no route that refers to it is accepted")
        yield replace(_status(pool, accepted, _true(pool, "ResolvedRefs")), parent=gateway)
    for backend in index.resources.backends:
        if backend.key not in index.backend_faults:
            index.backend_faults[backend.key] = backend_fault(backend, index)
        fault = index.backend_faults[backend.key]
        yield _status(
            backend, _false(backend, "Accepted", "Invalid", fault[1]) if fault else _true(backend, "Accepted")
        )
    for ai_backend in index.resources.ai_service_backends:
        fault = ai_service_backend_fault(ai_backend, index)
        condition = _false(ai_backend, "Accepted", *fault) if fault else _true(ai_backend, "Accepted")
        yield _status(ai_backend, condition)
    yield from _adapter_map_statuses(adapters)


def left_out_statuses(left_out: Iterable[LeftOut]) -> Iterator[ObjectStatus]:
    """Objects that an API server stored and that we cannot use: said at each parent of a route, else once."""
    for lost in left_out:
        condition = Condition(
            type="Accepted",
            status="False",
            reason="UnsupportedValue" if lost.parents else "Invalid",
            message=f"left out: {lost.message}",
            observed_generation=lost.generation,
        )
        key = lost.key
        parents: list[str | None] = [parent_name(ref, key.namespace) for ref in lost.parents]
        for parent in parents or [None]:
            yield ObjectStatus(
                group=key.group,
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                parent=parent,
                conditions=(condition,),
            )


def _adapter_map_statuses(adapters: Adapters) -> Iterator[ObjectStatus]:
    for found, causes in adapters.causes:
        condition = _true(found, "Accepted")
        if causes:
            message = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
            condition = replace(_false(found, "Accepted", "Invalid", message), causes=causes)
        yield _status(found, condition)


def _status(resource: Resource, *conditions: Condition) -> ObjectStatus:
    return ObjectStatus(
        group=resource.group,
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        conditions=conditions,
    )


def _true(resource: Resource, type_: str) -> Condition:
    return Condition(type=type_, status="True", reason=type_, observed_generation=resource.metadata.generation)


def _false(resource: Resource, type_: str, reason: str, message: str) -> Condition:
    generation = resource.metadata.generation
    return Condition(type=type_, status="False", reason=reason, message=message, observed_generation=generation)
