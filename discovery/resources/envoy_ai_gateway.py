"""AIGatewayRoute and AIServiceBackend of aigateway.envoyproxy.io (v1alpha1 and v1beta1 have the same shape)."""

from __future__ import annotations

from pydantic import Field

from discovery.resources.gateway_api import ParentReference, Timeouts, ValueMatch
from discovery.resources.meta import Model, Resource


class AIRouteMatch(Model):
    headers: tuple[ValueMatch, ...] = ()


class AIBackendReference(Model):
    """To an AIServiceBackend of the route's namespace, unless it says otherwise."""

    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    name: str
    weight: int = 1


class AIRouteRule(Model):
    name: str | None = None
    matches: tuple[AIRouteMatch, ...] = ()  # none: every request
    backend_refs: tuple[AIBackendReference, ...] = ()
    timeouts: Timeouts = Timeouts()
    stream_idle_timeout: str | None = None
    models_owned_by: str = "Envoy AI Gateway"
    models_created_at: str | None = None


class AIGatewayRouteSpec(Model):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[AIRouteRule, ...] = ()


class AIGatewayRoute(Resource):
    spec: AIGatewayRouteSpec


class VersionedSchema(Model):
    name: str
    version: str | None = None
    prefix: str | None = None


class ServiceBackendReference(Model):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    name: str


class AIServiceBackendSpec(Model):
    api_schema: VersionedSchema = Field(alias="schema")
    backend_ref: ServiceBackendReference


class AIServiceBackend(Resource):
    spec: AIServiceBackendSpec
