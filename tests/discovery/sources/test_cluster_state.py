"""What becomes of what the reflectors hold?"""

from __future__ import annotations

import json
from typing import Any

from discovery.resources.meta import ObjectKey
from discovery.resources.problem import Severity
from discovery.sources.cluster_state import collect_members, collect_state
from discovery.sources.kube_kinds import find_kind
from discovery.sources.kube_objects import StoredObject, read_object
from tests.support.clusters import pod, pool, route


def stored(found: dict[str, Any]) -> StoredObject:
    group = found["apiVersion"].rpartition("/")[0]
    found["metadata"].setdefault("namespace", "default")
    kind = find_kind(group, found["kind"])
    return read_object(json.dumps(found).encode(), kind, kind.versions[0])


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": "PEM"}}


def test_each_object_has_its_namespace_for_an_origin() -> None:
    state = collect_state([stored(route()), stored(pool())], [])
    assert [found.name for found in state.resources.http_routes] == ["models"]
    assert [found.name for found in state.resources.inference_pools] == ["qwen"]
    assert {origin.file for origin in state.resources.origins.values()} == {"namespace default"}


def test_what_cannot_be_used_is_there_as_left_out() -> None:
    broken = route()
    broken["spec"]["newer"] = 1
    state = collect_state([stored(broken)], [])
    assert state.resources.http_routes == ()
    (left_out,) = state.resources.left_out
    assert left_out.key in state.resources.origins
    broken_pod = pod("qwen-0")
    broken_pod["spec"] = 7
    (problem,) = collect_members([stored(broken_pod)]).problems
    assert (problem.severity, problem.kind, problem.name) == (Severity.INVALID, "Pod", "qwen-0")
    assert problem.message.startswith("left out: ")


def test_of_what_is_planned_only_authorities_are_a_part_of_routing() -> None:
    planned = [stored(config_map("ca")), stored(config_map("ca")), stored(pod("qwen-0"))]
    state = collect_state([], planned)
    assert [found.name for found in state.resources.certificate_maps] == ["ca"]
    assert set(state.resources.origins) == {ObjectKey("", "ConfigMap", "default", "ca")}


def test_a_pod_that_two_selectors_find_is_one() -> None:
    members = collect_members([stored(pod("qwen-0")), stored(pod("qwen-0")), stored(pod("qwen-1"))])
    assert [found.name for found in members.pods] == ["qwen-0", "qwen-1"]
