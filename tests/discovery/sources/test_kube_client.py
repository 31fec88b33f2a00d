"""Does the client get through TLS, rotated certificates and whatever stands between it and the API server?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from discovery.sources.kube_access import KubeconfigAccess, PodAccess
from discovery.sources.kube_client import KubeClient, KubeError, read_error_event
from tests.support.certificates import Authority
from tests.support.clusters import kube_client, pod
from tests.support.kube_api import KubeApi
from tests.support.kube_api.answers import Answer
from tests.support.kube_api.server import TOKEN

pytestmark = pytest.mark.anyio

PODS = "/api/v1/pods"


async def test_a_ca_that_is_rotated_is_read_anew(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "ca.crt").write_text(old.pem)
    async with KubeApi(tls=old.server("127.0.0.1")) as api:
        client = KubeClient(PodAccess(url=api.url, folder=tmp_path))
        assert b"PodList" in await client.request("GET", PODS)
        api.refuse()
        api.restart()
        api.use_tls(new.server("127.0.0.1"))
        await api.listen()
        with pytest.raises(KubeError, match="no answer from the API server"):
            await client.request("GET", PODS)
        (tmp_path / "ca.crt").write_text(new.pem)
        with pytest.raises(KubeError):  # the failure is what makes it look
            await client.request("GET", PODS)
        assert b"PodList" in await client.request("GET", PODS)
        await client.close()


async def test_a_kubeconfig_with_its_ca_inside(tmp_path: Path) -> None:
    authority = Authority()
    async with KubeApi(tls=authority.server("127.0.0.1")) as api:
        path = api.kubeconfig(tmp_path, ca=authority.pem)
        client = KubeClient(KubeconfigAccess(str(path)))
        api.create(pod("qwen-0"))
        assert b"qwen-0" in await client.request("GET", PODS)
        await client.close()
        unknown = KubeClient(KubeconfigAccess(str(api.kubeconfig(tmp_path, ca=Authority().pem))))
        with pytest.raises(KubeError, match="no answer"):
            await unknown.request("GET", PODS)
        await unknown.close()


async def test_a_token_that_is_still_refused_after_reading_it_anew_is_an_error(tmp_path: Path) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path) as client:
        api.expire_tokens("another")
        with pytest.raises(KubeError) as caught:
            await client.request("GET", PODS)
        assert (caught.value.status, caught.value.is_api) == (401, True)
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "status", "retry_after", "message"),
    [
        (Answer(status=429, content_type="text/plain", body=b"Too many\n", retry_after=7), 429, 7.0, "Too many"),
        (Answer(status=503, content_type="text/html", body=b"<h1>\nbusy"), 503, None, "<h1>"),
        (Answer(status=500, body=b'{"kind":"Status","message":"m","details":{"retryAfterSeconds":3}}'), 500, 3.0, "m"),
        (Answer(status=500, body=b"{"), 500, None, "{"),
        (Answer(status=500, body=b""), 500, None, "status 500"),
        (Answer(status=307, body=b""), 307, None, "status 307"),
    ],
)
async def test_refusals_keep_what_they_say(
    tmp_path: Path, answer: Answer, status: int, retry_after: float | None, message: str
) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path) as client:
        api.fail_next(answer)
        with pytest.raises(KubeError) as caught:
            await client.request("GET", PODS)
        assert (caught.value.status, caught.value.retry_after, caught.value.message) == (status, retry_after, message)


async def test_a_frozen_server_is_given_up(tmp_path: Path) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path, request_seconds=0.2, head_seconds=0.2) as client:
        api.freeze()
        with pytest.raises(KubeError, match="no answer"):
            await client.request("GET", PODS)
        with pytest.raises(KubeError, match="no answer"):
            async with client.stream(PODS, {"watch": "1", "resourceVersion": "1"}):
                pass


async def test_many_watches_are_open_at_once(tmp_path: Path) -> None:
    """More than any pool of connections has by default."""
    async with KubeApi() as api, kube_client(api, tmp_path) as client:
        query = {"watch": "1", "resourceVersion": str(api.store.version)}

        async def watch(opened: asyncio.Event) -> None:
            async with client.stream(PODS, query):
                opened.set()
                await asyncio.Event().wait()

        events = [asyncio.Event() for _ in range(130)]
        tasks = [asyncio.create_task(watch(event)) for event in events]
        async with asyncio.timeout(20):
            for event in events:
                await event.wait()
            assert b"PodList" in await client.request("GET", PODS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("data", [b"null", b"{}", b"[]", b'{"code": "x"}', b'{"message": null, "code": null}'])
def test_an_error_event_may_lack_anything(data: bytes) -> None:
    error = read_error_event(data)
    assert error.status == 500
    assert error.message
