"""What does the tests' API server hold? Objects, one counter of resourceVersions, and a window of past events."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.kube_api.kinds import BUILT_IN, CUSTOM, ApiKind

ApiObject = dict[str, Any]


class ConflictError(Exception):
    """The resourceVersion that a write names is not the object's own any more."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A change: the object before and after it (None: there was or is none)."""

    version: int
    kind: ApiKind
    old: ApiObject | None
    new: ApiObject | None


class ObjectStore:
    """Objects by kind, namespace and name. Every write takes the next resourceVersion and tells ``on_event``."""

    def __init__(self, *, kinds: Iterable[ApiKind] = (*BUILT_IN, *CUSTOM), version: int = 100) -> None:
        self.kinds: dict[tuple[str, str], ApiKind] = {(kind.group, kind.plural): kind for kind in kinds}
        self.version = version
        self.events: list[StoredEvent] = []
        self.oldest = version  # of the window: a watch from before it is told 410
        self.on_event: Callable[[StoredEvent], None] = lambda event: None
        self._objects: dict[tuple[ApiKind, str, str], ApiObject] = {}

    def find_kind(self, plural: str, group: str | None = None) -> ApiKind:
        """The kind of a plural name; the group is needed where two have the same."""
        for kind in self.kinds.values():
            if kind.plural == plural and group in (None, kind.group):
                return kind
        raise KeyError(plural)

    def kind_of(self, obj: ApiObject) -> ApiKind:
        """The kind that an object says it is of."""
        group = obj["apiVersion"].rpartition("/")[0]
        return next(k for k in self.kinds.values() if (k.group, k.kind) == (group, obj["kind"]))

    def get(self, kind: ApiKind, namespace: str, name: str) -> ApiObject | None:
        """The object itself: not to be changed."""
        return self._objects.get((kind, namespace, name))

    def list(self, kind: ApiKind, namespace: str | None) -> list[ApiObject]:
        """The objects of a namespace, or of all, by name."""
        found = [(key, obj) for key, obj in self._objects.items() if key[0] is kind and namespace in (None, key[1])]
        return [obj for _, obj in sorted(found, key=lambda item: item[0][1:])]

    def create(self, obj: ApiObject) -> ApiObject:
        """Store a new object, with what a server fills in."""
        kind = self.kind_of(obj)
        obj = copy.deepcopy(obj)
        metadata = obj["metadata"]
        if kind.is_namespaced:
            metadata.setdefault("namespace", "default")
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", _now())
        if kind.has_generation:
            metadata.setdefault("generation", 1)
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        if key in self._objects:
            raise ConflictError(metadata["name"])
        return self._write(key, None, obj)

    def update(self, obj: ApiObject, *, subresource: str = "") -> ApiObject:
        """Store an object over the one of its name: all but the status, or the status alone. Raises ConflictError and
        KeyError."""
        kind = self.kind_of(obj)
        key = (
            kind,
            obj["metadata"].get("namespace", "" if not kind.is_namespaced else "default"),
            obj["metadata"]["name"],
        )
        old = self._objects[key]
        given = obj["metadata"].get("resourceVersion")
        if given is not None and given != old["metadata"]["resourceVersion"]:
            raise ConflictError(key[2])
        new = copy.deepcopy(old)
        obj = copy.deepcopy(obj)
        if subresource == "status":
            new["status"] = obj.get("status", {})
        else:
            status = old.get("status")
            metadata = {**obj["metadata"]}
            for name in ("uid", "creationTimestamp", "generation", "namespace", "deletionTimestamp"):
                if name in old["metadata"]:
                    metadata[name] = old["metadata"][name]
            new = {**obj, "metadata": metadata}
            if kind.is_custom or "status" not in obj:
                new.pop("status", None)
                if status is not None:
                    new["status"] = status
            if kind.has_generation and _content(new) != _content(old):
                metadata["generation"] = old["metadata"].get("generation", 1) + 1
        if _without_version(new) == _without_version(old):
            return old  # a write that changes nothing has no event
        return self._write(key, old, new)

    def set_status(self, kind: ApiKind, namespace: str, name: str, status: ApiObject) -> ApiObject:
        """Replace an object's status, as its controller would."""
        obj = copy.deepcopy(self._objects[kind, namespace, name])
        obj["status"] = status
        del obj["metadata"]["resourceVersion"]
        return self.update(obj, subresource="status")

    def terminate(self, kind: ApiKind, namespace: str, name: str, *, grace_seconds: int = 30) -> ApiObject:
        """The first step of a graceful deletion: marked, and Ready still True."""
        key = (kind, namespace, name)
        old = self._objects[key]
        new = copy.deepcopy(old)
        new["metadata"] |= {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": grace_seconds}
        return self._write(key, old, new)

    def delete(self, kind: ApiKind, namespace: str, name: str) -> ApiObject:
        """Take an object away: DELETED tells it as it was last, with a newer resourceVersion."""
        old = self._objects.pop((kind, namespace, name))
        self._record(kind, old, None)
        return old

    def rebirth(self, version: int) -> None:
        """The state of an earlier backup: the counter goes back, and the window is empty."""
        self.version = version
        for obj in self._objects.values():
            obj["metadata"]["resourceVersion"] = str(min(int(obj["metadata"]["resourceVersion"]), version))
        self.forget()

    def drop_silently(self, kind: ApiKind, namespace: str, name: str) -> None:
        """Take an object away without any event, as a backup that never had it."""
        del self._objects[kind, namespace, name]

    def forget(self) -> None:
        """The window starts anew, as after a restart or a compaction."""
        self.events.clear()
        self.oldest = self.version

    def add_kind(self, kind: ApiKind) -> None:
        """A CRD is installed."""
        self.kinds[kind.group, kind.plural] = kind

    def remove_kind(self, kind: ApiKind) -> None:
        """A CRD is deleted, and its objects with it, each with an event."""
        for obj in self.list(kind, None):
            self.delete(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        del self.kinds[kind.group, kind.plural]

    def _write(self, key: tuple[ApiKind, str, str], old: ApiObject | None, new: ApiObject) -> ApiObject:
        new["apiVersion"], new["kind"] = key[0].api_version(), key[0].kind
        new["metadata"]["resourceVersion"] = str(self.version + 1)
        self._objects[key] = new
        self._record(key[0], old, new)
        return new

    def _record(self, kind: ApiKind, old: ApiObject | None, new: ApiObject | None) -> None:
        self.version += 1
        event = StoredEvent(self.version, kind, old, new)
        self.events.append(event)
        self.on_event(event)


def _content(obj: ApiObject) -> ApiObject:
    """What the generation counts the changes of."""
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _without_version(obj: ApiObject) -> ApiObject:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
