"""Which objects of a cluster concern us?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from discovery.resources.collection import MODELS, Resources
from discovery.resources.decode import decode_object
from discovery.resources.meta import is_internal_address
from discovery.scope import Scope, select
from discovery.sources.kube_kinds import find_kind
from discovery.sources.kube_objects import read_object
from tests.support.clusters import gateway, gateway_class, pool, route


def resources(*objects: dict[str, Any], left_out: tuple[Any, ...] = ()) -> Resources:
    found: dict[str, list[Any]] = {}
    for obj in objects:
        decoded = decode_object(obj)
        assert decoded.objects, [str(problem) for problem in decoded.problems]
        resource = decoded.objects[0][0]
        found.setdefault(MODELS[type(resource)], []).append(resource)
    arguments: dict[str, Any] = {name: tuple(items) for name, items in found.items()}
    return Resources(**arguments, left_out=left_out)


OTHERS = "example.com/controller"


def test_gateways_of_our_controller_s_classes_are_ours_and_routes_keep_only_those_parents() -> None:
    cluster = resources(
        gateway_class(),
        gateway_class("others", OTHERS),
        gateway("ours"),
        gateway("theirs", class_name="others"),
        route("both", parents=("ours", "theirs")),
        route("foreign", parents=("theirs",)),
        pool("qwen"),
        pool("unused"),
    )
    chosen = select(cluster, Resources(), Scope()).resources
    assert [c.name for c in chosen.gateway_classes] == ["pointsman"]
    assert [g.name for g in chosen.gateways] == ["ours"]
    assert [r.name for r in chosen.http_routes] == ["both"]
    assert [ref.name for ref in chosen.http_routes[0].spec.parent_refs] == ["ours"]
    assert [p.name for p in chosen.inference_pools] == ["qwen"]


def test_another_controller_name_or_one_gateway_by_name() -> None:
    cluster = resources(
        gateway_class(), gateway_class("others", OTHERS), gateway("ours"), gateway("theirs", class_name="others")
    )
    by_name = select(cluster, Resources(), Scope(controller_name=OTHERS)).resources
    assert [g.name for g in by_name.gateways] == ["theirs"]
    one = select(cluster, Resources(), Scope(gateway=("default", "theirs"))).resources
    assert [g.name for g in one.gateways] == ["theirs"]
    assert not select(cluster, Resources(), Scope(gateway=("web", "theirs"))).resources.gateways


def test_files_win_with_a_warning_and_stay_whole() -> None:
    cluster = resources(gateway_class(), gateway("ours"), route("models", parents=("ours",)), pool("qwen"))
    files = resources(route("models", models={"other": "qwen"}, parents=("nobody",)))
    chosen = select(cluster, files, Scope())
    assert [len(r.spec.rules) for r in chosen.resources.http_routes] == [1]
    assert chosen.resources.http_routes[0] is files.http_routes[0]
    assert [str(problem) for problem in chosen.problems] == [
        "warning: HTTPRoute/models: the cluster has this object too: the file's is used"
    ]


def test_a_route_that_has_not_changed_stays_the_same_object() -> None:
    cluster = resources(
        gateway_class(), gateway("ours"), gateway("theirs", class_name="x"), route(parents=("ours", "theirs"))
    )
    first = select(cluster, Resources(), Scope())
    second = select(cluster, Resources(), Scope(), previous=first)
    assert second.resources.http_routes[0] is first.resources.http_routes[0]


def test_left_out_routes_are_ours_to_talk_about_only_with_a_parent_of_ours() -> None:
    kind = find_kind("gateway.networking.k8s.io", "HTTPRoute")
    lost = []
    for name, parents in (("a", ("ours", "theirs")), ("b", ("theirs",))):
        bad = route(name, parents=parents)
        bad["spec"]["unknown"] = 1
        stored = read_object(json.dumps(bad).encode(), kind, "v1")
        lost.append(stored.left_out)
    cluster = resources(gateway_class(), gateway("ours"), left_out=tuple(lost))
    chosen = select(cluster, Resources(), Scope()).resources
    assert [(found.key.name, [ref.name for ref in found.parents]) for found in chosen.left_out] == [("a", ["ours"])]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "169.254.1.1", "224.0.0.1", "::1", "::", "fe80::1",
        "fe80::1%eth0", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "fd00:ec2::254",
        "100.100.100.200", "168.63.129.16", "localhost", "LOCALHOST.", "a.localhost", "metadata.google.internal",
    ],
)  # fmt: skip
def test_addresses_that_lead_inside(host: str) -> None:
    assert is_internal_address(host)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1", "models.example.com"]
)
def test_addresses_that_lead_elsewhere(host: str) -> None:
    assert not is_internal_address(host)
