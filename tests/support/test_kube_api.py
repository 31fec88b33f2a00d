"""Does the tests' API server answer as real ones do? Its answers are held to recordings of real servers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube_api import KubeApi, answers
from tests.support.kube_api.server import TOKEN
from tests.support.raw_client import RawClient

pytestmark = pytest.mark.anyio

RECORDINGS = Path(__file__).parent / "kube_api" / "recordings"
POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/llm/inferencepools"
PODS = "/api/v1/namespaces/llm/pods"


@dataclass(frozen=True)
class Exchange:
    """A recorded answer."""

    status: int
    headers: dict[str, str]
    body: list[str]  # lines

    @property
    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body[0])
        return found


def recorded(name: str) -> Exchange:
    """The recording whose file name starts so."""
    (path,) = RECORDINGS.glob(f"{name}-*")
    lines = path.read_text().splitlines()
    head = [line[2:] for line in lines if line.startswith("< ")]
    body = [line for line in lines if line and not line.startswith(("# ", "> ", "< ", "@ ", "{}")) and line != ">"]
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    return Exchange(int(head[0].split(" ")[1]), headers, body)


def pod(name: str, *, labels: dict[str, str] | None = None, node: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "vllm"}]}
    if node:
        spec["nodeName"] = node
    metadata = {"name": name, "namespace": "llm", "labels": labels or {"app": "qwen"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pool(name: str = "qwen") -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": "qwen"}}, "targetPorts": [{"number": 8000}]}
    metadata = {"name": name, "namespace": "llm"}
    return {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": metadata, "spec": spec}


async def asked(
    api: KubeApi,
    target: str,
    *,
    token: str | None = TOKEN,
    method: str = "GET",
    body: object = None,
    content_type: str = "application/json",
) -> Exchange:
    """One request on a connection of its own, answered whole."""
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(data)}\r\nContent-Type: {content_type}\r\n"
    )
    if token is not None:
        head += f"Authorization: Bearer {token}\r\n"
    async with RawClient(api.port) as client:
        await client.send(head.encode() + b"\r\n" + data)
        answer = await client.answer()
    return Exchange(answer.status, answer.headers, answer.body.decode().splitlines())


def assert_alike(ours: Exchange, real: Exchange) -> None:
    """Same status, same kind of content; of a Status the same keys, reason and code."""
    assert ours.status == real.status
    assert ours.headers["content-type"] == real.headers["content-type"]
    assert ours.headers.get("retry-after") == real.headers.get("retry-after")
    if "json" not in real.headers["content-type"]:
        assert ours.body == real.body
        return
    assert ours.object.keys() == real.object.keys()
    if real.object["kind"] == "Status":
        for key in ("kind", "status", "reason", "code"):
            assert ours.object.get(key) == real.object.get(key)
        ours_details, real_details = ours.object.get("details", {}), real.object.get("details", {})
        assert ours_details.keys() == real_details.keys()


async def test_refusals_are_worded_as_recorded() -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        assert_alike(await asked(api, PODS, token="wrong"), recorded("10"))
        assert_alike(await asked(api, PODS, token=None), recorded("12"))
        assert_alike(await asked(api, "/apis/nope.example.com/v1/namespaces/llm/things"), recorded("16"))
        assert_alike(await asked(api, "/apis/inference.networking.k8s.io/v1/namespaces/llm/nopes"), recorded("17"))
        assert_alike(await asked(api, f"{PODS}/absent"), recorded("18"))
        assert_alike(await asked(api, f"{PODS}?watch=1&resourceVersion=abc"), recorded("20"))
        assert_alike(await asked(api, f"{PODS}?resourceVersion=99999999"), recorded("21"))
        assert_alike(await asked(api, f"{POOLS}?fieldSelector=status.phase%3DReady"), recorded("85"))
        assert_alike(await asked(api, f"{PODS}?labelSelector=a%3D%3D%3Db"), recorded("86"))


async def test_roles_forbid_as_recorded() -> None:
    async with KubeApi() as api:
        api.denied |= {("list", "pods", None), ("watch", "pods", "llm")}
        in_namespace, real = await asked(api, PODS), recorded("13")
        assert_alike(in_namespace, real)
        nobody = real.object["message"].replace("llm:nobody", "default:pointsman")
        assert in_namespace.object["message"] == nobody
        assert_alike(await asked(api, f"{PODS}?watch=1"), recorded("14"))
        everywhere = await asked(api, "/api/v1/pods")
        assert_alike(everywhere, recorded("15"))
        assert everywhere.object["message"].endswith("at the cluster scope")


async def test_too_many_requests_come_as_text_and_as_status() -> None:
    async with KubeApi() as api:
        api.fail_next(answers.too_many_requests())
        api.fail_next(answers.storage_initializing())
        assert_alike(await asked(api, PODS), recorded("70"))
        assert_alike(await asked(api, POOLS), recorded("72"))


async def test_lists_page_and_items_of_built_in_kinds_have_no_kind() -> None:
    async with KubeApi() as api:
        assert_alike(await asked(api, PODS), recorded("01"))
        for number in range(3):
            api.create(pod(f"qwen-{number}"))
        api.create(pool())
        whole = await asked(api, PODS)
        assert_alike(whole, recorded("03"))
        assert "kind" not in whole.object["items"][0] and "kind" not in recorded("03").object["items"][0]
        first, real = await asked(api, f"{PODS}?limit=2"), recorded("04")
        assert first.object["metadata"].keys() == real.object["metadata"].keys()
        assert first.object["metadata"]["remainingItemCount"] == real.object["metadata"]["remainingItemCount"] == 1
        api.create(pod("later"))
        token = first.object["metadata"]["continue"]
        second = await asked(api, f"{PODS}?limit=2&continue={token}")
        assert second.object["metadata"].keys() == recorded("05").object["metadata"].keys()
        assert second.object["metadata"]["resourceVersion"] == first.object["metadata"]["resourceVersion"]
        with_selector = await asked(api, f"{PODS}?limit=2&labelSelector=app%3Dqwen")
        assert "remainingItemCount" not in with_selector.object["metadata"]
        pools = await asked(api, POOLS)
        assert {"kind", "apiVersion"} <= pools.object["items"][0].keys() & recorded("51").object["items"][0].keys()
        api.store.forget()
        api.create(pod("even-later"))
        api.store.forget()
        expired = await asked(api, f"{PODS}?limit=2&continue={token}")
        assert_alike(expired, recorded("32"))
        assert expired.object["metadata"].keys() == recorded("32").object["metadata"].keys()
        exact = await asked(api, f"{PODS}?resourceVersion=1&resourceVersionMatch=Exact")
        assert_alike(exact, recorded("31"))


async def events(api: KubeApi, target: str, changes: Any) -> tuple[Exchange, list[dict[str, Any]]]:
    """Open a watch, make the changes, and read to the end of the stream."""
    async with RawClient(api.port) as client:
        await client.send(f"GET {target} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        status, headers = await client.head()
        changes()
        lines: list[str] = []
        while chunk := await client.chunk():
            lines += chunk.decode().splitlines()
    return Exchange(status, headers, lines), [json.loads(line) for line in lines]


async def test_a_selector_s_watch_tells_the_life_of_a_pod_as_recorded() -> None:
    async with KubeApi() as api:
        version = api.store.version

        def live() -> None:
            api.create(pod("qwen-0", node="node-a"))
            api.set_status("pods", "qwen-0", {"podIP": "10.0.0.1"}, "llm")
            moved = api.get("pods", "qwen-0", "llm")
            api.update({**moved, "metadata": {**moved["metadata"], "labels": {"app": "other"}}})
            moved = api.get("pods", "qwen-0", "llm")
            api.update({**moved, "metadata": {**moved["metadata"], "labels": {"app": "qwen"}}})
            api.terminate("pods", "qwen-0", "llm")
            api.store.terminate(api.store.find_kind("pods"), "llm", "qwen-0", grace_seconds=0)
            api.delete("pods", "qwen-0", "llm")

        target = f"{PODS}?watch=1&resourceVersion={version}&labelSelector=app%3Dqwen&allowWatchBookmarks=true"
        api.bookmark_seconds = 0.5
        stream, told = await events(api, f"{target}&timeoutSeconds=1", live)
        real = recorded("02")
        real_events = [json.loads(line) for line in real.body]
        assert stream.headers["content-type"] == real.headers["content-type"]
        assert stream.headers["transfer-encoding"] == "chunked"
        kinds = [event["type"] for event in told]
        assert kinds == ["ADDED", "MODIFIED", "DELETED", "ADDED", "MODIFIED", "MODIFIED", "DELETED", "BOOKMARK"]
        # Out of the selector: the old labels, the new resourceVersion. The recording has the same sequence in it.
        left = told[2]["object"]["metadata"]
        assert left["labels"] == {"app": "qwen"}
        assert int(left["resourceVersion"]) == version + 3
        real_left = next(e for e in real_events if e["type"] == "DELETED")["object"]["metadata"]
        assert real_left["labels"] == {"app": "qwen"} and "deletionTimestamp" not in real_left
        graces = [e["object"]["metadata"].get("deletionGracePeriodSeconds") for e in told[4:7]]
        assert graces == [30, 0, 0]
        assert {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"} == {e["type"] for e in real_events}
        bookmark, real_bookmark = told[-1]["object"], real_events[-1]["object"]
        assert bookmark.keys() == real_bookmark.keys()
        assert bookmark["metadata"].keys() == real_bookmark["metadata"].keys()
        versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in told]
        assert versions == sorted(versions)


async def test_watches_of_old_and_future_versions_end_as_recorded() -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        api.store.forget()
        _, told = await events(api, f"{PODS}?watch=1&resourceVersion=3", lambda: None)
        real = [json.loads(line) for line in recorded("30").body]
        assert [event["type"] for event in told] == [event["type"] for event in real] == ["ERROR"]
        assert told[0]["object"].keys() == real[0]["object"].keys()
        assert told[0]["object"]["code"] == real[0]["object"]["code"] == 410

        def change() -> None:
            api.create(pod("qwen-1"))

        _, silent = await events(api, f"{PODS}?watch=1&resourceVersion=99999999&timeoutSeconds=0.2", change)
        assert not silent
        assert not recorded("22").body
        _, synthetic = await events(api, f"{PODS}?watch=1&timeoutSeconds=0.2", lambda: None)
        assert {e["type"] for e in synthetic} == {"ADDED"} == {json.loads(x)["type"] for x in recorded("24").body}
        streaming = f"{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        assert (await asked(api, streaming)).status == recorded("23").status == 422


async def test_crds_change_and_go_as_recorded() -> None:
    async with KubeApi() as api:
        api.create(pool())
        version = api.store.version
        target = f"{POOLS}?watch=1&resourceVersion={version}"
        _, told = await events(api, target, lambda: api.touch_crd("inferencepools"))
        assert not told
        assert not recorded("53").body
        kind = api.store.find_kind("inferencepools")
        _, told = await events(api, target, lambda: api.remove_crd("inferencepools"))
        real = [json.loads(line) for line in recorded("54").body]
        assert [e["type"] for e in told] == [e["type"] for e in real] == ["DELETED"]
        assert_alike(await asked(api, f"{POOLS}?watch=1"), recorded("55"))
        api.install_crd(kind)
        assert (await asked(api, POOLS)).object["items"] == []


async def test_writes_conflict_and_count_generations_as_recorded() -> None:
    async with KubeApi() as api:
        api.create(pool())
        stale = {"metadata": {"resourceVersion": "1"}, "spec": {"targetPorts": [{"number": 8003}]}}
        merge = "application/merge-patch+json"
        conflict = await asked(api, f"{POOLS}/qwen", method="PATCH", body=stale, content_type=merge)
        assert_alike(conflict, recorded("89"))
        assert conflict.object["message"] == recorded("89").object["message"]
        spec = {"spec": {"targetPorts": [{"number": 8001}]}}
        patched = await asked(api, f"{POOLS}/qwen", method="PATCH", body=spec, content_type=merge)
        assert patched.object["metadata"]["generation"] == 2
        status: dict[str, Any] = {"status": {"parents": []}, "spec": {"targetPorts": []}}
        patched = await asked(api, f"{POOLS}/qwen/status", method="PATCH", body=status, content_type=merge)
        assert patched.object["metadata"]["generation"] == 2
        assert patched.object["spec"]["targetPorts"] == [{"number": 8001}]
        version = api.store.version
        await asked(api, f"{POOLS}/qwen/status", method="PUT", body=patched.object)
        assert api.store.version == version  # a write that changes nothing is none


async def test_a_slow_reader_s_watch_ends_cleanly_without_a_word() -> None:
    async with KubeApi(watch_buffer=3) as api:
        api.freeze()
        async with RawClient(api.port) as client:
            target = f"{PODS}?watch=1&resourceVersion={api.store.version}"
            await client.send(f"GET {target} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            api.thaw()
            await client.head()
            api.freeze()
            for number in range(8):
                api.create(pod(f"qwen-{number}"))
            api.thaw()
            async with asyncio.timeout(5):
                count = 0
                while await client.chunk():
                    count += 1
        assert 0 < count < 8
