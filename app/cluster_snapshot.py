"""What does a cluster hold, as one file that serve, check and explain take? No secrets, and only what we read.

The objects are those that `serve --kubernetes` would use with the same options, so that a question about routing has
the same answer away from the cluster. Each is a document of its own, in JSON, which every YAML parser reads the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import orjson

from discovery.resources.collection import MODELS, LeftOut, Resources
from discovery.resources.meta import ObjectKey, Resource
from discovery.scope import Scope, select
from discovery.shown import MASK, is_credential, is_secret_member
from discovery.sources.kube_client import KubeClient, KubeError
from discovery.sources.kube_kinds import PLANNED, WatchedKind, find_kind, watched_kinds
from discovery.sources.kube_lists import list_all
from discovery.sources.kube_objects import READ_DOMAINS, UnreadableError, read_object
from discovery.sources.watch_plans import is_wanted, plan_watches, wants_of

Json = dict[str, Any]

_METADATA = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp", "labels")
# Of kinds that may hold what is nobody's business, the fields that are ours.
_FIELDS: dict[str, dict[str, Any]] = {
    "Pod": {
        "spec": {"containers": {"name": None, "ports": None}},
        "status": {"phase": None, "podIP": None, "conditions": {"type": None, "status": None}},
    },
    "Service": {"spec": {"type": None, "clusterIP": None, "selector": None, "ports": None}},
    "ConfigMap": {"data": {"baseModel": None, "adapters": None, "ca.crt": None}},
    "EndpointSlice": {
        "addressType": None,
        "endpoints": {"addresses": None, "conditions": None, "targetRef": None},
        "ports": None,
    },
    "Namespace": {},
}


class ClusterSnapshot:
    """Reads a cluster once. ``warn`` is told what is missing in the result, in words."""

    def __init__(
        self, client: KubeClient, *, namespaces: tuple[str, ...], scope: Scope, warn: Callable[[str], None]
    ) -> None:
        self._client = client
        self._namespaces = namespaces
        self._scope = scope
        self._warn = warn
        self._raw: dict[ObjectKey, Json] = {}
        self._found: dict[str, list[Resource]] = {name: [] for name in MODELS.values()}
        self._left_out: list[LeftOut] = []

    async def documents(self) -> list[str]:
        """Everything that concerns our Gateways, as texts. Raises KubeError when the API server cannot be asked."""
        for kind in watched_kinds():
            if kind.kind not in PLANNED:
                for namespace in self._places(kind):
                    await self._read(kind, namespace, kind.selector)
        chosen = select(self._resources(), Resources(), self._scope).resources
        kept = [resource for name in MODELS.values() for resource in getattr(chosen, name)]
        before = {name: len(found) for name, found in self._found.items()}
        for scope, wanted in plan_watches(wants_of(chosen)).items():
            if self._namespaces and scope.namespace not in self._namespaces:
                continue
            group = "discovery.k8s.io" if scope.kind == "EndpointSlice" else ""
            await self._read(find_kind(group, scope.kind), scope.namespace, scope.selector, wanted)
        for name, found in self._found.items():
            kept += found[before[name] :]
        for lost in self._left_out:
            self._warn(f"{lost.key.kind} {lost.key.namespace}/{lost.key.name} is left out: {lost.message}")
        keys = dict.fromkeys(resource.key for resource in kept)
        parents = {route.key: route.spec.parent_refs for route in chosen.routes}
        return [self._text(key, parents.get(key)) for key in keys if key in self._raw]

    def _resources(self) -> Resources:
        arguments: dict[str, Any] = {name: tuple(items) for name, items in self._found.items()}
        return Resources(**arguments)

    def _places(self, kind: WatchedKind) -> Iterable[str | None]:
        return self._namespaces or (None,) if kind.is_namespaced else (None,)

    async def _read(self, kind: WatchedKind, namespace: str | None, selector: str, wanted: Any = frozenset()) -> None:
        for version in kind.versions:
            try:
                listed = await list_all(self._client, kind.path(version, namespace), selector=selector)
            except KubeError as error:
                if error.status == 403:
                    place = f" in {namespace}" if namespace else ""
                    self._warn(f"{kind.name}{place} may not be read, the snapshot has none: {error.message}")
                    return
                if error.status != 404:
                    raise
                continue
            for item in listed.items:
                self._take(item, kind, version, wanted)
            return

    def _take(self, item: msgspec.Raw, kind: WatchedKind, version: str, wanted: Any) -> None:
        try:
            stored = read_object(item, kind, version)
        except UnreadableError:
            return
        if stored.left_out is not None:
            self._left_out.append(stored.left_out)
        resource = stored.resource
        if resource is None or not is_wanted(resource.metadata.labels, wanted) or resource.key in self._raw:
            return
        plain = msgspec.json.decode(item)
        plain["apiVersion"] = plain.get("apiVersion") or (f"{kind.group}/{version}" if kind.group else version)
        plain["kind"] = kind.kind
        if getattr(resource, "restrictions", ()) and _is_refused(plain):
            self._warn(f"{kind.kind} {resource.path} cannot be read: what it targets is refused in the cluster")
            return
        self._raw[resource.key] = plain
        self._found[MODELS[type(resource)]].append(resource)

    def _text(self, key: ObjectKey, parents: Any) -> str:
        plain = trim(self._raw[key])
        if parents is not None and "parentRefs" in plain["spec"]:
            ours = {(ref.namespace or key.namespace, ref.name) for ref in parents}
            plain["spec"]["parentRefs"] = [
                ref
                for ref in plain["spec"]["parentRefs"]
                if (ref.get("namespace") or key.namespace, ref.get("name")) in ours
            ]
        return orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode()


def trim(plain: Json) -> Json:
    """An object as a file holds it: what we read of it, and no credential."""
    metadata = plain["metadata"]
    kept = {key: metadata[key] for key in _METADATA if metadata.get(key) is not None}
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key.partition("/")[0].endswith(READ_DOMAINS)
    }
    if annotations:
        kept["annotations"] = annotations
    found: Json = {"apiVersion": plain["apiVersion"], "kind": plain["kind"], "metadata": kept}
    fields = _FIELDS.get(plain["kind"])
    if fields is not None:
        return found | {key: _only(plain[key], below) for key, below in fields.items() if plain.get(key) is not None}
    rest = {key: value for key, value in plain.items() if key not in (*found, "status")}
    return found | {key: _masked(value) for key, value in rest.items()}


def _only(value: Any, fields: dict[str, Any] | None) -> Any:
    if fields is None:
        return value
    if isinstance(value, list):
        return [_only(item, fields) for item in value]
    if isinstance(value, dict):
        return {key: _only(value[key], below) for key, below in fields.items() if value.get(key) is not None}
    return value


def _masked(value: Any) -> Any:
    """Values that may be credentials, masked; a regular expression by one that asks for the mask."""
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("name")
    if isinstance(name, str) and isinstance(value.get("value"), str) and is_credential(name.lower().encode()):
        mask = MASK.replace("*", r"\*") if value.get("type") == "RegularExpression" else MASK
        return {**value, "value": mask}
    path = value.get("path")
    if isinstance(path, str) and isinstance(value.get("value"), str) and is_secret_member(path):  # a bodyMutation
        return {**value, "value": MASK}
    return {key: _masked(item) for key, item in value.items()}


def _is_refused(plain: Json) -> bool:
    from discovery.resources.decode import decode_object
    from discovery.resources.problem import Severity

    return any(problem.severity is Severity.REFUSED for problem in decode_object(plain).problems)
