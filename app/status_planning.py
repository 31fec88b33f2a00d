"""Which objects of the cluster say something else of themselves than what became of them? (no I/O)"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from discovery.compile.attachment import parent_name
from discovery.resources.envoy_ai_gateway import AIGatewayRoute
from discovery.resources.gateway_api import Gateway, GatewayClass, HTTPRoute
from discovery.resources.meta import (
    ENVOY_AI_GATEWAY,
    ENVOY_GATEWAY,
    GATEWAY_API,
    INFERENCE,
    INFERENCE_ALPHA,
    ObjectKey,
)
from discovery.slices import Steps
from discovery.sources.kube_objects import StoredObject
from discovery.sources.kubernetes import KubernetesSource
from discovery.status import ObjectStatus
from discovery.status_patches import (
    Entry,
    Json,
    conditions_patch,
    entries_patch,
    gateway_patch,
    gateway_reference,
    has_entry_of,
    reference_of,
    worst_conditions,
)

ROUTES = ((GATEWAY_API, "HTTPRoute"), (ENVOY_AI_GATEWAY, "AIGatewayRoute"))
POLICIES = ((ENVOY_GATEWAY, "BackendTrafficPolicy"), (ENVOY_GATEWAY, "ClientTrafficPolicy"))
POOLS = ((INFERENCE, "InferencePool"), (INFERENCE_ALPHA, "InferencePool"))
_WITH_ENTRIES = (ROUTES[0], *POOLS, *POLICIES)

Path = tuple[str, str]  # namespace, name


class StatusPatch(NamedTuple):
    """A write to make: the part of the status that differs, over the version that it was compared with."""

    key: ObjectKey
    version: str
    status: Json
    wanted: int  # a hash of what we have to say: a write of the same was undone by somebody


class StatusPlanner:
    """Compares what was compiled with what the cluster's objects say."""

    def __init__(
        self,
        cluster: KubernetesSource,
        statuses: Sequence[ObjectStatus],
        *,
        controller: str,
        gateway: Path | None = None,
        addresses: Sequence[tuple[str, str]] | None,
        now: str,
    ) -> None:
        """``gateway`` is the only one that we serve, if there is such; ``addresses`` of our Service, as (type, value);
        None: not known, those that a Gateway has are kept."""
        self._cluster = cluster
        self._controller = controller
        self._gateway = gateway
        self._addresses = addresses
        self._now = now
        self._by_key: dict[ObjectKey, list[ObjectStatus]] = defaultdict(list)
        for status in statuses:
            self._by_key[ObjectKey(status.group, status.kind, status.namespace, status.name)].append(status)
        self._classes = {
            stored.resource.name
            for _, _, stored in cluster.all_of(GATEWAY_API, "GatewayClass")
            if isinstance(stored.resource, GatewayClass) and stored.resource.spec.controller_name == controller
        }
        self._gateways = frozenset((key.namespace, key.name) for key in self._by_key if key.kind == "Gateway")

    def steps(self) -> Steps[list[StatusPatch]]:
        """Every write to make."""
        patches: list[StatusPatch] = []
        for key in list(self._by_key):
            patches += self._patch(key)
            yield
        for group, kind in _WITH_ENTRIES:
            for namespace, name, stored in self._cluster.all_of(group, kind):
                key = ObjectKey(group, kind, namespace, name)
                if key not in self._by_key and self._may_have_entry(key, stored):
                    patches += self._patch(key)
                    yield
        return patches

    def _may_have_entry(self, key: ObjectKey, stored: StoredObject) -> bool:
        if key.group == INFERENCE_ALPHA:
            return bool(stored.status)
        return has_entry_of(stored.status, self._controller)

    def _patch(self, key: ObjectKey) -> Iterator[StatusPatch]:
        stored = self._cluster.stored(key)
        if stored is None or key in self._cluster.shadowed:  # of a file, or gone
            return
        status = self._status_of(key, stored)
        if status is not None:
            wanted = hash((tuple(self._by_key.get(key, ())), tuple(self._addresses or ())))
            yield StatusPatch(key, stored.version, status, wanted)

    def _status_of(self, key: ObjectKey, stored: StoredObject) -> Json | None:
        statuses = self._by_key.get(key, [])
        match key.kind:
            case "GatewayClass" if statuses:
                return conditions_patch(stored.status, statuses[0].conditions, now=self._now)
            case "Gateway" if statuses:
                return self._of_gateway(stored, statuses)
            case "HTTPRoute":
                return self._entries(key, stored, "parents", self._parents(stored, statuses, key.namespace))
            case "AIGatewayRoute" if statuses:
                return conditions_patch(stored.status, worst_conditions(statuses), now=self._now)
            case "InferencePool":
                field = "parent" if key.group == INFERENCE_ALPHA else "parents"
                return self._entries(key, stored, field, self._users(statuses))
            case "BackendTrafficPolicy" | "ClientTrafficPolicy":
                return self._entries(key, stored, "ancestors", self._ancestors(statuses))
        return None

    def _of_gateway(self, stored: StoredObject, statuses: Sequence[ObjectStatus]) -> Json | None:
        gateway = stored.resource
        # Of a Gateway that is ours by its name alone another controller writes the status.
        if not isinstance(gateway, Gateway) or gateway.spec.gateway_class_name not in self._classes:
            return None
        addresses = self._addresses
        if addresses is None:
            found = msgspec.json.decode(stored.status) if stored.status else {}
            given: Any = found.get("addresses") or [] if isinstance(found, dict) else []
            addresses = [(item.get("type", "IPAddress"), item["value"]) for item in given]
        own = [status for status in statuses if status.parent is None]
        listeners = [status for status in statuses if status.parent is not None]
        if not own:
            return None
        return gateway_patch(stored.status, own[0].conditions, listeners, addresses, now=self._now)

    def _entries(self, key: ObjectKey, stored: StoredObject, field: str, entries: list[Entry]) -> Json | None:
        return entries_patch(
            stored.status,
            field,
            entries,
            namespace=key.namespace,
            controller=self._controller,
            now=self._now,
            gateways=self._gateways,
            only=self._gateway,
        )

    @staticmethod
    def _parents(stored: StoredObject, statuses: Sequence[ObjectStatus], namespace: str) -> list[Entry]:
        refs = stored.resource.spec.parent_refs if isinstance(stored.resource, HTTPRoute | AIGatewayRoute) else ()
        if stored.left_out is not None:
            refs = stored.left_out.parents
        references = {parent_name(ref, namespace): reference_of(ref) for ref in refs if ref.is_gateway}
        return [
            Entry(reference=references[status.parent], conditions=status.conditions)
            for status in statuses
            if status.parent is not None and status.parent in references
        ]

    def _users(self, statuses: Sequence[ObjectStatus]) -> list[Entry]:
        """The Gateways that a pool's routes are attached to."""
        entries = []
        for status in statuses:
            namespace, _, name = (status.parent or "").partition("/")
            if (namespace, name) in self._gateways:
                entries.append(Entry(reference=gateway_reference(namespace, name), conditions=status.conditions))
        return entries

    def _ancestors(self, statuses: Sequence[ObjectStatus]) -> list[Entry]:
        """The Gateways above what a policy is for; of several targets below one, the worst counts."""
        found: dict[tuple[str, str, str], list[ObjectStatus]] = defaultdict(list)
        for status in statuses:
            for ancestor in self._ancestors_of(status.parent or ""):
                found[ancestor].append(status)
        return [
            Entry(reference=gateway_reference(*ancestor), conditions=worst_conditions(below))
            for ancestor, below in found.items()
        ]

    def _ancestors_of(self, target: str) -> Iterator[tuple[str, str, str]]:
        """Of "Kind namespace/name[/section]" the Gateways, with the listener where that is what the policy is for."""
        kind, _, path = target.partition(" ")
        namespace, _, rest = path.partition("/")
        name, _, section = rest.partition("/")
        if kind == "Gateway":
            yield namespace, name, section
            return
        gateways: dict[Path, None] = {}
        for group, route_kind in ROUTES:
            for status in self._by_key.get(ObjectKey(group, route_kind, namespace, name), ()):
                parts = (status.parent or "").partition(":")[0].split("/")
                if len(parts) >= 2:
                    gateways[parts[0], parts[1]] = None
        for gateway_namespace, gateway_name in gateways:
            yield gateway_namespace, gateway_name, ""
