"""What is held of one kind, and what do a list or an event change about it?

An object that comes again as it was is not read again, and one whose resource is the same keeps it: what was made of it
stays the same, too. Deletions and departures from a selector are told apart as far as an event says which it is.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import msgspec

from discovery.slices import Steps
from discovery.sources.kube_kinds import WatchedKind
from discovery.sources.kube_objects import Peek, StoredObject, UnreadableError, peek, read_object

logger = logging.getLogger(__name__)

ObjectId = tuple[str, str]  # namespace, name


class HeldObjects:
    """The objects of one kind in one scope, as ``where`` names it in the log.

    ``on_change`` is called after each change of a resource or of what is wrong with one, ``on_status`` after a change
    of nothing but a status. ``on_deleted`` is told what was deleted, ``on_left`` what may only have left the selector.
    """

    def __init__(
        self,
        kind: WatchedKind,
        *,
        where: str,
        has_selector: bool,
        wants: Callable[[StoredObject], bool],
        on_change: Callable[[], None],
        on_status: Callable[[], None],
        on_deleted: Callable[[StoredObject], None],
        on_left: Callable[[StoredObject], None],
        quiet_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``quiet_seconds`` lie between two lines about what cannot be read."""
        self.by_id: dict[ObjectId, StoredObject] = {}
        self.dropped = 0  # events and objects that could not be read
        self._kind = kind
        self._where = where
        self._has_selector = has_selector
        self._wants = wants
        self._on_change = on_change
        self._on_status = on_status
        self._on_deleted = on_deleted
        self._on_left = on_left
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._told_drop_at = -math.inf

    def replace(self, items: list[msgspec.Raw], api_version: str, *, is_older: bool) -> Steps[bool]:
        """Take over a list: what it lacks is gone. The result is whether anything has changed, which is not told.

        ``is_older``: the server went back in time, nothing is known.
        """
        found: dict[ObjectId, StoredObject] = {}
        has_changed = False
        for item in items:
            try:
                seen = peek(item)
                key = (seen.namespace, seen.name)
                known = self.by_id.get(key)
                if known is not None and not is_older and _is_same(known, seen):
                    found[key] = known
                    continue
                stored = _keep(known, read_object(item, self._kind, api_version))
            except UnreadableError as error:
                self.drop(error)
                continue
            yield
            if self._wants(stored):
                found[key] = stored
                has_changed = has_changed or known is None or _differs(known, stored)
        for key in self.by_id.keys() - found.keys():
            self._tell_gone(self.by_id[key])
            has_changed = True
        self.by_id = found
        return has_changed

    def put(self, data: msgspec.Raw, api_version: str) -> str:
        """Take over one object. The result is the version to go on from, "" where it says none."""
        try:
            seen = peek(data)
            key = (seen.namespace, seen.name)
            known = self.by_id.get(key)
            if known is not None and _is_same(known, seen):
                return ""
            stored = _keep(known, read_object(data, self._kind, api_version))
        except UnreadableError as error:
            self.drop(error)
            return ""
        if known is not None and known.uid != stored.uid:
            self._on_deleted(known)  # one of the same name in its place, as StatefulSets make them
        if not self._wants(stored):
            if self.by_id.pop(key, None) is not None:
                self._on_change()
            return seen.resourceVersion
        self.by_id[key] = stored
        if known is None or _differs(known, stored):
            self._on_change()
        elif known.status != stored.status:
            self._on_status()
        return seen.resourceVersion

    def remove(self, data: msgspec.Raw) -> str:
        """Let one object go. The result is that of ``put``."""
        try:
            seen = peek(data)
        except UnreadableError as error:
            self.drop(error)
            return ""
        known = self.by_id.get((seen.namespace, seen.name))
        if known is not None and (not seen.uid or known.uid == seen.uid):
            del self.by_id[seen.namespace, seen.name]
            self._tell_gone(known, is_marked=seen.deletionTimestamp is not None)
            self._on_change()
        return seen.resourceVersion

    def clear(self) -> None:
        """The kind itself is gone, and with it all objects. Not told as a change."""
        for stored in self.by_id.values():
            self._on_deleted(stored)
        self.by_id.clear()

    def drop(self, error: UnreadableError) -> None:
        """Count something that cannot be read."""
        self.dropped += 1
        now = self._clock()
        if now - self._told_drop_at >= self._quiet_seconds:  # whatever sends one of these may send thousands
            self._told_drop_at = now
            logger.warning("%s: %s, ignored (%d in all)", self._where, error, self.dropped)

    def _tell_gone(self, known: StoredObject, *, is_marked: bool = False) -> None:
        """Without the mark of a deletion it may only have left the selector."""
        is_deleted = is_marked or known.is_terminating or not self._has_selector
        (self._on_deleted if is_deleted else self._on_left)(known)


def _keep(known: StoredObject | None, stored: StoredObject) -> StoredObject:
    """The object with the resource that we had, where that is the same."""
    if known is not None and known.resource is not None and known.resource == stored.resource:
        return msgspec.structs.replace(stored, resource=known.resource)
    return stored


def _is_same(known: StoredObject, seen: Peek) -> bool:
    return known.uid == seen.uid and known.version == seen.resourceVersion and known.version != ""


def _differs(one: StoredObject, other: StoredObject) -> bool:
    """Whether anything but the status and the resourceVersion differs."""
    return (
        one.resource is not other.resource
        or one.uid != other.uid
        or one.problems != other.problems
        or one.left_out != other.left_out
    )
