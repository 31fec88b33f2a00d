"""Is a pod known to be gone when it is, and only then?"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from discovery.resources.core import EndpointSlice
from discovery.sources.gone_pods import GonePods
from discovery.sources.kube_kinds import find_kind
from discovery.sources.kube_objects import StoredObject, read_object
from tests.support.clusters import kube_client, pod
from tests.support.kube_api import KubeApi

pytestmark = pytest.mark.anyio


def stored(name: str, uid: str) -> StoredObject:
    found = pod(name)
    found["metadata"] |= {"uid": uid}
    return read_object(json.dumps(found).encode(), find_kind("", "Pod"), "v1")


def piece(*endpoints: tuple[str, bool]) -> EndpointSlice:
    """An EndpointSlice of these pods, each with whether it is terminating."""
    listed: list[Any] = [
        {
            "addresses": ["127.1.0.1"],
            "conditions": {"terminating": is_terminating},
            "targetRef": {"kind": "Pod", "name": uid, "uid": uid},
        }
        for uid, is_terminating in endpoints
    ]
    found = {"metadata": {"name": "s", "namespace": "default"}, "addressType": "IPv4", "endpoints": listed}
    kind = find_kind("discovery.k8s.io", "EndpointSlice")
    resource = read_object(json.dumps(found).encode(), kind, "v1").resource
    assert isinstance(resource, EndpointSlice)
    return resource


async def test_the_latest_thousand_are_remembered(tmp_path: Path) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path) as client:
        gone = GonePods(client, on_news=lambda: None)
        for number in range(1_002):
            gone.deleted(stored("qwen-0", f"u{number}"))
            gone.deleted(stored("qwen-0", "u0"))  # again and again the latest
        assert len(gone.identities()) == 1_000
        assert {"u0", "u1001"} <= gone.identities()
        assert "u1" not in gone.identities()


async def test_who_was_terminating_and_is_in_no_slice_any_more_is_gone(tmp_path: Path) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path) as client:
        gone = GonePods(client, on_news=lambda: None)
        gone.look_at([piece(("u1", True), ("u2", False), ("u3", True))])
        gone.look_at([piece(("u3", True))])
        assert gone.identities() == {"u1"}


async def test_who_only_left_its_selector_is_asked_for(tmp_path: Path) -> None:
    news = asyncio.Event()
    async with KubeApi() as api, kube_client(api, tmp_path) as client, asyncio.timeout(5):
        relabelled = api.create(pod("relabelled", labels={"app": "other"}))
        api.create(pod("replaced"))
        gone = GonePods(client, on_news=news.set)
        gone.left(stored("relabelled", relabelled["metadata"]["uid"]))
        gone.left(stored("replaced", "the first of that name"))
        assert gone.identities() == frozenset()
        await news.wait()
        assert gone.identities() == {"the first of that name"}
        await gone.stop()


async def test_while_nobody_knows_it_is_not_gone(tmp_path: Path) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path) as client, asyncio.timeout(5):
        gone = GonePods(client, on_news=lambda: None)
        gone.left(stored("qwen-0", "u1"))
        api.denied.add(("get", "pods", None))
        gone.identities()
        await api.wait_request("get", "pods")
        await gone.stop()
        assert gone.identities() == frozenset()
