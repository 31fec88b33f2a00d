"""Which listeners, routes and rules do we serve? Resources -> Routing, with what became of each object."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from discovery.compile.attachment import ListenerPlan, RouteAttachments, attach, listener_statuses, plan_listeners
from discovery.compile.index import Index, Route
from discovery.compile.objects import object_statuses
from discovery.compile.policies import Policies
from discovery.compile.rules import CompiledRule, compile_rule
from discovery.resources.collection import Resources
from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.gateway_api import RouteRule
from discovery.resources.inference import InferencePool
from discovery.resources.meta import ObjectKey
from discovery.routing_table import PathKind, RouteEntry, RoutingTable
from discovery.snapshot import Backend, Listener, Routing, Rule
from discovery.status import Cause, Condition, ObjectStatus

MODELS_PATH = "/v1/models"


def compile_routing(
    resources: Resources, *, previous: Routing | None = None, ignored_policies: frozenset[str] = frozenset()
) -> Routing:
    """Everything that is routed by. ``ignored_policies``: kinds of policies that the operator says to do without."""
    inputs = (resources.routing_inputs(), ignored_policies)
    if previous is not None and previous.inputs == inputs:
        return previous
    return _Compiler(resources, ignored_policies).compile(inputs)


@dataclass(slots=True, kw_only=True)
class _RouteState:
    """One route on its way: where it attaches, and its rules before policies."""

    route: Route
    attachments: RouteAttachments
    rules: tuple[CompiledRule, ...]


class _Compiler:
    def __init__(self, resources: Resources, ignored: frozenset[str]) -> None:
        self._resources = resources
        self._index = Index(resources)
        self._plans = plan_listeners(self._index)
        self._policies = Policies(self._index, self._plans, ignored=ignored)
        self._entries: dict[int, list[RouteEntry]] = defaultdict(list)  # by id() of the plan
        self._rules: list[Rule] = []

    def compile(self, inputs: object) -> Routing:
        states = [self._compile_route(route) for route in self._index.routes]
        for state in states:
            self._add_entries(state)
        backends: dict[str, Backend] = {}
        models: set[str] = {model.spec.model_name for model in self._resources.inference_models}
        for state in states:
            for rule in state.rules:
                models.update(rule.matches.models())
                backends.update({ref.backend.id: ref.backend for ref in rule.rule.backend_refs if ref.backend})
        return Routing(
            listeners=tuple(self._listener(plan) for plan in self._plans if plan.rejection is None),
            backends=MappingProxyType(backends),
            rules=tuple(self._rules),
            model_names=frozenset(models),
            statuses=tuple(self._statuses(states)),
            inputs=inputs,
        )

    def _compile_route(self, route: Route) -> _RouteState:
        attachments = attach(route, self._plans, self._index)
        given: tuple[RouteRule | AIRouteRule, ...] = route.spec.rules
        rules = tuple(
            compile_rule(route, rule, number, self._index, self._policies) for number, rule in enumerate(given)
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
            variants: dict[Rule, Rule] = {}
            for attachment in state.attachments.attachments:
                plan = attachment.plan
                policy, refusal = self._policies.policy_for(route, compiled.source, plan)
                wanted = replace(compiled.rule, policy=policy, refusal=refusal or compiled.rule.refusal)
                rule = variants.get(wanted)
                if rule is None:
                    rule = wanted if not variants else replace(wanted, id=f"{wanted.id}@{plan.name}")
                    variants[wanted] = rule
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

    def _listener(self, plan: ListenerPlan) -> Listener:
        entries = self._entries[id(plan)]
        return Listener(
            name=plan.name,
            hostname=plan.hostname,
            port=plan.listener.port if plan.listener is not None else None,
            table=RoutingTable(entries),
            body_limit=self._policies.body_limit(plan),
            names_models_path=any(
                entry.path_kind is not PathKind.REGULAR_EXPRESSION and entry.path.rstrip("/") == MODELS_PATH
                for entry in entries
            ),
        )

    def _statuses(self, states: list[_RouteState]) -> Iterator[ObjectStatus]:
        yield from listener_statuses(self._plans)
        for state in states:
            yield from _route_statuses(state)
        yield from object_statuses(self._index, _used_pools(states))
        yield from self._policies.statuses()


def _used_pools(states: list[_RouteState]) -> dict[tuple[ObjectKey, str | None], InferencePool]:
    """Each pool that a route uses, once for each Gateway that the route is attached to."""
    used: dict[tuple[ObjectKey, str | None], InferencePool] = {}
    for state in states:
        gateways = {a.plan.gateway.path if a.plan.gateway else None for a in state.attachments.attachments}
        for pool in (pool for rule in state.rules for pool in rule.pools):
            used.update({(pool.key, gateway): pool for gateway in sorted(gateways, key=str)})
    return used


def _route_statuses(state: _RouteState) -> Iterator[ObjectStatus]:
    route = state.route
    generation = route.metadata.generation
    resolved = [cause for rule in state.rules for cause in rule.unresolved]
    partial = [cause for rule in state.rules for cause in (*rule.matches.causes, *rule.unsupported)]
    conditions = [_resolved_refs(resolved, generation)]
    served = [rule for rule in state.rules if rule.matches.matches and rule.is_supported]
    if partial and served:
        conditions.append(_unsupported("PartiallyInvalid", "True", partial, generation))
    for parent, attached in state.attachments.parents:
        accepted = attached
        if partial and not served and attached.status == "True":
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
        message=_join(causes),
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
