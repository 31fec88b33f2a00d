"""What is a policy for? Its targets by name and by label, and the targets that a rule on a listener answers to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from discovery.compile.attachment import ListenerPlan
from discovery.compile.index import Index, Route
from discovery.resources.meta import PolicySpec, Resource
from discovery.slices import Steps


class Target(NamedTuple):
    """What a policy is for: an object, or the listener or rule of it that ``section`` names."""

    kind: str
    namespace: str
    name: str
    section: str = ""

    def __str__(self) -> str:
        section = f"/{self.section}" if self.section else ""
        return f"{self.kind} {self.namespace}/{self.name}{section}"


class PolicyTargets:
    """Names and labels that policies can target."""

    def __init__(self) -> None:
        self._sections: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._labels: dict[tuple[str, str, str], dict[str, str]] = {}

    def fill(self, index: Index) -> Steps[None]:
        """Learn all names, before any policy is asked for."""
        for gateway in index.resources.gateways:
            self._add("Gateway", gateway, {listener.name for listener in gateway.spec.listeners})
        for route in index.routes:
            names = {rule.name for rule in route.spec.rules if rule.name}
            # Envoy AI Gateway makes an HTTPRoute of the same name, which is what policies target.
            for kind in {"HTTPRoute", route.kind}:
                self._add(kind, route, names)
            if not index.resources.gateways:
                for target in parent_targets(route):
                    self._sections["Gateway", target.namespace, target.name].add(target.section)
                    self._labels.setdefault(("Gateway", target.namespace, target.name), {})
            yield

    def _add(self, kind: str, resource: Resource, sections: set[str]) -> None:
        key = (kind, resource.namespace, resource.name)
        self._sections[key] |= sections
        self._labels[key] = {**self._labels.get(key, {}), **resource.metadata.labels}

    def exists(self, target: Target) -> bool:
        key = (target.kind, target.namespace, target.name)
        return key in self._labels and (not target.section or target.section in self._sections[key])

    def of(self, policy: Resource, spec: PolicySpec, *, any_namespace: bool = False) -> Iterator[Target]:
        """Every target of a policy. With ``any_namespace`` a selector that names namespaces means all."""
        for ref in spec.targets:
            yield Target(ref.kind, policy.namespace, ref.name, ref.section_name or "")
        for selector in spec.target_selectors:
            for (kind, namespace, name), labels in self._labels.items():
                is_near = namespace == policy.namespace or (any_namespace and selector.namespaces is not None)
                if kind == selector.kind and is_near and selector.selects(labels):
                    yield Target(kind, namespace, name)


def route_targets(route: Route, rule_name: str | None) -> Iterator[Target]:
    for kind in dict.fromkeys(("HTTPRoute", route.kind)):
        if rule_name:
            yield Target(kind, route.namespace, route.name, rule_name)
    for kind in dict.fromkeys(("HTTPRoute", route.kind)):
        yield Target(kind, route.namespace, route.name)


def listener_targets(plan: ListenerPlan) -> Iterator[Target]:
    if plan.gateway is not None and plan.listener is not None:
        yield Target("Gateway", plan.gateway.namespace, plan.gateway.name, plan.listener.name)
        yield Target("Gateway", plan.gateway.namespace, plan.gateway.name)


def parent_targets(route: Route) -> Iterator[Target]:
    for ref in route.spec.parent_refs:
        if ref.is_gateway:
            namespace = ref.namespace or route.namespace
            if ref.section_name:
                yield Target("Gateway", namespace, ref.name, ref.section_name)
            yield Target("Gateway", namespace, ref.name)
