"""What do policies say about a rule on a listener? Targets, precedence, conflicts (Envoy Gateway's policy attachment).

The most specific policy of a kind wins whole: rule, then route, then listener, then Gateway. Of two for one target the
older wins, then the first by namespace/name; the other is Conflicted. A policy that we could only follow in part, and
whose missing part restricts, is invalid, and what it covers is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Generic, TypeVar

from discovery.compile.active_health import compile_active_health
from discovery.compile.attachment import ListenerPlan
from discovery.compile.index import Index, Route
from discovery.compile.policy_targets import (
    PolicyTargets,
    Target,
    listener_targets,
    parent_targets,
    route_targets,
)
from discovery.compile.rate_limits import compile_rate_limits
from discovery.compile.rule_policy import compile_rule_policy
from discovery.rate_limit import RateLimit
from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.envoy_gateway import BackendTrafficPolicy, ClientTrafficPolicy
from discovery.resources.gateway_api import RouteRule
from discovery.resources.meta import ObjectKey, Resource, UnimplementedPolicy, age_of
from discovery.resources.quantities import parse_quantity
from discovery.rule_policy import DEFAULT_POLICY, ActiveHealth, RulePolicy
from discovery.slices import Steps
from discovery.snapshot import DEFAULT_BODY_LIMIT, Refusal
from discovery.status import Cause, Condition, ObjectStatus

_MAX_SHOWN = 10  # targets in a message

_ATTACHED_KINDS = frozenset({"Gateway", "HTTPRoute", "AIGatewayRoute"})
_BACKEND_KINDS = frozenset({"Service", "Backend", "InferencePool", "AIServiceBackend"})


P = TypeVar("P", BackendTrafficPolicy, ClientTrafficPolicy)


class Policies:
    """All policies, by what they are for."""

    def __init__(self, index: Index, plans: Sequence[ListenerPlan]) -> None:
        self._is_implicit = plans[0].gateway is None
        self._backend = _Claims[BackendTrafficPolicy]()
        self._client = _Claims[ClientTrafficPolicy]()
        self._active_health: dict[tuple[ObjectKey, str | None], tuple[ActiveHealth | None, tuple[Cause, ...]]] = {}
        self._rate_limits: dict[ObjectKey, tuple[tuple[RateLimit, ...], tuple[Cause, ...]]] = {}
        self._unimplemented: dict[Target, UnimplementedPolicy] = {}
        self._unimplemented_statuses: list[ObjectStatus] = []
        self._routes = index.routes
        self._plans = plans
        self._routes_below: dict[Target, set[tuple[str, str]]] | None = None  # filled when all routes are attached

    def fill(self, index: Index, *, ignored: frozenset[str]) -> Steps[None]:
        """Learn all policies, before any rule is asked for. ``ignored``: kinds of unimplemented ones to do without."""
        resources = index.resources
        if not (
            resources.backend_traffic_policies or resources.client_traffic_policies or resources.unimplemented_policies
        ):
            return
        targets = PolicyTargets()
        yield from targets.fill(index)
        yield from self._backend.fill(resources.backend_traffic_policies, targets)
        yield from self._client.fill(resources.client_traffic_policies, targets)
        for policy in resources.unimplemented_policies:
            if policy.kind not in ignored:
                self._add_unimplemented(policy, targets)
            yield

    def policy_for(
        self, route: Route, rule: RouteRule | AIRouteRule, plan: ListenerPlan
    ) -> tuple[RulePolicy, Refusal | None]:
        """The rule's policy on this listener, or why the rule must be refused there."""
        targets = [*route_targets(route, rule.name), *self._gateway_targets(route, plan)]
        for target in targets:
            found = self._unimplemented.get(target)
            if found is not None:
                message = f"{found.kind} {found.path} targets {target} and is not implemented"
                return DEFAULT_POLICY, Refusal(reason="unsupported_policy", message=message)
        client = self._client_policy(plan, self._gateway_targets(route, plan))
        if client is not None and (fault := _client_fault(client)) is not None:
            return DEFAULT_POLICY, Refusal(reason="invalid_policy", message=f"{client.kind} {client.path}: {fault}")
        policy = self._backend.first(targets)
        causes = self._causes_of(policy) if policy is not None else ()
        if policy is not None and causes:
            message = f"{policy.kind} {policy.path}: {causes[0].field}: {causes[0].message}"
            return DEFAULT_POLICY, Refusal(reason="invalid_policy", message=message)
        if policy is None:
            return compile_rule_policy(rule, None), None
        host = next((name for name in route.spec.hostnames if not name.startswith("*")), None)
        limits, health = self._rate_limits_of(policy)[0], self._active_health_of(policy, host)[0]
        return compile_rule_policy(rule, policy, limits, health), None

    def tells_rate_limits(self, plan: ListenerPlan) -> bool:
        """Whether the listener's answers carry x-ratelimit-* headers."""
        policy = self._listener_policy(plan)
        return policy is None or not policy.spec.headers.disable_rate_limit_headers

    def body_limit(self, plan: ListenerPlan) -> int:
        """The listener's limit for request bodies, in bytes."""
        policy = self._listener_policy(plan)
        limit = policy.spec.connection.buffer_limit if policy is not None else None
        if policy is None or limit is None or _client_fault(policy) is not None:
            return DEFAULT_BODY_LIMIT
        return parse_quantity(limit)

    def refusal_for_backend(self, touches: Sequence[tuple[str, str, str]]) -> Refusal | None:
        """Why a backend must not be used: a policy that we do not implement is for it or for what is behind it."""
        for kind, namespace, name in touches:
            target = Target(kind, namespace, name)
            found = self._unimplemented.get(target)
            if found is not None:
                message = f"{found.kind} {found.path} targets {target} and is not implemented"
                return Refusal(reason="unsupported_policy", message=message)
        return None

    def statuses(self) -> Iterator[ObjectStatus]:
        """What became of each policy, for each of its targets."""
        for policy, target, condition in self._backend.outcomes:
            causes = self._causes_of(policy) if condition is None else ()
            overridden = self._overridden(self._backend, policy, target) if condition is None else []
            yield _status(policy, target, condition or _invalid(policy, causes) or _accepted(policy), *overridden)
        for client, target, condition in self._client.outcomes:
            causes = _client_causes(client) if condition is None else ()
            overridden = self._overridden(self._client, client, target) if condition is None else []
            yield _status(client, target, condition or _invalid(client, causes) or _accepted(client), *overridden)
        yield from self._unimplemented_statuses

    def _overridden(self, claims: _Claims[P], policy: P, target: Target | None) -> list[Condition]:
        """What is below a policy's target and has a policy of the same kind of its own: there this one says nothing."""
        if target is None or len(claims.targets) < 2:
            return []
        if target.kind == "Gateway":
            below = [other for other in claims.targets if other != target and self._is_below(other, target)]
        else:
            below = [other for other in claims.sections_of(target) if other != target and not target.section]
        if not below:
            return []
        shown = ", ".join(str(other) for other in below[:_MAX_SHOWN]) + (", …" if len(below) > _MAX_SHOWN else "")
        return [
            Condition(
                type="Overridden",
                status="True",
                reason="Overridden",
                message=f"another {policy.kind} says it for {shown}",
                observed_generation=policy.metadata.generation,
            )
        ]

    def _is_below(self, other: Target, gateway: Target) -> bool:
        if other.kind == "Gateway":
            return not gateway.section and other.section != "" and other[:3] == gateway[:3]
        if self._routes_below is None:
            self._routes_below = defaultdict(set)
            for plan in self._plans:
                for route in plan.routes:
                    for above in self._gateway_targets(route, plan):
                        self._routes_below[above].add((route.namespace, route.name))
        return (other.namespace, other.name) in self._routes_below[gateway]

    def _causes_of(self, policy: BackendTrafficPolicy) -> tuple[Cause, ...]:
        """Why a policy must not be followed."""
        return (
            *_restriction_causes(policy.restrictions),
            *self._rate_limits_of(policy)[1],
            *self._active_health_of(policy, None)[1],
        )

    def _active_health_of(
        self, policy: BackendTrafficPolicy, host: str | None
    ) -> tuple[ActiveHealth | None, tuple[Cause, ...]]:
        """The same: rules that ask for one host have the very same check."""
        found = self._active_health.get((policy.key, host))
        if found is None:
            found = self._active_health[policy.key, host] = compile_active_health(policy, host)
        return found

    def _rate_limits_of(self, policy: BackendTrafficPolicy) -> tuple[tuple[RateLimit, ...], tuple[Cause, ...]]:
        """Compiled once, however many rules the policy is for: they have the very same limits."""
        found = self._rate_limits.get(policy.key)
        if found is None:
            found = self._rate_limits[policy.key] = compile_rate_limits(policy)
        return found

    def _listener_policy(self, plan: ListenerPlan) -> ClientTrafficPolicy | None:
        targets = list(listener_targets(plan))
        if self._is_implicit:
            for route in self._routes:
                targets.extend(parent_targets(route))
        return self._client_policy(plan, targets)

    def _client_policy(self, plan: ListenerPlan, targets: Sequence[Target]) -> ClientTrafficPolicy | None:
        return self._client.first([*listener_targets(plan), *targets])

    def _gateway_targets(self, route: Route, plan: ListenerPlan) -> list[Target]:
        """Where no Gateway is in the files, the one that a parentRef names is the implicit listener."""
        return list(parent_targets(route)) if plan.gateway is None else list(listener_targets(plan))

    def _add_unimplemented(self, policy: UnimplementedPolicy, targets: PolicyTargets) -> None:
        for target in targets.of(policy, policy.spec, any_namespace=True):
            if target.kind in _BACKEND_KINDS:  # of a backend the whole is meant: sections are ports
                self._unimplemented.setdefault(target._replace(section=""), policy)
            elif target.kind not in _ATTACHED_KINDS:
                continue  # nothing that we serve
            elif targets.exists(target):
                self._unimplemented.setdefault(target, policy)
            else:
                rejection = _rejection(policy, "TargetNotFound", f"there is no {target}")
                self._unimplemented_statuses.append(_status(policy, target, rejection))
                continue
            message = f"{policy.kind} is not implemented, so {target} answers 500 (--ignore-policy {policy.kind})"
            self._unimplemented_statuses.append(_status(policy, target, _rejection(policy, "Invalid", message)))


class _Claims(Generic[P]):
    """Which policy of one kind has which target."""

    def __init__(self) -> None:
        self._owners: dict[Target, P] = {}
        self._by_object: dict[tuple[str, str, str], list[Target]] = defaultdict(list)
        self.outcomes: list[tuple[P, Target | None, Condition | None]] = []

    def fill(self, policies: Sequence[P], targets: PolicyTargets) -> Steps[None]:
        for policy in sorted(policies, key=age_of):
            for target in targets.of(policy, policy.spec):
                self.outcomes.append((policy, target, self._claim(policy, target, targets)))
            yield

    @property
    def targets(self) -> Collection[Target]:
        """Everything that a policy of this kind is for."""
        return self._owners.keys()

    def sections_of(self, target: Target) -> Sequence[Target]:
        """Those of one object, the object itself among them."""
        return self._by_object[target[:3]]

    def first(self, targets: Sequence[Target]) -> P | None:
        for target in targets:
            owner = self._owners.get(target)
            if owner is not None:
                return owner
        return None

    def _claim(self, policy: P, target: Target, targets: PolicyTargets) -> Condition | None:
        if not targets.exists(target):
            return _rejection(policy, "TargetNotFound", f"there is no {target}")
        owner = self._owners.setdefault(target, policy)
        if owner is policy:
            self._by_object[target[:3]].append(target)
        else:
            return _rejection(policy, "Conflicted", f"{owner.path} is for {target} already")
        return None


def _client_fault(policy: ClientTrafficPolicy) -> str | None:
    causes = _client_causes(policy)
    return f"{causes[0].field}: {causes[0].message}" if causes else None


def _client_causes(policy: ClientTrafficPolicy) -> tuple[Cause, ...]:
    causes = list(_restriction_causes(policy.restrictions))
    limit = policy.spec.connection.buffer_limit
    if limit is not None:
        try:
            parse_quantity(limit)
        except ValueError as error:
            causes.append(Cause(field="spec.connection.bufferLimit", message=str(error)))
    return tuple(causes)


def _restriction_causes(restrictions: Sequence[str]) -> Iterator[Cause]:
    for restriction in restrictions:
        path, _, reason = restriction.partition(": ")
        yield Cause(field=path, message=reason)


def _invalid(policy: Resource, causes: tuple[Cause, ...]) -> Condition | None:
    if not causes:
        return None
    return Condition(
        type="Accepted",
        status="False",
        reason="Invalid",
        message="; ".join(f"{cause.field}: {cause.message}" for cause in causes),
        observed_generation=policy.metadata.generation,
        causes=causes,
    )


def _rejection(policy: Resource, reason: str, message: str) -> Condition:
    generation = policy.metadata.generation
    return Condition(type="Accepted", status="False", reason=reason, message=message, observed_generation=generation)


def _accepted(policy: Resource) -> Condition:
    generation = policy.metadata.generation
    return Condition(type="Accepted", status="True", reason="Accepted", observed_generation=generation)


def _status(policy: Resource, target: Target | None, *conditions: Condition) -> ObjectStatus:
    return ObjectStatus(
        group=policy.group,
        kind=policy.kind,
        namespace=policy.namespace,
        name=policy.name,
        parent=str(target) if target is not None else None,
        conditions=conditions,
    )
