"""What is written into a status, and what is left exactly as it is?"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from discovery.resources.gateway_api import ParentReference
from discovery.status import Condition, ObjectStatus
from discovery.status_patches import (
    Entry,
    conditions_patch,
    entries_patch,
    gateway_patch,
    gateway_reference,
    reference_of,
    worst_conditions,
)

OURS = "pointsman.dev/gatewayclass-controller"
NOW, EARLIER = "2026-11-22T01:00:00Z", "2026-11-21T00:00:00Z"
GOOD = Condition(type="Accepted", status="True", reason="Accepted", observed_generation=2)
BAD = Condition(type="Accepted", status="False", reason="NotAllowedByListeners", message="no", observed_generation=2)


def written(condition: Condition, moment: str = NOW) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": moment,
        "reason": condition.reason,
        "message": condition.message,
    }


def entry(condition: Condition, moment: str = NOW, name: str = "gw") -> dict[str, Any]:
    return {
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name},
        "controllerName": OURS,
        "conditions": [written(condition, moment)],
    }


def patch(status: bytes, *entries: Entry, field: str = "parents", **more: Any) -> Any:
    found = entries_patch(status, field, entries, namespace="llm", controller=OURS, now=NOW, **more)
    return None if found is None else json.loads(msgspec.json.encode(found))


def parent(condition: Condition = GOOD, name: str = "gw") -> Entry:
    return Entry(reference=reference_of(ParentReference(name=name)), conditions=(condition,))


def test_an_entry_is_added_and_then_there_is_nothing_to_write() -> None:
    first = patch(b"", parent())
    assert first == {"parents": [entry(GOOD)]}
    assert patch(json.dumps(first).encode(), parent()) is None


def test_what_the_api_server_fills_in_makes_no_difference() -> None:
    stored = entry(GOOD)
    stored["parentRef"] = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "llm", "name": "gw"}
    assert patch(json.dumps({"parents": [stored]}).encode(), parent()) is None


def test_the_transition_time_moves_with_the_status_alone() -> None:
    stored = json.dumps({"parents": [entry(GOOD, EARLIER)]}).encode()
    reworded = Condition(type="Accepted", status="True", reason="Accepted", message="m", observed_generation=3)
    assert patch(stored, parent(reworded)) == {"parents": [entry(reworded, EARLIER)]}
    assert patch(stored, parent(BAD)) == {"parents": [entry(BAD, NOW)]}


def test_other_controllers_entries_stay_byte_for_byte() -> None:
    other = (
        b'{"controllerName":"example.com/c", "parentRef": {"name" :"gw"},"conditions":[ ],"odd":1.0e0,"u":"\\u00e4"}'
    )
    stored = b'{"parents":[' + other + b"," + json.dumps(entry(BAD, EARLIER)).encode() + b'],"more":1}'
    found = entries_patch(stored, "parents", [parent()], namespace="llm", controller=OURS, now=NOW)
    assert found is not None
    assert other in msgspec.json.encode(found)
    assert [item if isinstance(item, dict) else bytes(item) for item in found["parents"]] == [other, entry(GOOD)]


def test_entries_of_ours_that_nothing_speaks_for_are_removed() -> None:
    stored = json.dumps({"parents": [entry(GOOD, name="old"), entry(GOOD, EARLIER)]}).encode()
    assert patch(stored, parent()) == {"parents": [entry(GOOD, EARLIER)]}
    assert patch(stored) == {"parents": []}
    assert patch(b'{"parents": [7, {"parentRef": 3}]}') is None


def test_pools_of_the_older_api_know_no_controllers() -> None:
    placeholder = {"parentRef": {"kind": "Status", "name": "default"}, "conditions": []}
    other = {"parentRef": {"name": "theirs", "namespace": "web"}, "conditions": []}
    used = Entry(reference=gateway_reference("llm", "gw"), conditions=(GOOD,))
    ours = {
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "llm", "name": "gw"},
        "conditions": [written(GOOD)],
    }
    first = patch(json.dumps({"parent": [placeholder, other]}).encode(), used, field="parent")
    assert first == {"parent": [other, ours]}
    stored = json.dumps(first).encode()
    gateways = frozenset({("llm", "gw")})
    assert patch(stored, used, field="parent", gateways=gateways) is None
    assert patch(stored, field="parent", gateways=gateways) == {"parent": [other]}
    assert patch(json.dumps({"parent": [placeholder]}).encode(), field="parent") is None


def test_a_list_that_is_full_of_others_is_left_alone() -> None:
    other = {"ancestorRef": {"name": "x"}, "controllerName": "c", "conditions": []}
    stored = json.dumps({"ancestors": [other] * 16}).encode()
    assert patch(stored, parent(), field="ancestors") is None


def test_a_list_that_is_nearly_full_takes_what_fits_and_our_entries_in_a_full_one_stay_right() -> None:
    other = {"ancestorRef": {"name": "x"}, "controllerName": "c", "conditions": []}
    stored = json.dumps({"ancestors": [other] * 15}).encode()
    first = patch(stored, parent(), parent(name="second"), field="ancestors")
    assert len(first["ancestors"]) == 16
    full = json.dumps(first).encode()
    assert patch(full, parent(), parent(name="second"), field="ancestors") is None
    changed = patch(full, parent(BAD), parent(name="second"), field="ancestors")
    assert changed["ancestors"][15]["conditions"][0]["status"] == "False"
    assert patch(full, field="ancestors") == {"ancestors": [other] * 15}


def test_entries_about_a_gateway_that_another_of_us_serves_are_left_alone() -> None:
    stored = json.dumps({"parents": [entry(GOOD, name="theirs"), entry(GOOD, EARLIER)]}).encode()
    assert patch(stored, parent(), only=("llm", "gw")) is None
    assert patch(stored, only=("llm", "gw")) == {"parents": [entry(GOOD, name="theirs")]}


def test_a_gateway_gets_conditions_listeners_and_addresses() -> None:
    pending = {
        "type": "Accepted",
        "status": "Unknown",
        "reason": "Pending",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }
    foreign = {"type": "example.com/Audited", "status": "True", "reason": "x", "lastTransitionTime": EARLIER}
    listener = ObjectStatus(
        kind="Gateway",
        namespace="llm",
        name="gw",
        parent="llm/gw/http",
        conditions=(GOOD,),
        attached_routes=3,
        supported_kinds=(("gateway.networking.k8s.io", "HTTPRoute"),),
    )
    stored = json.dumps({"conditions": [pending, foreign]}).encode()
    first = gateway_patch(stored, [GOOD], [listener], [("IPAddress", "10.0.0.1")], now=NOW)
    assert first == {
        "conditions": [written(GOOD), foreign],
        "listeners": [
            {
                "name": "http",
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
                "attachedRoutes": 3,
                "conditions": [written(GOOD)],
            }
        ],
        "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
    }
    again = json.dumps(first).encode()
    assert gateway_patch(again, [GOOD], [listener], [("IPAddress", "10.0.0.1")], now="later") is None
    assert gateway_patch(again, [GOOD], [listener], [], now="later") == {"addresses": []}


def test_conditions_alone() -> None:
    foreign = {"type": "Other", "status": "True"}
    first = conditions_patch(json.dumps({"conditions": [foreign]}).encode(), [GOOD], now=NOW)
    assert first == {"conditions": [foreign, written(GOOD)]}
    assert conditions_patch(json.dumps(first).encode(), [GOOD], now="later") is None
    assert conditions_patch(b"not json", [GOOD], now=NOW) == {"conditions": [written(GOOD)]}


def test_long_messages_are_cut_at_the_api_s_limit() -> None:
    long = Condition(type="Accepted", status="False", reason="Invalid", message="ä" * 20_000)
    found = conditions_patch(b"", [long], now=NOW)
    assert found is not None
    message = found["conditions"][0]["message"]
    assert len(message.encode()) <= 32_768
    assert message.endswith(" …")


def test_of_several_parents_the_worst_condition_counts() -> None:
    def status(condition: Condition) -> ObjectStatus:
        return ObjectStatus(kind="AIGatewayRoute", namespace="llm", name="r", conditions=(condition,))

    partial = Condition(type="PartiallyInvalid", status="True", reason="UnsupportedValue")
    assert worst_conditions([status(GOOD), status(BAD), status(partial)]) == (BAD, partial)
