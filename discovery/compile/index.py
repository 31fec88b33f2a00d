"""Which object does a name stand for? Lookups over all resources, built once per compile."""

from __future__ import annotations

from collections import defaultdict

from discovery.backend import PoolSettings
from discovery.compile.pools import compile_pool
from discovery.resources.collection import Resources
from discovery.resources.core import CertificateMap, Service
from discovery.resources.envoy_ai_gateway import AIGatewayRoute, AIServiceBackend
from discovery.resources.envoy_gateway import Backend
from discovery.resources.gateway_api import GrantTo, HTTPRoute
from discovery.resources.inference import InferenceModel, InferenceObjective, InferencePool
from discovery.resources.meta import INFERENCE, INFERENCE_ALPHA, ObjectKey, has_labels

POOL_GROUPS = (INFERENCE, INFERENCE_ALPHA)

Route = HTTPRoute | AIGatewayRoute


class Index:
    """Names to objects. The key of a namespaced object is (namespace, name)."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.backends: dict[tuple[str, str], Backend] = {(b.namespace, b.name): b for b in resources.backends}
        self.services: dict[tuple[str, str], Service] = {(s.namespace, s.name): s for s in resources.services}
        self.ai_service_backends: dict[tuple[str, str], AIServiceBackend] = {
            (b.namespace, b.name): b for b in resources.ai_service_backends
        }
        self.certificate_maps: dict[tuple[str, str], CertificateMap] = {
            (m.namespace, m.name): m for m in resources.certificate_maps
        }
        self.routes: tuple[Route, ...] = resources.routes
        self.backend_faults: dict[ObjectKey, tuple[str, str] | None] = {}  # filled by references.py
        self._pools: dict[tuple[str, str], dict[str, InferencePool]] = defaultdict(dict)
        for pool in resources.inference_pools:
            self._pools[pool.namespace, pool.name][pool.group] = pool
        self._grants: dict[tuple[str, str, str, str], list[GrantTo]] = defaultdict(list)
        for grant in resources.reference_grants:
            for source in grant.spec.from_:
                key = (source.group, source.kind, source.namespace, grant.namespace)
                self._grants[key].extend(grant.spec.to)
        self._namespace_labels = {n.name: n.metadata.labels for n in resources.namespaces}
        self._models: dict[tuple[str, str, str], list[InferenceModel]] = defaultdict(list)
        for model in resources.inference_models:
            target = self.find_pool(model.spec.pool_ref.group, model.namespace, model.spec.pool_ref.name)
            if target is not None:
                self._models[target.group, target.namespace, target.name].append(model)

        self._objectives: dict[ObjectKey, list[InferenceObjective]] = defaultdict(list)
        for objective in resources.inference_objectives:
            target = self.find_pool(objective.spec.pool_ref.group, objective.namespace, objective.spec.pool_ref.name)
            if target is not None:
                self._objectives[target.key].append(objective)
        self._pool_settings: dict[ObjectKey, PoolSettings] = {}

    def settings_of(self, pool: InferencePool) -> PoolSettings:
        """How the pool's endpoints are picked."""
        settings = self._pool_settings.get(pool.key)
        if settings is None:
            settings = compile_pool(pool, self._objectives.get(pool.key, []), self.models_of(pool))
            self._pool_settings[pool.key] = settings
        return settings

    def find_pool(self, group: str, namespace: str, name: str) -> InferencePool | None:
        """The pool of that group, else the one of the other group: users mix v1 and v1alpha2."""
        found = self._pools.get((namespace, name))
        if not found:
            return None
        return found.get(group) or next(iter(found.values()))

    def pool_id(self, pool: InferencePool) -> str:
        """The pool's key into the membership; the older group is named only beside a namesake of the newer."""
        has_namesake = len(self._pools[pool.namespace, pool.name]) > 1
        suffix = f".{INFERENCE_ALPHA}" if has_namesake and pool.group == INFERENCE_ALPHA else ""
        return f"InferencePool{suffix}/{pool.path}"

    def pool_members(self, pool: InferencePool) -> list[AIServiceBackend]:
        """The AIServiceBackends of a pool without a port, by name."""
        if pool.spec.target_ports:
            return []
        backends = (b for b in self.resources.ai_service_backends if b.namespace == pool.namespace)
        matching = (b for b in backends if has_labels(b.metadata.labels, pool.spec.match_labels))
        return sorted(matching, key=lambda b: b.name)

    def models_of(self, pool: InferencePool) -> list[InferenceModel]:
        """The InferenceModels that name this pool."""
        return self._models.get((pool.group, pool.namespace, pool.name), [])

    def is_granted(self, source: tuple[str, str, str], target: tuple[str, str, str, str]) -> bool:
        """Whether (group, kind, namespace) may refer to (group, kind, namespace, name): a ReferenceGrant there."""
        group, kind, namespace, name = target
        if source[2] == namespace:
            return True
        groups = POOL_GROUPS if kind == "InferencePool" else (group,)
        return any(
            to.group in groups and to.kind == kind and to.name in (None, "", name)
            for to in self._grants.get((*source, namespace), ())
        )

    def labels_of_namespace(self, namespace: str) -> dict[str, str]:
        """A namespace's labels; one that no object describes has the label that Kubernetes gives to all."""
        return {"kubernetes.io/metadata.name": namespace, **self._namespace_labels.get(namespace, {})}
