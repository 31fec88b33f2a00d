"""Do conditions and addresses reach the cluster's objects, from one replica, and without a loop?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.status_writer import lease_name, service_addresses
from tests.support.clusters import CONTROLLER, QUICK_STATUS, create_routing, gateway, gateway_class, pod, pool, route
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.kube_api import KubeApi

pytestmark = pytest.mark.anyio

LIMITS = {
    "apiVersion": "gateway.envoyproxy.io/v1alpha1",
    "kind": "BackendTrafficPolicy",
    "metadata": {"name": "limits"},
    "spec": {
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "models"}],
        "retry": {"numRetries": 1},
    },
}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.02)


def status_of(api: KubeApi, plural: str, name: str) -> Any:
    return api.get(plural, name).get("status", {})


def condition(conditions: list[dict[str, Any]], type_: str) -> dict[str, Any]:
    (found,) = [c for c in conditions if c["type"] == type_]
    return found


def writes(api: KubeApi) -> list[Any]:
    return [request for request in api.requests if request.subresource == "status"]


@contextlib.asynccontextmanager
async def written(api: KubeApi, folder: Path, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway over the cluster, once the first conditions are written."""

    def configure(given: Settings) -> Settings:
        return replace(given, **settings)

    async with running_gateway(folder=folder, cluster=api, configure=configure) as served:
        await until(lambda: bool(status_of(api, "httproutes", "models")))
        await until_calm(api)
        yield served


async def until_calm(api: KubeApi) -> None:
    """Until nothing was written for a while."""
    count = -1
    while count != len(writes(api)):
        count = len(writes(api))
        await asyncio.sleep(QUICK_STATUS.first_pause + 0.2)


async def test_every_kind_gets_what_became_of_it_and_then_nothing_is_written(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        api.create(pod("qwen-0"))
        api.create(LIMITS)
        api.create(gateway_class("others", "example.com/other"))
        api.create(gateway("theirs", class_name="others"))
        api.create(pool("unused"))
        async with written(api, tmp_path):
            accepted = condition(status_of(api, "gatewayclasses", "pointsman")["conditions"], "Accepted")
            assert (accepted["status"], accepted["observedGeneration"]) == ("True", 1)
            found = status_of(api, "gateways", "gateway")
            assert condition(found["conditions"], "Programmed")["status"] == "True"
            (listener,) = found["listeners"]
            assert (listener["name"], listener["attachedRoutes"]) == ("http", 1)
            assert {"kind": "HTTPRoute", "group": "gateway.networking.k8s.io"} in listener["supportedKinds"]
            (parent,) = status_of(api, "httproutes", "models")["parents"]
            assert parent["controllerName"] == CONTROLLER
            assert parent["parentRef"]["name"] == "gateway"
            assert condition(parent["conditions"], "ResolvedRefs")["status"] == "True"
            (parent,) = status_of(api, "inferencepools", "qwen")["parents"]
            assert parent["parentRef"]["name"] == "gateway"
            (ancestor,) = status_of(api, "backendtrafficpolicies", "limits")["ancestors"]
            assert ancestor["ancestorRef"]["kind"] == "Gateway"
            assert condition(ancestor["conditions"], "Accepted")["status"] == "True"
            for plural, name in (("gateways", "theirs"), ("gatewayclasses", "others"), ("inferencepools", "unused")):
                assert status_of(api, plural, name) == {}
            assert len(writes(api)) == 5
            # Pods come and go, objects are relabelled: nothing of it is a reason to write.
            api.create(pod("qwen-1", "127.1.0.2"))
            found_route = api.get("httproutes", "models")
            api.update({**found_route, "metadata": {**found_route["metadata"], "labels": {"a": "b"}}})
            await until_calm(api)
            assert len(writes(api)) == 5


async def test_edits_move_the_generation_and_the_time_only_with_the_status(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        async with written(api, tmp_path):
            old = status_of(api, "httproutes", "models")["parents"][0]["conditions"]
            stale = [{**c, "lastTransitionTime": "2020-01-01T00:00:00Z"} for c in old]
            entry = {**status_of(api, "httproutes", "models")["parents"][0], "conditions": stale}
            api.set_status("httproutes", "models", {"parents": [entry]})
            api.update(route(models={"qwen": "nowhere"}))

            def conditions() -> list[dict[str, Any]]:
                return list(status_of(api, "httproutes", "models")["parents"][0]["conditions"])

            await until(lambda: condition(conditions(), "ResolvedRefs")["status"] == "False")
            resolved, accepted = condition(conditions(), "ResolvedRefs"), condition(conditions(), "Accepted")
            assert resolved["reason"] == "BackendNotFound"
            assert resolved["observedGeneration"] == accepted["observedGeneration"] == 2
            assert resolved["lastTransitionTime"] > "2026"
            assert accepted["lastTransitionTime"] == "2020-01-01T00:00:00Z"
            # The pool is referenced no more.
            await until(lambda: status_of(api, "inferencepools", "qwen")["parents"] == [])


async def test_other_controllers_entries_and_parents_are_left_alone(tmp_path: Path) -> None:
    theirs = {"parentRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": [], "x": 1}
    async with KubeApi() as api:
        api.create(gateway_class())
        api.create(gateway())
        api.create(pool())
        api.create(gateway_class("others", "example.com/other"))
        api.create(gateway("theirs", class_name="others"))
        both = route(parents=("theirs", "gateway"))
        both["status"] = {"parents": [theirs]}
        api.create(both)
        async with written(api, tmp_path):
            await until(lambda: len(status_of(api, "httproutes", "models")["parents"]) == 2)
            assert status_of(api, "httproutes", "models")["parents"][0] == theirs
            # Detached from us, only our own entry goes.
            api.update(route(parents=("theirs",)))
            await until(lambda: status_of(api, "httproutes", "models")["parents"] == [theirs])
            assert status_of(api, "gateways", "theirs") == {}


async def test_a_gateway_that_is_ours_by_name_alone_keeps_its_controller_s_status(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(gateway_class("others", "example.com/other"))
        api.create(gateway(class_name="others"))
        api.create(route())
        api.create(pool())
        async with written(api, tmp_path, gateway=("default", "gateway")):
            assert status_of(api, "gateways", "gateway") == {}
            assert status_of(api, "gatewayclasses", "others") == {}
            assert status_of(api, "httproutes", "models")["parents"][0]["controllerName"] == CONTROLLER


async def test_a_conflict_is_tried_again_over_the_newer_object(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        api.fail_next(replace_answer(409), count=2, plural="httproutes", verb="patch")
        async with written(api, tmp_path):
            assert condition(status_of(api, "httproutes", "models")["parents"][0]["conditions"], "Accepted")


def replace_answer(status: int) -> Any:
    from tests.support.kube_api.answers import Answer

    return Answer(status=status, body=b'{"kind":"Status","code":%d}' % status)


async def test_somebody_who_keeps_undoing_it_makes_no_loop(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        async with written(api, tmp_path):
            before = len(writes(api))
            loop = asyncio.get_running_loop()
            end = loop.time() + 4 * QUICK_STATUS.first_pause
            while loop.time() < end:
                if status_of(api, "httproutes", "models") != {"parents": []}:
                    api.set_status("httproutes", "models", {"parents": []})
                await asyncio.sleep(0.02)
            assert 1 <= len(writes(api)) - before <= 4


async def test_edits_one_after_the_other_are_not_taken_for_somebody_who_undoes_it(tmp_path: Path) -> None:
    """As a canary is rolled out, by a change of weights every few seconds."""
    async with KubeApi() as api:
        create_routing(api)
        async with written(api, tmp_path):
            for generation in range(2, 7):
                edited = route()
                edited["spec"]["rules"][0]["backendRefs"][0]["weight"] = generation
                api.update(edited)

                def is_observed(wanted: int = generation) -> bool:
                    (entry,) = status_of(api, "httproutes", "models")["parents"]
                    return all(c["observedGeneration"] == wanted for c in entry["conditions"])

                async with asyncio.timeout(2):
                    await until(is_observed)


async def test_two_gateways_of_one_controller_and_one_each_for_two_of_us(tmp_path: Path) -> None:
    """Each has its own Lease, and keeps its hands off what the other one says."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    async with KubeApi() as api:
        create_routing(api)
        api.create(gateway("other"))
        api.update(route(parents=("gateway", "other")))

        def parents(plural: str, name: str) -> list[str]:
            return sorted(entry["parentRef"]["name"] for entry in status_of(api, plural, name).get("parents", []))

        def other(given: Settings) -> Settings:
            return replace(given, gateway=("default", "other"))

        async with (
            written(api, first, gateway=("default", "gateway")),
            running_gateway(folder=second, cluster=api, configure=other),
        ):
            await until(lambda: parents("httproutes", "models") == ["gateway", "other"])
            await until(lambda: parents("inferencepools", "qwen") == ["gateway", "other"])
            await until_calm(api)
            count = len(writes(api))
            await asyncio.sleep(3 * QUICK_STATUS.first_pause)  # beyond the pause between two writes of the same
            assert len(writes(api)) == count
            assert parents("httproutes", "models") == parents("inferencepools", "qwen") == ["gateway", "other"]


async def test_without_permission_to_write_serving_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with KubeApi() as api:
        create_routing(api)
        api.denied.add(("patch", "httproutes/status", None))
        async with running_gateway(folder=tmp_path, cluster=api):
            await until(lambda: bool(status_of(api, "gateways", "gateway")))
            await until(lambda: "httproutes.gateway.networking.k8s.io cannot be written" in caplog.text)
            await until_calm(api)
            assert len([request for request in writes(api) if request.kind.plural == "httproutes"]) == 1


async def test_two_replicas_write_once(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    async with KubeApi() as api:
        create_routing(api)
        async with written(api, first):
            count = len(writes(api))
            async with running_gateway(folder=second, cluster=api) as other:
                await until_calm(api)
                assert len(writes(api)) == count
                assert other.gateway.store.is_ready


async def test_objects_of_files_are_no_business_of_the_cluster_s(tmp_path: Path) -> None:
    """Files alone over the cluster's pods: no Lease is asked for, nothing is written."""
    manifests = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: models}
spec: {rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}]}]}
"""
    async with KubeApi() as api:
        api.create(pool())
        api.create(route(parents=("gateway",)))
        async with running_gateway(manifests, folder=tmp_path, cluster=api):
            await asyncio.sleep(1.0)
        assert writes(api) == []
        assert not [request for request in api.requests if request.kind.plural == "leases"]


def test_addresses_are_those_of_the_service_in_front_of_us() -> None:
    us = {"metadata": {"labels": {"app": "pointsman", "pod-template-hash": "x"}}}

    def service(name: str, selector: dict[str, str], **spec: Any) -> dict[str, Any]:
        status = {"loadBalancer": {"ingress": spec.pop("ingress", None)}}
        return {"metadata": {"name": name}, "spec": {"selector": selector, **spec}, "status": status}

    other = service("other", {"app": "other"}, clusterIP="10.0.0.9")
    headless = service("headless", {"app": "pointsman"}, clusterIP="None", clusterIPs=["None"])
    internal = service("internal", {"app": "pointsman"}, clusterIPs=["10.0.0.1", "fd00::1"])
    external = service("external", {"app": "pointsman"}, clusterIP="10.0.0.2", ingress=[{"ip": "1.2.3.4"}])
    named = service("named", {"app": "pointsman"}, ingress=[{"hostname": "lb.example.com"}])
    assert service_addresses(us, {"items": [other, headless]}) == []
    assert service_addresses(us, {"items": [other, internal]}) == [("IPAddress", "10.0.0.1"), ("IPAddress", "fd00::1")]
    assert service_addresses(us, {"items": [internal, external]}) == [("IPAddress", "1.2.3.4")]
    assert service_addresses(us, {"items": [named]}) == [("Hostname", "lb.example.com")]
    assert service_addresses(us, {"items": None}) == []


async def test_a_gateway_gets_the_addresses_of_our_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "pointsman-0")
    async with KubeApi() as api:
        create_routing(api)
        api.create(pod("pointsman-0", "127.1.0.50", labels={"app": "pointsman"}))
        api.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "pointsman"},
                "spec": {"selector": {"app": "pointsman"}, "clusterIP": "10.96.0.7", "ports": [{"port": 80}]},
            }
        )
        async with written(api, tmp_path):
            found = status_of(api, "gateways", "gateway")
            assert found["addresses"] == [{"type": "IPAddress", "value": "10.96.0.7"}]


def test_gateways_that_write_the_same_share_a_lease_and_others_do_not() -> None:
    assert lease_name(CONTROLLER, None) == "pointsman-leader"
    assert len({lease_name(CONTROLLER, None), lease_name("x/y", None), lease_name(CONTROLLER, ("a", "b"))}) == 3
