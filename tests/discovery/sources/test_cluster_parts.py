"""The pure parts of following a cluster: lines, waits, kinds, plans, objects, and the way to the API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from discovery.resources.core import EndpointSlice, Pod, Service
from discovery.resources.envoy_gateway import Backend, BackendTrafficPolicy
from discovery.sources.backoff import Backoff
from discovery.sources.kube_access import AccessError, KubeconfigAccess, PodAccess, find_access
from discovery.sources.kube_kinds import find_kind, watched_kinds
from discovery.sources.kube_objects import StoredObject, UnreadableError, read_object
from discovery.sources.watch_lines import LineBuffer, LineTooLongError
from discovery.sources.watch_plans import Want, WatchScope, is_wanted, plan_watches
from tests.support.clusters import pod, route
from tests.support.kube_api.kinds import BUILT_IN, CUSTOM


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_come_out_whole_however_they_are_cut(size: int) -> None:
    text = b'{"a":1}\n\n{"b":"x"}\r\n{"c":2}\nhalf'
    buffer = LineBuffer()
    lines: list[bytes] = []
    for start in range(0, len(text), size):
        lines += buffer.feed(text[start : start + size])
    assert lines == [b'{"a":1}', b'{"b":"x"}\r', b'{"c":2}']


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert LineBuffer(max_bytes=4).feed(b"1234\n") == [b"1234"]
    buffer = LineBuffer(max_bytes=4)
    buffer.feed(b"123")
    with pytest.raises(LineTooLongError):
        buffer.feed(b"45")


def test_waits_double_up_to_the_most_and_start_anew_after_a_quiet_time() -> None:
    now = 0.0
    backoff = Backoff(first=1.0, most=8.0, reset_after=100.0, clock=lambda: now, draw=lambda: 0.5)
    assert [backoff.next() for _ in range(5)] == [1.5, 3.0, 6.0, 8.0, 8.0]
    assert backoff.next(at_least=20.0) == 20.0
    now = 101.0
    assert backoff.next() == 1.5


def test_the_names_of_the_kinds_are_those_of_the_api() -> None:
    real = {(kind.group, kind.kind): kind.plural for kind in (*BUILT_IN, *CUSTOM)}
    ours = {(kind.group, kind.kind): kind.plural for kind in watched_kinds()}
    assert {key: ours[key] for key in real.keys() & ours.keys()} == {
        key: real[key] for key in real.keys() & ours.keys()
    }
    assert len(real.keys() & ours.keys()) >= 15
    assert find_kind("gateway.envoyproxy.io", "SecurityPolicy").plural == "securitypolicies"
    assert find_kind("", "ConfigMap").selector == "inference.networking.k8s.io/bbr-managed=true"
    assert find_kind("", "Pod").path("v1", "llm") == "/api/v1/namespaces/llm/pods"


def test_up_to_32_selectors_are_watches_of_their_own_and_more_are_one_of_the_namespace() -> None:
    def wants(count: int) -> list[Want]:
        return [Want("Pod", f"ns-{number % 2}", (("app", f"m{number}"),)) for number in range(count)]

    few = plan_watches(wants(32))
    assert len(few) == 32
    assert few[WatchScope("Pod", "ns-1", "app=m1")] == frozenset()
    slices = Want("EndpointSlice", "ns-0", (("kubernetes.io/service-name", "llm"),))
    many = plan_watches([*wants(33), slices])
    assert set(many) == {
        WatchScope("Pod", "ns-0", ""),
        WatchScope("Pod", "ns-1", ""),
        WatchScope("EndpointSlice", "ns-0", "kubernetes.io/service-name=llm"),
    }
    wanted = many[WatchScope("Pod", "ns-0", "")]
    assert is_wanted({"app": "m0", "more": "x"}, wanted)
    assert not is_wanted({"app": "m1"}, wanted)
    assert is_wanted({}, frozenset())


def stored(obj: dict[str, Any], kind: str, group: str = "") -> StoredObject:
    found = find_kind(group, kind)
    return read_object(json.dumps(obj).encode(), found, found.versions[0])


def test_of_a_pod_only_what_we_read_is_kept() -> None:
    given = pod("qwen-0", "fd00::7", annotations={"inference.networking.k8s.io/active-ports": "8000", "x/y": "z"})
    given["status"]["conditions"].append({"type": "Initialized", "status": "True"})
    kept = stored(given, "Pod").resource
    assert isinstance(kept, Pod)
    assert kept.metadata.annotations == {"inference.networking.k8s.io/active-ports": "8000"}
    assert kept.status.pod_ip == "fd00::7"
    assert [c.type for c in kept.status.conditions or ()] == ["Ready"]
    assert kept.spec.containers == ()
    assert "s3cret" not in repr(kept)


def test_a_pod_without_conditions_is_not_ready_in_a_cluster() -> None:
    bare = {"metadata": {"name": "qwen-0", "namespace": "llm"}, "spec": {"containers": None}, "status": {}}
    kept = stored(bare, "Pod").resource
    assert isinstance(kept, Pod)
    assert not kept.is_ready
    assert kept.status.pod_ip is None


def test_a_slice_s_nulls_are_empty() -> None:
    given = {"metadata": {"name": "llm-1", "namespace": "llm"}, "endpoints": None, "ports": None, "addressType": "IPv4"}
    kept = stored(given, "EndpointSlice", "discovery.k8s.io").resource
    assert isinstance(kept, EndpointSlice)
    assert kept.endpoints == ()


def test_an_object_that_cannot_be_used_is_left_out_with_the_reason() -> None:
    given = route(parents=("gateway", "other"))
    given["spec"]["newerField"] = {"a": 1}
    given["metadata"]["generation"] = 3
    found = stored(given, "HTTPRoute", "gateway.networking.k8s.io")
    assert found.resource is None
    assert found.left_out is not None
    assert found.left_out.message == "spec.newerField: unknown field"
    assert found.left_out.generation == 3
    assert [parent.name for parent in found.left_out.parents] == ["gateway", "other"]


def test_a_policy_that_cannot_be_used_still_has_its_targets_and_restricts_them() -> None:
    given = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": "limits", "namespace": "llm"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "models"}],
            "zzz": 7,
        },
    }
    found = stored(given, "BackendTrafficPolicy", "gateway.envoyproxy.io")
    assert isinstance(found.resource, BackendTrafficPolicy)
    assert [target.name for target in found.resource.spec.targets] == ["models"]
    assert found.resource.restrictions == ("spec.zzz: unknown field",)


def test_backends_and_services_of_a_cluster_are_marked_as_such() -> None:
    backend = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": "b", "namespace": "llm"},
        "spec": {"endpoints": [{"ip": {"address": "10.0.0.1", "port": 80}}]},
    }
    found = stored(backend, "Backend", "gateway.envoyproxy.io").resource
    assert isinstance(found, Backend) and found.is_from_api
    service = {"metadata": {"name": "s", "namespace": "llm"}, "spec": {"ports": [{"port": 80}]}}
    kept = stored(service, "Service").resource
    assert isinstance(kept, Service) and kept.is_from_api


def test_a_status_is_kept_as_it_is_where_we_write_it() -> None:
    given = route()
    given["status"] = {"parents": [{"controllerName": "example.com/other", "weird": [1, None]}]}
    found = stored(given, "HTTPRoute", "gateway.networking.k8s.io")
    assert json.loads(found.status) == given["status"]
    assert stored(pod("qwen-0"), "Pod").status == b""


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"metadata": {}}', b'{"metadata": {"name": 7}}', b"\xff"])
def test_what_has_no_name_is_no_object(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_object(text, find_kind("", "Pod"), "v1")


def test_a_pod_s_account_comes_first_then_kubeconfig_then_nothing(tmp_path: Path) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t")
    (account / "namespace").write_text("llm\n")
    in_cluster = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = find_access(in_cluster, folder=account)
    assert isinstance(found, PodAccess)
    assert found.namespace == "llm"
    config = tmp_path / "config"
    config.write_text("{}")
    assert isinstance(find_access({"KUBECONFIG": str(config)}, folder=account), KubeconfigAccess)
    with pytest.raises(AccessError, match="no kubeconfig"):
        find_access({"HOME": str(tmp_path)}, folder=tmp_path)


@pytest.mark.anyio
async def test_a_token_is_read_anew_after_a_minute_and_when_it_is_refused(tmp_path: Path) -> None:
    now = 100.0
    (tmp_path / "token").write_text("first\n")
    access = PodAccess(url="http://127.0.0.1", folder=tmp_path, clock=lambda: now)
    assert await access.authorization() == "Bearer first"
    (tmp_path / "token").write_text("second\n")
    assert await access.authorization() == "Bearer first"
    assert await access.authorization(is_refused=True) == "Bearer second"
    (tmp_path / "token").write_text("third\n")
    now = 161.0
    assert await access.authorization() == "Bearer third"


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["not: [yaml", "{}", '{"current-context": "x"}', "[]"])
async def test_a_kubeconfig_that_cannot_be_used_is_an_error_in_words(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(AccessError, match="config"):
        await KubeconfigAccess(str(config)).server()
