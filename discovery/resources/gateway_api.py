"""GatewayClass, Gateway, HTTPRoute, ReferenceGrant of gateway.networking.k8s.io."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from discovery.resources.meta import GATEWAY_API, LabelSelector, Model, Resource


class GatewayClassSpec(Model):
    controller_name: str


class GatewayClass(Resource):
    spec: GatewayClassSpec


class RouteNamespaces(Model):
    from_: Literal["All", "Selector", "Same"] = Field(default="Same", alias="from")
    selector: LabelSelector | None = None


class RouteGroupKind(Model):
    group: str = GATEWAY_API
    kind: str


class AllowedRoutes(Model):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class GatewayListener(Model):
    name: str
    hostname: str | None = None
    port: int
    protocol: str
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewaySpec(Model):
    gateway_class_name: str
    listeners: tuple[GatewayListener, ...]


class Gateway(Resource):
    spec: GatewaySpec


class ParentReference(Model):
    group: str = GATEWAY_API
    kind: str = "Gateway"
    namespace: str | None = None  # the route's own
    name: str
    section_name: str | None = None
    port: int | None = None

    @property
    def is_gateway(self) -> bool:
        return self.group == GATEWAY_API and self.kind == "Gateway"


class PathMatch(Model):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class ValueMatch(Model):
    """A match on a header or a query parameter."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


class RouteMatch(Model):
    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str | None = None


class HeaderValue(Model):
    name: str
    value: str


class HeaderModifier(Model):
    set: tuple[HeaderValue, ...] = ()
    add: tuple[HeaderValue, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(Model):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RequestRedirect(Model):
    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: int | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class URLRewrite(Model):
    hostname: str | None = None
    path: PathModifier | None = None


class RouteFilter(Model):
    """One filter; exactly the field that ``type`` names is set (checked when decoded)."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: URLRewrite | None = None


class BackendReference(Model):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None  # the route's own
    name: str
    port: int | None = None
    weight: int = 1
    filters: tuple[RouteFilter, ...] = ()


class Timeouts(Model):
    request: str | None = None
    backend_request: str | None = None


class RouteRule(Model):
    name: str | None = None
    matches: tuple[RouteMatch, ...] = (RouteMatch(),)
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[BackendReference, ...] = ()
    timeouts: Timeouts = Timeouts()


class HTTPRouteSpec(Model):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[RouteRule, ...] = (RouteRule(),)


class HTTPRoute(Resource):
    spec: HTTPRouteSpec


class GrantFrom(Model):
    group: str
    kind: str
    namespace: str


class GrantTo(Model):
    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Model):
    from_: tuple[GrantFrom, ...] = Field(alias="from")
    to: tuple[GrantTo, ...]


class ReferenceGrant(Resource):
    spec: ReferenceGrantSpec
