"""What is read from a cluster, and at which paths? The kinds that we use, by the API's plural names and versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from discovery.resources.inference import ADAPTER_MAP_LABEL
from discovery.resources.kinds import KINDS
from discovery.resources.meta import ENVOY_AI_GATEWAY, ENVOY_GATEWAY, GATEWAY_API

# Kinds whose objects say who they concern: read in full only where something names them (watch_plans.py).
PLANNED = frozenset({"Pod", "EndpointSlice"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedKind:
    """A kind as the API serves it. ``versions`` are tried in order: clusters have different releases of the CRDs."""

    group: str
    kind: str
    versions: tuple[str, ...]
    is_namespaced: bool = True
    selector: str = ""  # a label selector that always holds
    has_crd: bool = True  # may be missing, may come and go

    @property
    def plural(self) -> str:
        """As in paths and RBAC rules."""
        return _plural(self.kind)

    @property
    def name(self) -> str:
        """ "httproutes.gateway.networking.k8s.io", as logs, metrics and RBAC messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, version: str, namespace: str | None = None) -> str:
        """Where to list and watch it."""
        root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"


# Policies that we do not implement: a target must not be served as if they were not there. Of these KINDS lacks the
# kinds, or versions that clusters still have.
_MORE_POLICIES = (
    WatchedKind(group=ENVOY_GATEWAY, kind="EnvoyExtensionPolicy", versions=("v1alpha1",)),
    WatchedKind(group=ENVOY_GATEWAY, kind="EnvoyPatchPolicy", versions=("v1alpha1",)),
)
_OLDER_VERSIONS: Mapping[tuple[str, str], tuple[str, ...]] = {(GATEWAY_API, "BackendTLSPolicy"): ("v1alpha3",)}
_SELECTORS = {"ConfigMap": f"{ADAPTER_MAP_LABEL}=true"}
# The newest first: what only differs in its name is stored once whichever is asked for.
_NEWEST_FIRST = frozenset({(ENVOY_AI_GATEWAY, "AIGatewayRoute"), (ENVOY_AI_GATEWAY, "AIServiceBackend")})


def watched_kinds() -> Iterator[WatchedKind]:
    """Every kind that something is made of."""
    for (group, kind), known in KINDS.items():
        if known.model is None:
            continue
        versions = (*known.versions, *_OLDER_VERSIONS.get((group, kind), ()))
        if (group, kind) in _NEWEST_FIRST:
            versions = tuple(reversed(versions))
        yield WatchedKind(
            group=group,
            kind=kind,
            versions=versions,
            is_namespaced=known.is_namespaced,
            selector=_SELECTORS.get(kind, ""),
            has_crd=known.has_schema,
        )
    yield from _MORE_POLICIES


def find_kind(group: str, kind: str) -> WatchedKind:
    """The kind of this name. Raises KeyError."""
    for known in watched_kinds():
        if (known.group, known.kind) == (group, kind):
            return known
    raise KeyError(kind)


def _plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith("s") else "s")
