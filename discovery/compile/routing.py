"""Which listeners, routes and rules do we serve? Resources -> Routing, with what became of each object."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from discovery.backend import Backend
from discovery.compile.adapters import Adapters
from discovery.compile.attachment import ListenerPlan, RouteAttachments, attach, plan_listeners
from discovery.compile.index import Index, Route
from discovery.compile.listener_status import listener_statuses
from discovery.compile.model_rewrites import ModelRewriting
from discovery.compile.objects import PoolUse, left_out_statuses, object_statuses
from discovery.compile.policies import Policies
from discovery.compile.rules import CompiledRule, compile_rule
from discovery.resources.collection import LeftOut, Resources
from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.gateway_api import RouteRule
from discovery.resources.meta import ObjectKey, Resource
from discovery.route_entry import PathKind, RouteEntry
from discovery.routing_table import RoutingTable
from discovery.slices import Steps, collect, run_at_once
from discovery.snapshot import Listener, Routing, Rule
from discovery.status import Cause, Condition, ObjectStatus

MODELS_PATH = "/v1/models"


def compile_routing(
    resources: Resources,
    *,
    previous: Routing | None = None,
    ignored_policies: frozenset[str] = frozenset(),
    by_port: bool = False,
) -> Routing:
    """Everything that is routed by. ``ignored_policies``: kinds of policies that the operator says to do without.

    ``by_port``: each listener is served on its own port, so that listeners on different ports have nothing to do with
    each other; otherwise all share one port.
    """
    return run_at_once(routing_steps(resources, previous=previous, ignored_policies=ignored_policies, by_port=by_port))


def routing_steps(
    resources: Resources,
    *,
    previous: Routing | None = None,
    ignored_policies: frozenset[str] = frozenset(),
    by_port: bool = False,
) -> Steps[Routing]:
    """``compile_routing`` in steps."""
    inputs = _Inputs(resources.routing_inputs(), ignored_policies, by_port, resources.left_out)
    if previous is not None and isinstance(previous.inputs, _Inputs):
        if (yield from _are_same(previous.inputs, inputs)):
            return previous
    return (yield from _Compiler(resources, ignored_policies, by_port=by_port).compile_steps(inputs))


class _Inputs(NamedTuple):
    """What a routing was compiled from."""

    resources: tuple[tuple[Resource, ...], ...]
    ignored_policies: frozenset[str]
    by_port: bool
    left_out: tuple[LeftOut, ...]


def _are_same(one: _Inputs, other: _Inputs) -> Steps[bool]:
    if one[1:] != other[1:] or [len(group) for group in one.resources] != [len(group) for group in other.resources]:
        return False
    for mine, its in zip(one.resources, other.resources, strict=True):
        if mine is its:
            continue
        for a, b in zip(mine, its, strict=True):
            if a is not b and a != b:
                return False
            yield
    return True


@dataclass(slots=True, kw_only=True)
class _RouteState:
    """One route on its way: where it attaches, and its rules before policies."""

    route: Route
    attachments: RouteAttachments
    rules: tuple[CompiledRule, ...]

    @property
    def partly_invalid(self) -> list[Cause]:
        """What of its rules cannot be served as it is written."""
        return [cause for rule in self.rules for cause in (*rule.matches.causes, *rule.unsupported)]

    @property
    def is_accepted(self) -> bool:
        """Whether any of its rules can be served."""
        return not self.partly_invalid or any(rule.matches.matches and rule.is_supported for rule in self.rules)


class _Compiler:
    def __init__(self, resources: Resources, ignored: frozenset[str], *, by_port: bool) -> None:
        self._resources = resources
        self._index = Index(resources)
        self._plans = plan_listeners(self._index, by_port=by_port)
        self._policies = Policies(self._index, self._plans)
        self._rewriting = ModelRewriting(self._index)
        self._adapters = Adapters(resources.adapter_maps)
        self._ignored = ignored
        self._attached: Counter[str] = Counter()  # accepted routes by the listener's name
        self._entries: dict[int, list[RouteEntry]] = defaultdict(list)  # by id() of the plan
        self._rules: list[Rule] = []

    def compile_steps(self, inputs: object) -> Steps[Routing]:
        yield from self._policies.fill(self._index, ignored=self._ignored)
        states: list[_RouteState] = []
        backends: dict[str, Backend] = {}
        models: set[str] = {*self._rewriting.names, *self._adapters.base_models}
        for route in self._index.routes:
            state = self._compile_route(route)
            states.append(state)
            self._add_entries(state)
            if state.is_accepted:
                self._attached.update(attachment.plan.name for attachment in state.attachments.attachments)
            for rule in state.rules:
                models.update(rule.matches.models())
                models.update(rule.overrides())
                backends.update({backend.id: backend for backend in rule.backends()})
            yield
        listeners: list[Listener] = []
        for plan in [plan for plan in self._plans if plan.rejection is None]:
            listener = yield from self._listener(plan)
            listeners.append(listener)
        statuses = yield from collect(self._statuses(states))
        return Routing(
            listeners=tuple(listeners),
            backends=MappingProxyType(backends),
            rules=tuple(self._rules),
            model_names=frozenset(models),
            base_models=self._adapters.base_models,
            statuses=tuple(statuses),
            inputs=inputs,
        )

    def _compile_route(self, route: Route) -> _RouteState:
        attachments = attach(route, self._plans, self._index)
        given: tuple[RouteRule | AIRouteRule, ...] = route.spec.rules
        rules = tuple(
            compile_rule(route, rule, number, self._index, self._policies, self._rewriting)
            for number, rule in enumerate(given)
        )
        return _RouteState(route=route, attachments=attachments, rules=rules)

    def _add_entries(self, state: _RouteState) -> None:
        """A rule for each listener of its route; where policies say the same of it, it is the same rule."""
        route = state.route
        created = route.metadata.created
        age = math.inf if created is None else created
        for compiled in state.rules:
            if not compiled.matches.matches:
                continue
            variants: list[tuple[Rule, Rule]] = []  # as wanted, and with an id of its own
            for attachment in state.attachments.attachments:
                plan = attachment.plan
                policy, refusal = self._policies.policy_for(route, compiled.source, plan)
                wanted = replace(compiled.rule, policy=policy, refusal=refusal or compiled.rule.refusal)
                rule = next((made for known, made in variants if known == wanted), None)
                if rule is None:
                    rule = wanted if not variants else replace(wanted, id=f"{wanted.id}@{plan.name}")
                    variants.append((wanted, rule))
                    self._rules.append(rule)
                for number, match in enumerate(compiled.matches.matches):
                    self._entries[id(plan)].append(
                        RouteEntry(
                            rule=rule,
                            hostnames=attachment.hostnames,
                            path_kind=match.path_kind,
                            path=match.path,
                            path_regex=match.path_regex,
                            method=match.method,
                            headers=match.headers,
                            query=match.query,
                            tie_break=(age, route.path, route.kind, compiled.number, number),
                            cards=compiled.cards_of(match),
                        )
                    )

    def _listener(self, plan: ListenerPlan) -> Steps[Listener]:
        entries = self._entries[id(plan)]
        table = yield from RoutingTable.build_steps(entries, hostname=plan.hostname)
        return Listener(
            name=plan.name,
            hostname=plan.hostname,
            port=plan.listener.port if plan.listener is not None else None,
            table=table,
            body_limit=self._policies.body_limit(plan),
            tells_rate_limits=self._policies.tells_rate_limits(plan),
            models_path_rules=frozenset(
                entry.rule.id
                for entry in entries
                if entry.path_kind is not PathKind.REGULAR_EXPRESSION and entry.path.rstrip("/") == MODELS_PATH
            ),
        )

    def _statuses(self, states: list[_RouteState]) -> Iterator[ObjectStatus]:
        yield from listener_statuses(self._plans, self._attached)
        for state in states:
            yield from _route_statuses(state)
        yield from object_statuses(self._index, _used_pools(states), self._adapters)
        yield from self._rewriting.statuses()
        yield from left_out_statuses(self._resources.left_out)
        yield from self._policies.statuses()


def _used_pools(states: list[_RouteState]) -> dict[tuple[ObjectKey, str | None], PoolUse]:
    """Each pool that a route uses, once for each Gateway that the route asks for and that we serve."""
    used: dict[tuple[ObjectKey, str | None], PoolUse] = {}
    for state in states:
        gateways: dict[str | None, bool] = {}
        for attachment in state.attachments.attachments:
            gateway = attachment.plan.gateway
            gateways[gateway.path if gateway is not None else None] = state.is_accepted
        for gateway_path in state.attachments.refusing:
            gateways.setdefault(gateway_path, False)
        for pool in (pool for rule in state.rules for pool in rule.pools):
            for path, is_accepted in sorted(gateways.items(), key=str):
                known = used.get((pool.key, path))
                used[pool.key, path] = PoolUse(pool, is_accepted or (known is not None and known.is_accepted))
    return used


def _route_statuses(state: _RouteState) -> Iterator[ObjectStatus]:
    route = state.route
    generation = route.metadata.generation
    resolved = [cause for rule in state.rules for cause in rule.unresolved]
    partial = state.partly_invalid
    conditions = [_resolved_refs(resolved, generation)]
    if partial and state.is_accepted:
        conditions.append(_unsupported("PartiallyInvalid", "True", partial, generation))
    for parent, attached in state.attachments.parents:
        accepted = attached
        if not state.is_accepted and attached.status == "True":
            accepted = _unsupported("Accepted", "False", partial, generation)
        yield ObjectStatus(
            group=route.group,
            kind=route.kind,
            namespace=route.namespace,
            name=route.name,
            parent=parent,
            conditions=(accepted, *conditions),
        )


def _unsupported(
    type_: str, status: Literal["True", "False"], causes: list[Cause], generation: int | None
) -> Condition:
    return Condition(
        type=type_,
        status=status,
        reason="UnsupportedValue",
        message=("Dropped Rule: " if type_ == "PartiallyInvalid" else "") + _join(causes),
        observed_generation=generation,
        causes=tuple(causes),
    )


def _resolved_refs(unresolved: list[tuple[str, Cause]], generation: int | None) -> Condition:
    if not unresolved:
        return Condition(type="ResolvedRefs", status="True", reason="ResolvedRefs", observed_generation=generation)
    causes = tuple(cause for _, cause in unresolved)
    return Condition(
        type="ResolvedRefs",
        status="False",
        reason=unresolved[0][0],
        message=_join(causes),
        observed_generation=generation,
        causes=causes,
    )


def _join(causes: list[Cause] | tuple[Cause, ...]) -> str:
    return "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
