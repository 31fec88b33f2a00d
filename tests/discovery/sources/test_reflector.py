"""Does a reflector know what the cluster holds, whatever the API server does? Over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discovery.sources.backoff import Times
from discovery.sources.kube_kinds import WatchedKind, find_kind
from discovery.sources.reflector import Reflector
from tests.support.clusters import QUICK, kube_client, pod, pool
from tests.support.kube_api import KubeApi, answers
from tests.support.kube_api.answers import Answer

pytestmark = pytest.mark.anyio

PODS = find_kind("", "Pod")
POOLS = find_kind("inference.networking.k8s.io", "InferencePool")


class Followed:
    """A running reflector, and a way to wait for what it knows."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.changes = 0
        self.deleted: list[str] = []
        self.reflector: Reflector

    def note(self) -> None:
        self.changes += 1
        self.changed.set()

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.reflector.objects}

    def address(self, name: str) -> str | None:
        resource: Any = self.reflector.objects["default", name].resource
        address: str | None = resource.status.pod_ip
        return address

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds; looked at after each change, and from time to time for what is no change."""
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self.changed.wait()

    async def until_names(self, *names: str) -> None:
        await self.until(lambda: self.names == set(names))


@contextlib.asynccontextmanager
async def following(
    api: KubeApi,
    folder: Path,
    kind: WatchedKind = PODS,
    *,
    namespace: str | None = "default",
    selector: str = "",
    times: Times = QUICK,
) -> AsyncIterator[Followed]:
    followed = Followed()
    async with kube_client(api, folder, request_seconds=2, head_seconds=1, connect_seconds=1) as client:
        followed.reflector = Reflector(
            client,
            kind,
            namespace=namespace,
            selector=selector,
            on_change=followed.note,
            on_deleted=lambda stored: followed.deleted.append(stored.resource.name if stored.resource else ""),
            times=times,
        )
        task = asyncio.create_task(followed.reflector.run())
        try:
            yield followed
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()


async def watching(api: KubeApi, followed: Followed) -> None:
    """Until a watch is open."""
    await followed.until(lambda: bool(api.streams) and not followed.reflector.problem)


async def test_a_list_and_then_every_event(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        async with following(api, tmp_path) as pods:
            await pods.until_names("qwen-0")
            assert pods.reflector.is_listed
            await watching(api, pods)
            api.create(pod("qwen-1", "127.1.0.2"))
            await pods.until_names("qwen-0", "qwen-1")
            api.set_status("pods", "qwen-1", {"podIP": "127.1.0.9"})
            await pods.until(lambda: pods.address("qwen-1") == "127.1.0.9")
            api.delete("pods", "qwen-0")
            await pods.until_names("qwen-1")
            assert pods.deleted == ["qwen-0"]
        lists = [request for request in api.requests if request.verb == "list"]
        assert len(lists) == 1
        assert lists[0].headers["user-agent"] == "pointsman"


async def test_long_lists_come_in_pages(tmp_path: Path) -> None:
    async with KubeApi() as api:
        for number in range(1200):
            api.create(pod(f"qwen-{number}"))
        async with following(api, tmp_path) as pods:
            await pods.until(lambda: len(pods.reflector.objects) == 1200)
            assert pods.changes == 1
        assert len([request for request in api.requests if request.verb == "list"]) == 3


async def test_a_list_that_expires_between_pages_is_asked_for_whole(tmp_path: Path) -> None:
    async with KubeApi() as api:
        for number in range(600):
            api.create(pod(f"qwen-{number}"))
        expired = answers.continue_expired("x")
        api.fail_next(Answer(status=200, body=b'{"metadata":{"resourceVersion":"7","continue":"abc"},"items":[]}\n'))
        api.fail_next(expired)
        async with following(api, tmp_path) as pods:
            await pods.until(lambda: len(pods.reflector.objects) == 600)
        assert "limit" not in [request for request in api.requests if request.verb == "list"][-1].query


async def test_a_list_without_end_is_a_failure_and_no_storm(tmp_path: Path) -> None:
    page = Answer(body=b'{"metadata":{"resourceVersion":"5","continue":"same"},"items":[]}')
    slow = replace(QUICK, backoff_first=10.0, backoff_most=30.0)
    async with KubeApi() as api:
        api.fail_next(page, count=10_000)
        async with following(api, tmp_path, times=slow) as pods:
            await pods.until(lambda: "no end" in pods.reflector.problem)
            assert len(api.requests) == 2


@pytest.mark.parametrize("how", ["clean", "eof", "reset", "half line"])
async def test_no_event_is_lost_when_a_watch_ends(tmp_path: Path, how: Any) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        async with following(api, tmp_path) as pods:
            await pods.until_names("qwen-0")
            for number in range(1, 4):
                await watching(api, pods)
                api.end_watches(how)
                api.create(pod(f"qwen-{number}"))
                await pods.until(lambda number=number: f"qwen-{number}" in pods.names)  # type: ignore[misc]
            assert pods.names == {"qwen-0", "qwen-1", "qwen-2", "qwen-3"}
            assert "ha" not in pods.names
        assert len([request for request in api.requests if request.verb == "list"]) == 1


async def test_a_restart_that_forgets_its_window_is_healed_by_a_list(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        api.create(pod("qwen-1"))
        async with following(api, tmp_path) as pods:
            await pods.until_names("qwen-0", "qwen-1")
            await watching(api, pods)
            api.refuse()
            api.restart()
            api.delete("pods", "qwen-0")
            api.create(pod("qwen-2"))
            api.store.forget()
            await pods.until(lambda: bool(pods.reflector.problem))
            assert pods.names == {"qwen-0", "qwen-1"}  # the last known state serves
            await api.listen()
            await pods.until_names("qwen-1", "qwen-2")
            assert pods.deleted == ["qwen-0"]


async def test_a_compacted_window_on_an_open_server_is_healed_by_a_list(tmp_path: Path) -> None:
    async with KubeApi() as api:
        async with following(api, tmp_path) as pods:
            await watching(api, pods)
            stream = next(iter(api.streams))
            stream.namespace = "nowhere"  # it tells nothing any more
            api.create(pod("qwen-0"))
            api.store.forget()
            api.end_watches()
            await pods.until_names("qwen-0")


async def test_endless_410_is_not_a_storm(tmp_path: Path) -> None:
    slow = replace(QUICK, backoff_first=0.2, backoff_most=5.0)
    async with KubeApi() as api, following(api, tmp_path, times=slow) as pods:
        await watching(api, pods)
        api.store.oldest = 10_000_000
        api.end_watches()
        seen = len(api.requests)
        await pods.until(lambda: pods.reflector.failures >= 3)
        assert len(api.requests) - seen <= 8


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(answers.too_many_requests(), id="429 text"),
        pytest.param(answers.status(429, "storage is (re)initializing", "TooManyRequests"), id="429 status"),
        pytest.param(answers.unauthorized(), id="401"),
        pytest.param(Answer(status=503, content_type="text/html", body=b"<html>\n<p>busy\n"), id="503 html"),
        pytest.param(Answer(status=200, content_type="text/html", body=b"<html>\n<p>log in\n"), id="200 html"),
        pytest.param(Answer(status=200, body=b"[1, 2"), id="garbage"),
        pytest.param(Answer(status=200, body=b'{"items": []}'), id="a list without a version"),
        pytest.param(Answer(status=500, body=b'{"kind": "Status", "code": 500}'), id="a bare status"),
        pytest.param(Answer(status=302, content_type="text/html", body=b"elsewhere"), id="a redirect"),
    ],
)
async def test_whatever_a_list_is_answered_with_it_is_tried_again(tmp_path: Path, answer: Answer) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        retried = replace(answer, retry_after=None)
        api.fail_next(retried, count=4, verb="list")
        async with following(api, tmp_path) as pods:
            await pods.until_names("qwen-0")
            await watching(api, pods)
        assert pods.changes == 1


async def test_429_at_a_watch_keeps_its_place_and_waits_as_asked(tmp_path: Path) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        api.create(pod("qwen-0"))
        await pods.until_names("qwen-0")
        api.fail_next(answers.too_many_requests(), verb="watch")
        started = asyncio.get_running_loop().time()
        api.end_watches()
        api.create(pod("qwen-1"))
        await pods.until_names("qwen-0", "qwen-1")
        assert asyncio.get_running_loop().time() - started >= 0.9  # Retry-After: 1
        assert len([request for request in api.requests if request.verb == "list"]) == 1


async def test_a_rotated_token_is_read_anew_at_once(tmp_path: Path) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        api.expire_tokens("second")
        (tmp_path / "token").write_text("second\n")
        api.create(pod("qwen-0"))  # an open watch outlives its token
        await pods.until_names("qwen-0")
        api.end_watches()
        api.create(pod("qwen-1"))
        await pods.until_names("qwen-0", "qwen-1")
        assert pods.reflector.failures == 0


async def test_what_may_not_be_read_says_which_permission_is_missing(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.denied.add(("list", "pods", None))
        async with following(api, tmp_path, namespace=None) as pods:
            await pods.until(lambda: pods.reflector.is_forbidden)
            assert not pods.reflector.is_listed
            assert "must be allowed to list pods" in pods.reflector.problem
            assert "--namespace" in pods.reflector.problem
            api.denied.clear()
            api.create(pod("qwen-0"))
            await pods.until_names("qwen-0")
            assert not pods.reflector.is_forbidden


async def test_permissions_taken_away_leave_the_last_state(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        async with following(api, tmp_path) as pods:
            await watching(api, pods)
            api.denied |= {("list", "pods", None), ("watch", "pods", None)}
            api.end_watches()
            await pods.until(lambda: pods.reflector.is_forbidden)
            assert pods.names == {"qwen-0"}


async def test_a_kind_that_is_not_installed_counts_as_listed_and_is_looked_for(tmp_path: Path) -> None:
    async with KubeApi() as api:
        kind = api.remove_crd("inferencepools")
        async with following(api, tmp_path, POOLS) as pools:
            await pools.until(lambda: pools.reflector.is_missing)
            assert pools.reflector.is_listed
            assert len([r for r in api.requests if r.kind.plural == "inferencepools"]) >= 2  # once could be a mishap
            api.install_crd(kind)
            api.create(pool())
            await pools.until_names("qwen")
            assert not pools.reflector.is_missing


async def test_an_older_version_of_a_crd_is_found(tmp_path: Path) -> None:
    grants = find_kind("gateway.networking.k8s.io", "ReferenceGrant")
    assert grants.versions[0] == "v1"
    async with KubeApi() as api:  # it serves v1beta1 only
        api.create(
            {
                "apiVersion": "gateway.networking.k8s.io/v1beta1",
                "kind": "ReferenceGrant",
                "metadata": {"name": "grant"},
                "spec": {
                    "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "web"}],
                    "to": [{"group": "", "kind": "Service"}],
                },
            }
        )
        async with following(api, tmp_path, grants) as found:
            await found.until_names("grant")
            assert found.reflector.api_version == "v1beta1"


async def test_a_crd_that_is_deleted_takes_its_objects_with_it(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pool())
        async with following(api, tmp_path, POOLS) as pools:
            await watching(api, pools)
            api.remove_crd("inferencepools")
            await pools.until_names()
            await pools.until(lambda: pools.reflector.is_missing)


async def test_a_moment_of_404_empties_nothing_and_a_long_one_does(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pool())
        lost = replace(QUICK, missing_grace=0.3)
        async with following(api, tmp_path, POOLS, times=lost) as pools:
            await watching(api, pools)
            api.fail_next(answers.not_served(), count=3, plural="inferencepools")
            api.touch_crd("inferencepools")
            await pools.until(lambda: pools.reflector.failures >= 3)
            await watching(api, pools)
            assert pools.names == {"qwen"}
            assert not pools.deleted
            api.fail_next(answers.not_served(), count=10_000, plural="inferencepools")
            api.touch_crd("inferencepools")
            await pools.until(lambda: pools.reflector.is_missing)
            assert pools.names == set()


@pytest.mark.parametrize("code", [410, 500, 504, 429, 0])
async def test_error_events_of_any_kind(tmp_path: Path, code: int) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        stream = next(iter(api.streams))
        stream.namespace = "nowhere"
        api.create(pod("qwen-0"))
        if code:
            api.send_error(code, plural="pods")
        else:
            api.send_raw(b'{"type":"ERROR"}\n', plural="pods")
        await pods.until_names("qwen-0")


async def test_lines_that_are_no_events_are_counted_and_passed_over(tmp_path: Path) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        lines = [b"404 page not found\n", b"\n", b'{"type":"NEW","object":{}}\n', b"[1]\n", b'{"type":"ADDED"}\n']
        lines += [b'{"type":"MODIFIED","object":{"metadata":null}}\n', b'{"type":"BOOKMARK","object":{}}\n']
        lines += [b'{"type":"DELETED","object":[]}\n', b"[" * 100_000 + b"\n"]
        for line in lines:
            api.send_raw(line, plural="pods")
        api.create(pod("qwen-0"))
        await pods.until_names("qwen-0")
        assert pods.reflector.dropped == 7


async def test_events_of_a_megabyte(tmp_path: Path) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        huge = {"kubectl.kubernetes.io/last-applied-configuration": "<" * 1_500_000}
        api.create(pod("qwen-0", annotations=huge))
        api.create(pod("qwen-1"))
        await pods.until_names("qwen-0", "qwen-1")
        kept = pods.reflector.objects["default", "qwen-0"].resource
        assert kept is not None
        assert kept.metadata.annotations == {}


async def test_a_line_above_the_limit_leads_to_a_list(tmp_path: Path) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        api.send_raw(b"x" * (17 * 1024 * 1024), plural="pods")
        await api.wait_request("list", "pods", count=2)
        api.create(pod("qwen-0"))
        await pods.until_names("qwen-0")


async def test_a_pod_that_leaves_the_selector_goes_and_was_not_deleted(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        api.create(pod("other", labels={"app": "other"}))
        async with following(api, tmp_path, selector="app=qwen") as pods:
            await pods.until_names("qwen-0")
            await watching(api, pods)
            moved = api.get("pods", "qwen-0")
            api.update({**moved, "metadata": {**moved["metadata"], "labels": {"app": "other"}}})
            await pods.until_names()
            assert pods.deleted == []
            moved = api.get("pods", "qwen-0")
            api.update({**moved, "metadata": {**moved["metadata"], "labels": {"app": "qwen"}}})
            await pods.until_names("qwen-0")
            api.terminate("pods", "qwen-0")
            api.delete("pods", "qwen-0")
            await pods.until_names()
            assert pods.deleted == ["qwen-0"]


async def test_a_new_pod_of_the_same_name_replaces_the_old_one(tmp_path: Path) -> None:
    async with KubeApi() as api:
        first = api.create(pod("qwen-0"))["metadata"]["uid"]
        async with following(api, tmp_path) as pods:
            await pods.until_names("qwen-0")
            api.refuse()
            api.restart()
            api.delete("pods", "qwen-0")
            second = api.create(pod("qwen-0", "127.1.0.5"))["metadata"]["uid"]
            api.store.forget()
            await api.listen()
            await pods.until(lambda: pods.reflector.objects["default", "qwen-0"].uid == second)
            assert first != second


async def test_a_silent_server_is_given_up_after_our_own_deadline(tmp_path: Path) -> None:
    short = replace(QUICK, watch_least=1, watch_most=1, watch_grace=0.1)
    async with KubeApi() as api:
        async with following(api, tmp_path, times=short) as pods:
            await watching(api, pods)
            api.freeze()
            await pods.until(lambda: pods.reflector.failures > 0)  # a new watch gets no answer, either
            api.create(pod("qwen-0"))
            api.thaw()
            await pods.until_names("qwen-0")


async def test_a_server_that_goes_back_in_time_is_believed_after_a_list(tmp_path: Path) -> None:
    """etcd was restored: our version is from the future, so the watch is silent, until the periodic list."""
    relisting = replace(QUICK, watch_least=1, watch_most=1, watch_grace=0.1, relist=0.5)
    async with KubeApi() as api:
        api.create(pod("qwen-0", "127.1.0.1"))
        early = api.store.version
        for number in range(50):
            api.create(pod(f"later-{number}"))
        async with following(api, tmp_path, times=relisting) as pods:
            await pods.until(lambda: len(pods.names) == 51)
            await watching(api, pods)
            for number in range(50):
                api.store.drop_silently(api.store.find_kind("pods"), "default", f"later-{number}")
            api.store.rebirth(early)
            await pods.until_names("qwen-0")
            api.create(pod("qwen-1"))
            await pods.until_names("qwen-0", "qwen-1")


async def test_a_periodic_list_heals_what_no_event_told(tmp_path: Path) -> None:
    relisting = replace(QUICK, watch_least=1, watch_most=1, relist=0.5)
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        async with following(api, tmp_path, times=relisting) as pods:
            await pods.until_names("qwen-0")
            api.store.drop_silently(api.store.find_kind("pods"), "default", "qwen-0")
            await pods.until_names()


async def test_watches_that_end_at_once_are_not_a_storm(tmp_path: Path) -> None:
    slow = replace(QUICK, backoff_first=0.1, backoff_most=5.0, short_watch=1.0)
    async with KubeApi() as api:
        api.fail_next(Answer(body=b""), count=1_000, verb="watch")
        async with following(api, tmp_path, times=slow) as pods:
            await pods.until(lambda: pods.reflector.failures >= 3)
            assert len([request for request in api.requests if request.verb == "watch"]) <= 4


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n',
        b'{"type":"MODIFIED","object":{"metadata":{"name":"x","namespace":"default","resourceVersion":"2"}}}\n',
    ],
    ids=["bookmark", "event"],
)
async def test_watches_that_end_after_a_word_each_are_not_a_storm(tmp_path: Path, line: bytes) -> None:
    slow = replace(QUICK, backoff_first=0.1, short_watch=1.0, pause=0.2)
    stream = Answer(body=line)
    async with KubeApi() as api:
        api.fail_next(stream, count=10_000, verb="watch")
        async with following(api, tmp_path, times=slow) as pods:
            await api.wait_request("watch", "pods", count=3)
            before = len(api.requests)
            await asyncio.sleep(1.0)
            assert len(api.requests) - before <= 40
            assert pods.reflector.events >= 3


async def test_a_watch_that_is_cut_goes_on_at_once_however_often(tmp_path: Path) -> None:
    """Pauses grow where the server is away, not where a connection breaks from time to time."""
    slow = replace(QUICK, backoff_first=10.0, backoff_most=30.0)
    async with KubeApi() as api, following(api, tmp_path, times=slow) as pods:
        for number in range(5):
            await watching(api, pods)
            await asyncio.sleep(slow.short_watch)
            api.end_watches("reset")
            api.create(pod(f"qwen-{number}"))
            await pods.until(lambda n=number: len(pods.names) == n + 1)  # type: ignore[misc]
        assert len([request for request in api.requests if request.verb == "list"]) == 1


async def test_where_bookmarks_stop_the_kind_is_listed(tmp_path: Path) -> None:
    """The server was restored, and our version is from the future: the watch is silent for ever."""
    quick = replace(QUICK, silence=0.3)
    async with KubeApi(bookmark_seconds=0.05) as api:
        api.create(pod("qwen-0"))
        early = api.store.version
        api.create(pod("qwen-1"))
        async with following(api, tmp_path, times=quick) as pods:
            await pods.until_names("qwen-0", "qwen-1")
            await pods.until(lambda: pods.reflector.events >= 2)
            api.bookmark_seconds = 3600.0
            api.store.drop_silently(api.store.find_kind("pods"), "default", "qwen-1")
            api.store.rebirth(early)
            api.end_watches()
            await pods.until_names("qwen-0")


async def test_a_server_that_comes_back_from_a_backup_is_believed_at_once(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0", "127.1.0.1"))
        early = api.store.version
        api.create(pod("qwen-1"))
        async with following(api, tmp_path) as pods:
            await pods.until_names("qwen-0", "qwen-1")
            await watching(api, pods)
            api.refuse()
            api.restart()
            await pods.until(lambda: pods.reflector.failures >= 3)
            api.store.drop_silently(api.store.find_kind("pods"), "default", "qwen-1")
            api.store.rebirth(early)
            await api.listen()
            await pods.until_names("qwen-0")
            api.create(pod("qwen-2"))
            await pods.until_names("qwen-0", "qwen-2")


async def test_a_server_that_was_away_and_kept_its_window_is_watched_on(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        async with following(api, tmp_path) as pods:
            await watching(api, pods)
            api.refuse()
            api.end_watches("reset")
            await pods.until(lambda: pods.reflector.failures >= 3)
            api.create(pod("qwen-1"))
            before = len(api.requests)
            await api.listen()
            await pods.until_names("qwen-0", "qwen-1")
            assert [(r.verb, r.query.get("limit")) for r in api.requests[before:]] == [("list", "1"), ("watch", None)]


async def test_a_server_without_bookmarks_may_be_silent(tmp_path: Path) -> None:
    quick = replace(QUICK, silence=0.05)
    async with KubeApi() as api, following(api, tmp_path, times=quick) as pods:
        await watching(api, pods)
        await asyncio.sleep(0.3)
        assert len(api.requests) == 2


async def test_what_every_api_server_has_is_not_gone_because_of_404(tmp_path: Path) -> None:
    """A load balancer that knows of no backend, say: the last state serves."""
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        async with following(api, tmp_path) as pods:
            await watching(api, pods)
            api.fail_next(answers.not_served(), count=10_000)
            api.end_watches()
            await pods.until(lambda: pods.reflector.failures >= 20)  # far beyond the grace of a CRD
            assert pods.names == {"qwen-0"}
            assert not pods.deleted
            assert "404" in pods.reflector.problem
            api.stop_failing()
            await pods.until(pods.reflector.is_up_to_date)


async def test_a_missing_kind_that_is_told_as_a_status_object(tmp_path: Path) -> None:
    missing = answers.status(404, "the server could not find the requested resource", "NotFound")
    async with KubeApi() as api:
        api.fail_next(missing, count=10_000)
        async with following(api, tmp_path, POOLS) as pools:
            await pools.until(lambda: pools.reflector.is_missing)


async def test_garbage_by_the_thousand_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with KubeApi() as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        api.send_raw(b"<p>\n" * 1_000, plural="pods")
        await pods.until(lambda: pods.reflector.dropped == 1_000)
        assert caplog.text.count("a line that is no event") == 1


async def test_bookmarks_move_the_place_to_go_on_from(tmp_path: Path) -> None:
    async with KubeApi(bookmark_seconds=0.05) as api, following(api, tmp_path) as pods:
        await watching(api, pods)
        for number in range(5):
            api.create(pool(f"pool-{number}"))  # of another kind: only a bookmark tells of the version
        version = api.store.version
        seen = pods.reflector.events
        await pods.until(lambda: pods.reflector.events >= seen + 2)
        api.end_watches()
        count = len([request for request in api.requests if request.verb == "watch"])
        request = await api.wait_request("watch", "pods", count=count + 1)
        assert int(request.query["resourceVersion"]) == version


async def test_a_server_that_is_away_at_start_is_waited_for(tmp_path: Path) -> None:
    async with KubeApi() as api:
        api.create(pod("qwen-0"))
        api.refuse()
        async with following(api, tmp_path) as pods:
            await pods.until(lambda: "no answer" in pods.reflector.problem)
            assert not pods.reflector.is_listed
            await api.listen()
            await pods.until_names("qwen-0")


async def test_ending_closes_the_watch_at_once(tmp_path: Path) -> None:
    async with KubeApi() as api:
        async with following(api, tmp_path) as pods:
            await watching(api, pods)
        async with asyncio.timeout(2):
            while api.streams:
                api.create(pod(f"qwen-{api.store.version}"))  # a write is what notices
                await asyncio.sleep(0.01)
