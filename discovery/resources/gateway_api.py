"""GatewayClass, Gateway, HTTPRoute, ReferenceGrant of gateway.networking.k8s.io."""

from __future__ import annotations

from typing import Literal

import msgspec

from discovery.resources.meta import GATEWAY_API, LabelSelector, Model, Resource


class GatewayClassSpec(Model, frozen=True, kw_only=True):
    controller_name: str


class GatewayClass(Resource, frozen=True, kw_only=True):
    spec: GatewayClassSpec


class RouteNamespaces(Model, frozen=True, kw_only=True):
    from_: Literal["All", "Selector", "Same"] = msgspec.field(default="Same", name="from")
    selector: LabelSelector | None = None


class RouteGroupKind(Model, frozen=True, kw_only=True):
    group: str = GATEWAY_API
    kind: str


class AllowedRoutes(Model, frozen=True, kw_only=True):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class GatewayListener(Model, frozen=True, kw_only=True):
    name: str
    hostname: str | None = None
    port: int
    protocol: str
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewaySpec(Model, frozen=True, kw_only=True):
    gateway_class_name: str
    listeners: tuple[GatewayListener, ...]


class Gateway(Resource, frozen=True, kw_only=True):
    spec: GatewaySpec


class ParentReference(Model, frozen=True, kw_only=True):
    group: str = GATEWAY_API
    kind: str = "Gateway"
    namespace: str | None = None  # the route's own
    name: str
    section_name: str | None = None
    port: int | None = None

    @property
    def is_gateway(self) -> bool:
        return self.group == GATEWAY_API and self.kind == "Gateway"


class PathMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class ValueMatch(Model, frozen=True, kw_only=True):
    """A match on a header or a query parameter."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


class RouteMatch(Model, frozen=True, kw_only=True):
    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str | None = None


class HeaderValue(Model, frozen=True, kw_only=True):
    name: str
    value: str


class HeaderModifier(Model, frozen=True, kw_only=True):
    set: tuple[HeaderValue, ...] = ()
    add: tuple[HeaderValue, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(Model, frozen=True, kw_only=True):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RequestRedirect(Model, frozen=True, kw_only=True):
    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: int | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class URLRewrite(Model, frozen=True, kw_only=True):
    hostname: str | None = None
    path: PathModifier | None = None


class Fraction(Model, frozen=True, kw_only=True):
    numerator: int
    denominator: int = 100


class RequestMirror(Model, frozen=True, kw_only=True):
    """``percent`` or ``fraction``, not both; neither means every request."""

    backend_ref: BackendReference
    percent: int | None = None
    fraction: Fraction | None = None


class RouteFilter(Model, frozen=True, kw_only=True):
    """One filter; exactly the field that ``type`` names is set (checked when decoded)."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: URLRewrite | None = None
    request_mirror: RequestMirror | None = None


class BackendReference(Model, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None  # the route's own
    name: str
    port: int | None = None
    weight: int = 1
    filters: tuple[RouteFilter, ...] = ()


class Timeouts(Model, frozen=True, kw_only=True):
    request: str | None = None
    backend_request: str | None = None


class RouteRetry(Model, frozen=True, kw_only=True):
    codes: tuple[int, ...] = ()
    attempts: int | None = None
    backoff: str | None = None


class SessionCookie(Model, frozen=True, kw_only=True):
    name: str | None = None
    path: str = "/"
    lifetime_type: Literal["Session", "Permanent"] = "Session"


class SessionHeader(Model, frozen=True, kw_only=True):
    name: str


class SessionPersistence(Model, frozen=True, kw_only=True):
    """The object that ``type`` names is there (checked when decoded)."""

    type: Literal["Cookie", "Header"] = "Cookie"
    cookie: SessionCookie = SessionCookie()
    header: SessionHeader | None = None
    absolute_timeout: str | None = None


class RouteRule(Model, frozen=True, kw_only=True):
    name: str | None = None
    matches: tuple[RouteMatch, ...] = (RouteMatch(),)
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[BackendReference, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: RouteRetry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(Model, frozen=True, kw_only=True):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[RouteRule, ...] = (RouteRule(),)


class HTTPRoute(Resource, frozen=True, kw_only=True):
    spec: HTTPRouteSpec


class GrantFrom(Model, frozen=True, kw_only=True):
    group: str
    kind: str
    namespace: str


class GrantTo(Model, frozen=True, kw_only=True):
    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Model, frozen=True, kw_only=True):
    from_: tuple[GrantFrom, ...] = msgspec.field(name="from")
    to: tuple[GrantTo, ...]


class ReferenceGrant(Resource, frozen=True, kw_only=True):
    spec: ReferenceGrantSpec
