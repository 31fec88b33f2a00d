"""Is it told what a list or an event has changed, and nothing else? Without a server."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import pytest

from discovery.slices import run_at_once
from discovery.sources.held_objects import HeldObjects
from discovery.sources.kube_kinds import find_kind
from discovery.sources.kube_objects import StoredObject
from tests.support.clusters import pod


class Told:
    """What the holder has told, in order; the test moves its clock."""

    def __init__(self, *, has_selector: bool = True) -> None:
        self.said: list[str] = []
        self.now = 100.0
        self.held = HeldObjects(
            find_kind("", "Pod"),
            where="pods",
            has_selector=has_selector,
            wants=lambda stored: stored.resource is None or stored.resource.metadata.labels.get("app") == "qwen",
            on_change=lambda: self.said.append("change"),
            on_status=lambda: self.said.append("status"),
            on_deleted=lambda stored: self.said.append(f"deleted {stored.uid}"),
            on_left=lambda stored: self.said.append(f"left {stored.uid}"),
            quiet_seconds=60.0,
            clock=lambda: self.now,
        )

    def put(self, found: msgspec.Raw) -> str:
        return self.held.put(found, "v1")

    def replace(self, *found: msgspec.Raw, is_older: bool = False) -> bool:
        return run_at_once(self.held.replace(list(found), "v1", is_older=is_older))

    def stored(self, name: str = "qwen-0") -> StoredObject:
        return self.held.by_id["default", name]

    def told(self) -> list[str]:
        said, self.said = self.said, []
        return said


def raw(version: str, *, name: str = "qwen-0", uid: str = "u1", app: str = "qwen", **metadata: Any) -> msgspec.Raw:
    found = pod(name, labels={"app": app})
    found["metadata"] |= {"namespace": "default", "uid": uid, "resourceVersion": version, **metadata}
    return msgspec.Raw(json.dumps(found).encode())


def test_what_comes_again_as_it_was_is_no_change_and_keeps_its_resource() -> None:
    told = Told()
    assert told.put(raw("1")) == "1"
    resource = told.stored().resource
    assert told.put(raw("1")) == ""
    assert told.put(raw("2")) == "2"  # such as a field that we do not read
    assert told.told() == ["change"]
    assert told.stored().resource is resource
    assert told.replace(raw("3")) is False
    assert told.stored().resource is resource


def test_another_object_of_the_same_name_means_that_the_first_was_deleted() -> None:
    told = Told()
    told.put(raw("1"))
    told.put(raw("2", uid="u2"))
    assert told.told() == ["change", "deleted u1", "change"]
    told.held.remove(raw("3", uid="u1"))  # late news of the first
    assert told.told() == []
    assert told.stored().uid == "u2"


@pytest.mark.parametrize(
    ("has_selector", "metadata", "expected"),
    [
        pytest.param(True, {}, "left u1", id="a-label-may-have-changed"),
        pytest.param(False, {}, "deleted u1", id="nothing-to-leave"),
        pytest.param(True, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "deleted u1", id="marked"),
    ],
)
def test_deleted_or_only_out_of_sight(has_selector: bool, metadata: dict[str, str], expected: str) -> None:
    told = Told(has_selector=has_selector)
    told.put(raw("1"))
    assert told.held.remove(raw("2", **metadata)) == "2"
    assert told.told() == ["change", expected, "change"]


def test_a_list_replaces_everything_and_the_caller_tells_it() -> None:
    told = Told(has_selector=False)
    told.replace(raw("1"), raw("1", name="qwen-1", uid="u2"), raw("1", name="other", uid="u3", app="other"))
    assert {name for _, name in told.held.by_id} == {"qwen-0", "qwen-1"}
    assert told.replace(raw("1")) is True
    assert told.told() == ["deleted u2"]


def test_who_is_no_longer_wanted_goes() -> None:
    told = Told()
    told.put(raw("1"))
    told.put(raw("2", app="other"))
    assert told.held.by_id == {}
    assert told.told() == ["change", "change"]


def test_what_cannot_be_read_is_counted_and_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert told.put(msgspec.Raw(b"[]")) == ""
        told.now += 60.0
        assert told.held.remove(msgspec.Raw(b"[]")) == ""
    assert told.held.dropped == 4
    assert [record.getMessage().rpartition(", ")[2] for record in caplog.records] == [
        "ignored (1 in all)",
        "ignored (4 in all)",
    ]
    assert told.told() == []
