"""What has to change in an object's status so that it says what became of the object? (pure)

Lists that several controllers share are taken over byte for byte but for our own entries. A condition keeps its
transition time for as long as its status is the same, and where nothing differs there is nothing to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from discovery.resources.gateway_api import ParentReference
from discovery.resources.meta import GATEWAY_API
from discovery.status import Condition, ObjectStatus

MAX_MESSAGE = 32_768  # of metav1.Condition
MAX_CONDITIONS = 8  # of each list, in the CRDs
_MAX_ENTRIES = {"parents": 32, "parent": 32, "ancestors": 16}
_GATEWAY_CONDITIONS = frozenset({"Accepted", "Programmed"})
_LISTENER_CONDITIONS = frozenset({"Accepted", "Programmed", "ResolvedRefs", "Conflicted"})
_ROUTE_CONDITIONS = frozenset({"Accepted", "ResolvedRefs", "PartiallyInvalid"})

Json = dict[str, Any]
Reference = tuple[str, str, str, str, str, int]  # group, kind, namespace, name, section, port


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What we say of an object to one parent or ancestor."""

    reference: Json  # as it is written when it is new
    conditions: tuple[Condition, ...]


def conditions_patch(status: bytes, conditions: Sequence[Condition], *, now: str) -> Json | None:
    """The status of a GatewayClass or an AIGatewayRoute: its conditions, those of other types kept."""
    given = read_status(status)
    merged = _merge_conditions(_list(given, "conditions"), conditions, _ROUTE_CONDITIONS, now)
    return {"conditions": merged} if merged != _list(given, "conditions") else None


def gateway_patch(
    status: bytes,
    conditions: Sequence[Condition],
    listeners: Sequence[ObjectStatus],
    addresses: Sequence[tuple[str, str]],
    *,
    now: str,
) -> Json | None:
    """The status of a Gateway: conditions, listeners in their order, and the addresses (type, value)."""
    given = read_status(status)
    before = {entry.get("name"): entry for entry in _list(given, "listeners")}
    wanted: Json = {
        "conditions": _merge_conditions(_list(given, "conditions"), conditions, _GATEWAY_CONDITIONS, now),
        "listeners": [_listener(entry, before, now) for entry in listeners],
        "addresses": [{"type": kind, "value": value} for kind, value in addresses],
    }
    changed = {key: value for key, value in wanted.items() if value != _list(given, key)}
    return changed or None


def entries_patch(
    status: bytes,
    field: str,
    entries: Sequence[Entry],
    *,
    namespace: str,
    controller: str,
    now: str,
    gateways: frozenset[tuple[str, str]] = frozenset(),
    only: tuple[str, str] | None = None,
) -> Json | None:
    """A list of `parents`, `parent` or `ancestors`: our own entries as they should be, all others as they are.

    An entry is ours by its controllerName, and where we serve ``only`` one Gateway by naming that: others of us serve
    others. `parent` (an InferencePool of v1alpha2) has none: there it is ours when it names one of our ``gateways``.
    A list that is full takes no more entries, as the policies' specification has it; those that it has are kept right.
    """
    given: list[msgspec.Raw] = _raw_list(status, field)
    wanted = {_identity(entry.reference, namespace): entry for entry in entries}
    has_controller = field != "parent"
    merged: list[msgspec.Raw | Json] = []
    is_changed = False
    for raw in given:
        found = msgspec.json.decode(raw)
        reference = found.get(_reference_field(field)) if isinstance(found, dict) else None
        if not isinstance(reference, dict):
            merged.append(raw)
            continue
        identity = _identity(reference, namespace)
        if has_controller:
            is_ours = found.get("controllerName") == controller and only in (None, (identity[2], identity[3]))
        else:
            is_ours = identity in wanted or (identity[2], identity[3]) in gateways
        if not is_ours:
            is_placeholder = not has_controller and reference.get("kind") == "Status"
            if is_placeholder and wanted:
                is_changed = True  # "waiting for controller": that was us
            else:
                merged.append(raw)
            continue
        entry = wanted.pop(identity, None)
        if entry is None:
            is_changed = True  # no parent any more, or there twice
            continue
        conditions = _merge_conditions(_list(found, "conditions"), entry.conditions, None, now)
        if conditions == _list(found, "conditions"):
            merged.append(raw)
        else:
            is_changed = True
            merged.append({**found, "conditions": conditions})
    for entry in list(wanted.values())[: max(0, _MAX_ENTRIES[field] - len(merged))]:
        new: Json = {_reference_field(field): entry.reference}
        if has_controller:
            new["controllerName"] = controller
        merged.append({**new, "conditions": _merge_conditions([], entry.conditions, None, now)})
        is_changed = True
    return {field: merged} if is_changed else None


def has_entry_of(status: bytes, controller: str) -> bool:
    """Whether a status may have an entry of ours; quick, for looking at everything."""
    return controller.encode() in status


def reference_of(ref: ParentReference) -> Json:
    """A parentRef as its route has it."""
    found: Json = {"group": ref.group, "kind": ref.kind}
    if ref.namespace is not None:
        found["namespace"] = ref.namespace
    found["name"] = ref.name
    if ref.section_name is not None:
        found["sectionName"] = ref.section_name
    if ref.port is not None:
        found["port"] = ref.port
    return found


def gateway_reference(namespace: str, name: str, section: str = "") -> Json:
    """A Gateway, or a listener of it, as a parent or an ancestor."""
    found: Json = {"group": GATEWAY_API, "kind": "Gateway", "namespace": namespace, "name": name}
    return {**found, "sectionName": section} if section else found


def worst_conditions(statuses: Iterable[ObjectStatus]) -> tuple[Condition, ...]:
    """One condition of each type for all parents together: the first that says that something is wrong."""
    found: dict[str, Condition] = {}
    for status in statuses:
        for condition in status.conditions:
            known = found.get(condition.type)
            if known is None or (_is_good(known) and not _is_good(condition)):
                found[condition.type] = condition
    return tuple(found.values())


def read_status(status: bytes) -> Json:
    """A status as plain data; an empty one where there is none, or none that can be read."""
    try:
        found = msgspec.json.decode(status) if status else {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = {}
    return found if isinstance(found, dict) else {}


def _is_good(condition: Condition) -> bool:
    bad = "True" if condition.type in ("PartiallyInvalid", "Conflicted", "Overridden") else "False"
    return condition.status != bad


def _listener(status: ObjectStatus, before: Mapping[Any, Json], now: str) -> Json:
    name = (status.parent or "").rpartition("/")[2]
    known = before.get(name, {})
    return {
        "name": name,
        "supportedKinds": [{"group": group, "kind": kind} for group, kind in status.supported_kinds or ()],
        "attachedRoutes": status.attached_routes or 0,
        "conditions": _merge_conditions(_list(known, "conditions"), status.conditions, _LISTENER_CONDITIONS, now),
    }


def _merge_conditions(
    given: list[Json], wanted: Sequence[Condition], ours: frozenset[str] | None, now: str
) -> list[Json]:
    """Our conditions in the places of those that they replace. ``ours`` are the types that only we say; None: all."""
    by_type = {condition.type: condition for condition in wanted}
    merged: list[Json] = []
    for found in given:
        condition = by_type.pop(found.get("type", ""), None)
        if condition is not None:
            is_same = found.get("status") == condition.status
            moment = found.get("lastTransitionTime") if is_same else None
            merged.append(_condition(condition, moment or now))
        elif ours is not None and found.get("type") not in ours:
            merged.append(found)
    merged += [_condition(condition, now) for condition in by_type.values()]
    return merged[:MAX_CONDITIONS]


def _condition(condition: Condition, moment: str) -> Json:
    message = condition.message
    if len(message.encode()) > MAX_MESSAGE:
        message = message.encode()[: MAX_MESSAGE - 8].decode("utf-8", "ignore") + " …"
    found: Json = {"type": condition.type, "status": condition.status}
    if condition.observed_generation is not None:
        found["observedGeneration"] = condition.observed_generation
    return {**found, "lastTransitionTime": moment, "reason": condition.reason, "message": message}


def _list(given: Json, field: str) -> list[Json]:
    found = given.get(field)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _raw_list(status: bytes, field: str) -> list[msgspec.Raw]:
    try:
        found = msgspec.json.decode(status, type=dict[str, msgspec.Raw]) if status else {}
        return msgspec.json.decode(found[field], type=list[msgspec.Raw]) if field in found else []
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _reference_field(field: str) -> str:
    return "ancestorRef" if field == "ancestors" else "parentRef"


def _identity(reference: Json, namespace: str) -> Reference:
    group = reference.get("group")
    port = reference.get("port")
    return (
        GATEWAY_API if group is None else str(group),
        str(reference.get("kind") or "Gateway"),
        str(reference.get("namespace") or namespace),
        str(reference.get("name") or ""),
        str(reference.get("sectionName") or ""),
        port if isinstance(port, int) else 0,
    )
