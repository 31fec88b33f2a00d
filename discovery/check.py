"""What do the objects of a set say together that is wrong? False conditions and what a controller would warn of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from discovery.backend import Membership
from discovery.compile.index import Index
from discovery.compile.pools import ROUTING_STRATEGIES, ROUTING_STRATEGY
from discovery.resources.collection import Origin, Resources
from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.gateway_api import RouteRule
from discovery.resources.meta import ENVOY_AI_GATEWAY, GATEWAY_API, ObjectKey, Resource
from discovery.resources.problem import Problem, Severity
from discovery.route_entry import RouteEntry
from discovery.slices import Steps, collect
from discovery.snapshot import Routing
from discovery.status import Condition, ObjectStatus

# Conditions that say that something is wrong, by the status that says so.
_BAD = {"Accepted": "False", "ResolvedRefs": "False", "PartiallyInvalid": "True", "Conflicted": "True"}


def problem_steps(routing: Routing, resources: Resources) -> Steps[list[Problem]]:
    """A line for everything that a condition objects to, with the place of the object; none is there twice."""
    found: dict[tuple[str, ...], Problem] = {}
    for status in routing.statuses:
        for condition in status.conditions:
            # A Gateway's own ListenersNotValid repeats what its listeners say.
            if _BAD.get(condition.type) == condition.status and condition.reason != "ListenersNotValid":
                for problem in _problems(status, condition, resources.origins):
                    found.setdefault((problem.kind, problem.namespace, problem.name, str(problem)), problem)
        yield
    return list(found.values())


def routing_warning_steps(
    routing: Routing, resources: Resources, *, ignored_policies: frozenset[str] = frozenset()
) -> Steps[list[Problem]]:
    """What is served, but perhaps not as one might think."""
    found = yield from collect(
        chain(
            _parents_without_gateway(resources),
            _foreign_parents(resources),
            _ignored(resources, ignored_policies),
            _routing_strategies(resources),
            _objectives_of_nothing(resources),
            _idle_rules(resources),
            _framing_headers(resources),
        )
    )
    for listener in routing.listeners:
        shadowed = yield from listener.table.shadowed_steps()
        found += _shadowed(shadowed, resources)
    return list(dict.fromkeys(found))  # a rule of two listeners is told once


def membership_warnings(membership: Membership, resources: Resources) -> list[Problem]:
    """Pools that no pod is ready for."""
    return list(_empty_pools(membership, resources))


def _problems(status: ObjectStatus, condition: Condition, origins: Mapping[ObjectKey, Origin]) -> Iterator[Problem]:
    origin = origins.get(ObjectKey(status.group, status.kind, status.namespace, status.name), Origin(file="", line=0))
    listener = status.parent.rpartition("/")[2] if status.kind == "Gateway" and status.parent else ""
    causes = [(cause.field, cause.message) for cause in condition.causes] or [
        (f"listener {listener}" if listener else "", condition.message)
    ]
    for field, message in causes:
        yield Problem(
            severity=Severity.INVALID,
            message=f"{message} ({condition.reason})",
            file=origin.file,
            line=origin.line,
            kind=status.kind,
            namespace=status.namespace,
            name=status.name,
            field=field,
        )


def _parents_without_gateway(resources: Resources) -> Iterator[Problem]:
    if resources.gateways:
        return
    for route in resources.routes:
        refs = [ref for ref in route.spec.parent_refs if ref.is_gateway]
        if refs:
            message = f"there is no Gateway {refs[0].name}: the route is attached to the one listener that is served"
            yield _warning(route, resources, message, "spec.parentRefs")


def _foreign_parents(resources: Resources) -> Iterator[Problem]:
    for route in resources.routes:
        for number, ref in enumerate(route.spec.parent_refs):
            if not ref.is_gateway:
                field = f"spec.parentRefs[{number}]"
                yield _warning(route, resources, f"a parent of kind {ref.kind} is not a Gateway, ignored", field)


def _ignored(resources: Resources, ignored: frozenset[str]) -> Iterator[Problem]:
    for policy in resources.unimplemented_policies:
        if policy.kind in ignored:
            yield _warning(policy, resources, "not implemented, ignored as --ignore-policy says")


def _routing_strategies(resources: Resources) -> Iterator[Problem]:
    for pool in resources.inference_pools:
        given = pool.metadata.annotations.get(ROUTING_STRATEGY)
        if given is not None and given not in ROUTING_STRATEGIES:
            message = (
                f'"{given}" is not {" or ".join(ROUTING_STRATEGIES)}, ignored: endpoints are picked by the profile'
            )
            yield _warning(pool, resources, message, f'metadata.annotations["{ROUTING_STRATEGY}"]')


def _objectives_of_nothing(resources: Resources) -> Iterator[Problem]:
    if not resources.inference_objectives:
        return
    index = Index(resources)
    for objective in resources.inference_objectives:
        ref = objective.spec.pool_ref
        if index.find_pool(ref.group, objective.namespace, ref.name) is None:
            message = f"there is no InferencePool {objective.namespace}/{ref.name}: the objective has no effect"
            yield _warning(objective, resources, message, "spec.poolRef.name")


def _empty_pools(membership: Membership, resources: Resources) -> Iterator[Problem]:
    if not resources.inference_pools:
        return
    index = Index(resources)
    for pool in resources.inference_pools:
        if not membership.get(index.pool_id(pool)):
            what = "no ready pods have" if pool.spec.target_ports else "it names no port, and no AIServiceBackends have"
            yield _warning(pool, resources, f"{what} its labels: requests to it are answered with 503")


def _idle_rules(resources: Resources) -> Iterator[Problem]:
    """Rules that answer every request with 500, as the standard says, which is hardly what was meant."""
    for route in resources.routes:
        rules: tuple[RouteRule | AIRouteRule, ...] = route.spec.rules
        for number, rule in enumerate(rules):
            redirects = isinstance(rule, RouteRule) and any(item.request_redirect is not None for item in rule.filters)
            if not redirects and not any(ref.weight for ref in rule.backend_refs):
                what = "all its weights are 0" if rule.backend_refs else "it has no backendRefs"
                yield _warning(route, resources, f"{what}: every request is answered with 500", f"spec.rules[{number}]")


_FRAMING = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade", "x-request-id"})


def _framing_headers(resources: Resources) -> Iterator[Problem]:
    """Header modifiers of what is not theirs to say."""
    for route in resources.http_routes:
        for number, rule in enumerate(route.spec.rules):
            lists = [rule.filters, *(ref.filters for ref in rule.backend_refs)]
            for item in chain.from_iterable(lists):
                for modifier in (item.request_header_modifier, item.response_header_modifier):
                    if modifier is None:
                        continue
                    names = {header.name for header in (*modifier.set, *modifier.add)} | set(modifier.remove)
                    for name in sorted(name for name in names if name.lower() in _FRAMING):
                        hint = ": URLRewrite sets the host" if name.lower() == "host" else ""
                        message = f"the header {name} is the gateway's own, it is not changed{hint}"
                        yield _warning(route, resources, message, f"spec.rules[{number}]")


def _shadowed(pairs: Iterable[tuple[RouteEntry, RouteEntry]], resources: Resources) -> Iterator[Problem]:
    """Matches that never get a request, because another rule asks for the same and ranks first."""
    for entry, first in pairs:
        number, match = entry.tie_break[-2:]
        own = (entry.rule.route_kind, entry.rule.route) == (first.rule.route_kind, first.rule.route)
        where = "" if own else f" of {first.rule.route_kind} {first.rule.route}"
        message = f"never gets a request: rule {first.rule.name}{where} asks for the same and comes first"
        namespace, _, name = entry.rule.route.partition("/")
        kind = entry.rule.route_kind
        group = GATEWAY_API if kind == "HTTPRoute" else ENVOY_AI_GATEWAY
        key = ObjectKey(group, kind, namespace, name)
        yield _warning_of(key, resources, message, f"spec.rules[{number}].matches[{match}]")


def _warning(resource: Resource, resources: Resources, message: str, field: str = "") -> Problem:
    return _warning_of(resource.key, resources, message, field)


def _warning_of(key: ObjectKey, resources: Resources, message: str, field: str) -> Problem:
    origin = resources.origins.get(key, Origin(file="", line=0))
    return Problem(
        severity=Severity.WARNING,
        message=message,
        file=origin.file,
        line=origin.line,
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        field=field,
    )
