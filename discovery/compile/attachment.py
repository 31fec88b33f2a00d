"""Which listeners do we serve, and which routes attach to them? (Gateway API: listeners, parentRefs, allowedRoutes.)"""

from __future__ import annotations

from dataclasses import dataclass, field

from discovery.compile.index import Index, Route
from discovery.hostnames import overlap
from discovery.resources.gateway_api import Gateway, GatewayListener, ParentReference
from discovery.resources.meta import ENVOY_AI_GATEWAY, GATEWAY_API, age_of
from discovery.status import Condition

SUPPORTED_KINDS = frozenset({(GATEWAY_API, "HTTPRoute"), (ENVOY_AI_GATEWAY, "AIGatewayRoute")})


@dataclass(slots=True, kw_only=True, eq=False)
class ListenerPlan:
    """A listener, whether it is served, and what attaches to it."""

    gateway: Gateway | None = None  # None: the implicit listener of files without a Gateway
    listener: GatewayListener | None = None
    hostname: str | None = None
    rejection: Condition | None = None  # why it is not served
    bad_kinds: bool = False  # allowedRoutes.kinds names a kind that we do not serve
    has_protocol_conflict: bool = False  # an HTTP listener, which is served, has the same port
    routes: list[Route] = field(default_factory=list)

    @property
    def name(self) -> str:
        if self.gateway is None or self.listener is None:
            return ""
        return f"{self.gateway.path}/{self.listener.name}"

    def allows(self, route: Route, index: Index) -> bool:
        """Whether allowedRoutes lets the route attach, by its namespace and its kind."""
        if self.gateway is None or self.listener is None:
            return True
        allowed = self.listener.allowed_routes
        kinds = {(kind.group, kind.kind) for kind in allowed.kinds}
        # An AIGatewayRoute stands for the HTTPRoute that Envoy AI Gateway makes of it.
        if kinds and not kinds & {(route.group, route.kind), (GATEWAY_API, "HTTPRoute")}:
            return False
        match allowed.namespaces.from_:
            case "All":
                return True
            case "Same":
                return route.namespace == self.gateway.namespace
            case "Selector":
                selector = allowed.namespaces.selector
                return selector is not None and selector.selects(index.labels_of_namespace(route.namespace))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A route on one listener, with those of its hostnames that meet the listener's (none: all)."""

    plan: ListenerPlan
    hostnames: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class RouteAttachments:
    """Where a route attaches, and what to say of each of its parents."""

    attachments: list[Attachment] = field(default_factory=list)
    parents: list[tuple[str | None, Condition]] = field(default_factory=list)  # parent and its Accepted
    refusing: list[str] = field(default_factory=list)  # Gateways that do not take it


def plan_listeners(index: Index, *, by_port: bool = False) -> list[ListenerPlan]:
    """Every listener of every Gateway, or the one implicit listener where there is no Gateway.

    Listeners that share a port are told apart by hostname, so of two with the same one the later is Conflicted. Unless
    ``by_port``, all HTTP listeners share one.
    """
    gateways = sorted(index.resources.gateways, key=age_of)
    if not gateways:
        return [ListenerPlan()]
    plans: list[ListenerPlan] = []
    taken: dict[tuple[int | None, str | None], str] = {}
    http_ports = {
        listener.port for gateway in gateways for listener in gateway.spec.listeners if listener.protocol == "HTTP"
    }
    for gateway in gateways:
        for listener in gateway.spec.listeners:
            hostname = listener.hostname.lower() if listener.hostname else None
            plan = ListenerPlan(gateway=gateway, listener=listener, hostname=hostname)
            kinds = {(kind.group, kind.kind) for kind in listener.allowed_routes.kinds}
            plan.bad_kinds = bool(kinds - SUPPORTED_KINDS)
            plans.append(plan)
            place = (listener.port if by_port else None, hostname)
            if listener.protocol != "HTTP":
                plan.has_protocol_conflict = listener.port in http_ports and listener.protocol != "UDP"
                plan.rejection = Condition(
                    type="Accepted",
                    status="False",
                    reason="UnsupportedProtocol",
                    message=f"protocol {listener.protocol} is not supported, its routes are not served",
                    observed_generation=gateway.metadata.generation,
                )
            elif place in taken:
                shared = f"port {listener.port} is shared" if by_port else "all HTTP listeners share one port"
                plan.rejection = Condition(
                    type="Conflicted",
                    status="True",
                    reason="HostnameConflict",
                    message=f"{shared}, and listener {taken[place]} has the same hostname",
                    observed_generation=gateway.metadata.generation,
                )
            else:
                taken[place] = plan.name
    return plans


def attach(route: Route, plans: list[ListenerPlan], index: Index) -> RouteAttachments:
    """Attach a route to the listeners that take it. Each listener of ``plans`` learns of it."""
    result = RouteAttachments()
    refs = [ref for ref in route.spec.parent_refs if ref.is_gateway]
    if plans[0].gateway is None:  # every route attaches, whatever it says of parents
        _attach_to(plans, route, index, result)
        result.parents.append((None, _accepted(route)))
        return result
    if not route.spec.parent_refs:
        _attach_without_parents(route, plans, index, result)
        return result
    gateways = {plan.gateway.path for plan in plans if plan.gateway is not None}
    for ref in refs:
        accepted = _attach_by(ref, route, plans, index, result)
        result.parents.append((parent_name(ref, route.namespace), accepted))
        path = f"{ref.namespace or route.namespace}/{ref.name}"
        if accepted.status == "False" and path in gateways:
            result.refusing.append(path)
    return result


def _attach_by(
    ref: ParentReference, route: Route, plans: list[ListenerPlan], index: Index, result: RouteAttachments
) -> Condition:
    namespace = ref.namespace or route.namespace
    of_gateway = [
        p for p in plans if p.gateway is not None and (p.gateway.namespace, p.gateway.name) == (namespace, ref.name)
    ]
    if not of_gateway:
        return _rejected(route, "NoMatchingParent", f"there is no Gateway {namespace}/{ref.name}")
    named = [p for p in of_gateway if p.listener is not None and _is_named(p.listener, ref)]
    if not named:
        section = " and ".join(
            text for text in (ref.section_name and f"name {ref.section_name}", ref.port and f"port {ref.port}") if text
        )
        return _rejected(route, "NoMatchingParent", f"Gateway {namespace}/{ref.name} has no listener with {section}")
    allowed = [p for p in named if p.allows(route, index)]
    if not allowed:
        message = f"no listener of Gateway {namespace}/{ref.name} allows {route.kind}s of namespace {route.namespace}"
        return _rejected(route, "NotAllowedByListeners", message)
    served = [p for p in allowed if p.rejection is None]
    if not served:
        return _rejected(route, "NoMatchingParent", f"{allowed[0].name}: this listener is not served")
    if not _attach_to(served, route, index, result):
        message = f"no hostname in common with a listener of Gateway {namespace}/{ref.name}"
        return _rejected(route, "NoMatchingListenerHostname", message)
    return _accepted(route)


def _attach_without_parents(route: Route, plans: list[ListenerPlan], index: Index, result: RouteAttachments) -> None:
    """In files a route that names no parent attaches wherever it is allowed."""
    allowed = [p for p in plans if p.rejection is None and p.allows(route, index)]
    if all(p.rejection is not None for p in plans):
        condition = _rejected(route, "NoMatchingParent", "no listener of any Gateway is served")
    elif not allowed:
        condition = _rejected(route, "NotAllowedByListeners", "no listener allows it")
    elif not _attach_to(allowed, route, index, result):
        condition = _rejected(route, "NoMatchingListenerHostname", "no hostname in common with any listener")
    else:
        condition = _accepted(route)
    result.parents.append((None, condition))


def _attach_to(plans: list[ListenerPlan], route: Route, index: Index, result: RouteAttachments) -> bool:
    has_attached = False
    for plan in plans:
        hostnames = intersect(plan.hostname, route.spec.hostnames)
        if hostnames is None:
            continue
        has_attached = True
        if all(a.plan is not plan for a in result.attachments):
            plan.routes.append(route)
            result.attachments.append(Attachment(plan=plan, hostnames=hostnames))
    return has_attached


def intersect(listener: str | None, hostnames: tuple[str, ...]) -> tuple[str, ...] | None:
    """The route's hostnames that have a name in common with the listener's; None when it has some and none fits."""
    if not hostnames:
        return ()
    names = tuple(name.lower() for name in hostnames)
    if listener is None:
        return names
    fitting = tuple(name for name in names if overlap(listener, name))
    return fitting or None


def _is_named(listener: GatewayListener, ref: ParentReference) -> bool:
    return ref.section_name in (None, "", listener.name) and ref.port in (None, listener.port)


def parent_name(ref: ParentReference, namespace: str) -> str:
    """What a parentRef of a route in ``namespace`` names: "namespace/gateway[/listener][:port]"."""
    section = f"/{ref.section_name}" if ref.section_name else ""
    port = f":{ref.port}" if ref.port else ""
    return f"{ref.namespace or namespace}/{ref.name}{section}{port}"


def _accepted(route: Route) -> Condition:
    generation = route.metadata.generation
    return Condition(type="Accepted", status="True", reason="Accepted", observed_generation=generation)


def _rejected(route: Route, reason: str, message: str) -> Condition:
    generation = route.metadata.generation
    return Condition(type="Accepted", status="False", reason=reason, message=message, observed_generation=generation)
