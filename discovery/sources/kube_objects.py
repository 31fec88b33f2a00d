"""What of an object from the API is kept? JSON -> the resource that we use, its status, and what is wrong with it.

Pods come and go by the thousand, so they and EndpointSlices are read straight into their models; whatever does not fit
goes the way of files, which says what is wrong. An object that was stored and that we cannot use is left out alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from discovery.resources.collection import LeftOut
from discovery.resources.core import EndpointSlice, Pod, PodSpec, PodStatus, Service, SliceEndpoint, SlicePort
from discovery.resources.decode import decode_object
from discovery.resources.envoy_gateway import (
    Backend,
    BackendTrafficPolicy,
    BackendTrafficPolicySpec,
    ClientTrafficPolicy,
    ClientTrafficPolicySpec,
)
from discovery.resources.gateway_api import ParentReference
from discovery.resources.meta import Metadata, ObjectKey, PolicySpec, Resource
from discovery.resources.problem import Problem, Severity
from discovery.sources.kube_kinds import WatchedKind

# Kinds whose status is ours to write: what it says now is kept beside the object.
_STATUS_KINDS = frozenset(
    {
        "GatewayClass",
        "Gateway",
        "HTTPRoute",
        "AIGatewayRoute",
        "InferencePool",
        "BackendTrafficPolicy",
        "ClientTrafficPolicy",
    }
)
READ_DOMAINS = (".k8s.io", ".x-k8s.io", "llm-d.ai", "envoyproxy.io")
_MAX_ANNOTATION = 1024
_RESTRICTING: Mapping[str, tuple[type[Any], type[Any]]] = {
    "BackendTrafficPolicy": (BackendTrafficPolicy, BackendTrafficPolicySpec),
    "ClientTrafficPolicy": (ClientTrafficPolicy, ClientTrafficPolicySpec),
}


class StoredObject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An object as we keep it."""

    uid: str
    version: str  # its resourceVersion
    resource: Resource | None = None
    problems: tuple[Problem, ...] = ()
    left_out: LeftOut | None = None
    status: bytes = b""  # JSON, of the kinds whose status we write
    is_terminating: bool = False


class Peek(msgspec.Struct, frozen=True, gc=False):
    """What tells whether an object is known already."""

    name: str
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""  # as the API has it
    deletionTimestamp: str | None = None


class _Peeked(msgspec.Struct, frozen=True, gc=False):
    metadata: Peek


class _WirePod(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class _WireSlice(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class _WireStatus(msgspec.Struct, frozen=True, gc=False):
    status: msgspec.Raw = msgspec.Raw(b"")


_peek = msgspec.json.Decoder(_Peeked)
_pod = msgspec.json.Decoder(_WirePod)
_slice = msgspec.json.Decoder(_WireSlice)
_status = msgspec.json.Decoder(_WireStatus)


class UnreadableError(Exception):
    """It is no object: not JSON, or without a name. There is nothing to leave out, and nothing to tell it by."""


def peek(data: bytes | msgspec.Raw) -> Peek:
    """Which object is it? Raises UnreadableError."""
    try:
        return _peek.decode(data).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnreadableError("an object without a name, or no JSON") from None


def read_object(data: bytes | msgspec.Raw, kind: WatchedKind, version: str) -> StoredObject:
    """An object as we keep it. Raises UnreadableError."""
    seen = peek(data)
    resource = _read_fast(data, kind)
    problems: tuple[Problem, ...] = ()
    left_out: LeftOut | None = None
    if resource is None:
        resource, problems, left_out = _read_with_care(data, kind, version)
    status = bytes(_status.decode(data).status) if kind.kind in _STATUS_KINDS else b""
    return StoredObject(
        uid=seen.uid,
        version=seen.resourceVersion,
        resource=resource,
        problems=problems,
        left_out=left_out,
        status=status,
        is_terminating=seen.deletionTimestamp is not None,
    )


def _read_fast(data: bytes | msgspec.Raw, kind: WatchedKind) -> Resource | None:
    try:
        if kind.kind == "Pod":
            pod = _pod.decode(data)
            return Pod(
                group="",
                kind="Pod",
                metadata=_trim(pod.metadata),
                spec=_trim_spec(pod.spec),
                status=_trim_status(pod.status),
            )
        if kind.kind == "EndpointSlice":
            piece = _slice.decode(data)
            return EndpointSlice(
                group=kind.group,
                kind=kind.kind,
                metadata=_trim(piece.metadata),
                endpoints=piece.endpoints or (),
                ports=piece.ports or (),
            )
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass  # decode.py is more lenient, and says what is wrong
    return None


def _read_with_care(
    data: bytes | msgspec.Raw, kind: WatchedKind, version: str
) -> tuple[Resource | None, tuple[Problem, ...], LeftOut | None]:
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnreadableError("no JSON") from None
    plain.setdefault("apiVersion", f"{kind.group}/{version}" if kind.group else version)
    plain.setdefault("kind", kind.kind)
    decoded = decode_object(plain)
    warnings = tuple(problem for problem in decoded.problems if problem.severity is not Severity.REFUSED)
    if decoded.objects:
        return _mark(decoded.objects[0][0]), warnings, None
    refusals = [problem for problem in decoded.problems if problem.severity is Severity.REFUSED]
    if not refusals:
        return None, warnings, None  # of a kind or with labels that are not ours
    left_out = _left_out(plain, kind, refusals)
    resource = _restricting(plain, kind, left_out.message)
    return resource, warnings, None if resource is not None else left_out


def _mark(resource: Resource) -> Resource:
    resource = msgspec.structs.replace(resource, metadata=_trim(resource.metadata))
    if isinstance(resource, Pod):
        return msgspec.structs.replace(resource, spec=_trim_spec(resource.spec), status=_trim_status(resource.status))
    if isinstance(resource, Backend | Service):
        return msgspec.structs.replace(resource, is_from_api=True)
    return resource


def _trim(metadata: Metadata) -> Metadata:
    """Metadata without annotations that nobody here reads: kubectl puts whole objects into one."""
    kept = {
        key: value
        for key, value in metadata.annotations.items()
        if key.partition("/")[0].endswith(READ_DOMAINS) and len(value) <= _MAX_ANNOTATION
    }
    if len(kept) == len(metadata.annotations):
        return metadata
    return msgspec.structs.replace(metadata, annotations=kept)


def _trim_spec(spec: PodSpec) -> PodSpec:
    containers = tuple(container for container in spec.containers if container.ports)
    return spec if len(containers) == len(spec.containers) else PodSpec(containers=containers)


def _trim_status(status: PodStatus) -> PodStatus:
    ready = tuple(condition for condition in status.conditions or () if condition.type == "Ready")
    # Without conditions a Pod in a file counts as ready; one of a cluster is one that no kubelet has seen yet.
    return msgspec.structs.replace(status, conditions=ready)


def _left_out(plain: dict[str, Any], kind: WatchedKind, refusals: list[Problem]) -> LeftOut:
    metadata = plain.get("metadata") or {}
    parents: list[ParentReference] = []
    spec = plain.get("spec")
    listed = spec.get("parentRefs") if isinstance(spec, dict) else None
    for given in listed if isinstance(listed, list) else []:
        try:
            parents.append(msgspec.convert(given, ParentReference))
        except msgspec.ValidationError:
            continue
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    generation = metadata.get("generation")
    return LeftOut(
        key=ObjectKey(kind.group, kind.kind, str(metadata.get("namespace") or ""), str(metadata.get("name") or "")),
        generation=generation if isinstance(generation, int) else None,
        message=": ".join(part for part in (first.field, first.message) if part) + more,
        parents=tuple(parents),
    )


def _restricting(plain: dict[str, Any], kind: WatchedKind, message: str) -> Resource | None:
    """A policy that cannot be read still has targets: they must not be served as if it were not there."""
    if kind.kind not in _RESTRICTING:
        return None
    model, spec_model = _RESTRICTING[kind.kind]
    try:
        targets = msgspec.convert(plain.get("spec") or {}, PolicySpec)
        metadata = _trim(msgspec.convert(plain["metadata"], Metadata))
    except (msgspec.ValidationError, KeyError):
        return None
    spec = spec_model(
        target_ref=targets.target_ref, target_refs=targets.target_refs, target_selectors=targets.target_selectors
    )
    field, separator, what = message.partition(": ")
    restriction = f"{field}: {what}" if separator else f"spec: {message}"
    resource: Resource = model(
        group=kind.group, kind=kind.kind, metadata=metadata, spec=spec, restrictions=(restriction,)
    )
    return resource
