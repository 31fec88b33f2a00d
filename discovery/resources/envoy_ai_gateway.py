"""AIGatewayRoute and AIServiceBackend of aigateway.envoyproxy.io (v1alpha1 and v1beta1 have the same shape)."""

from __future__ import annotations

import msgspec

from discovery.resources.gateway_api import HeaderValue, ParentReference, Timeouts, ValueMatch
from discovery.resources.meta import Model, Resource


class AIRouteMatch(Model, frozen=True, kw_only=True):
    headers: tuple[ValueMatch, ...] = ()


class HeaderMutation(Model, frozen=True, kw_only=True):
    set: tuple[HeaderValue, ...] = ()
    remove: tuple[str, ...] = ()


class BodyField(Model, frozen=True, kw_only=True):
    path: str  # the name of a member of the top level
    value: str


class BodyMutation(Model, frozen=True, kw_only=True):
    set: tuple[BodyField, ...] = ()
    remove: tuple[str, ...] = ()


class AIBackendReference(Model, frozen=True, kw_only=True):
    """To an AIServiceBackend of the route's namespace, unless it says otherwise."""

    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    name: str
    weight: int = 1
    priority: int | None = None  # None is what a file leaves out: then the Backend's `fallback` says
    model_name_override: str = ""
    header_mutation: HeaderMutation | None = None
    body_mutation: BodyMutation | None = None


class AIRouteRule(Model, frozen=True, kw_only=True):
    name: str | None = None
    matches: tuple[AIRouteMatch, ...] = ()  # none: every request
    backend_refs: tuple[AIBackendReference, ...] = ()
    timeouts: Timeouts = Timeouts()
    stream_idle_timeout: str | None = None
    models_owned_by: str = "Envoy AI Gateway"
    models_created_at: str | None = None


class AIGatewayRouteSpec(Model, frozen=True, kw_only=True):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[AIRouteRule, ...] = ()


class AIGatewayRoute(Resource, frozen=True, kw_only=True):
    spec: AIGatewayRouteSpec


class VersionedSchema(Model, frozen=True, kw_only=True):
    name: str
    version: str | None = None
    prefix: str | None = None


class ServiceBackendReference(Model, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    name: str


class AIServiceBackendSpec(Model, frozen=True, kw_only=True):
    api_schema: VersionedSchema = msgspec.field(name="schema")
    backend_ref: ServiceBackendReference
    header_mutation: HeaderMutation | None = None
    body_mutation: BodyMutation | None = None


class AIServiceBackend(Resource, frozen=True, kw_only=True):
    spec: AIServiceBackendSpec
