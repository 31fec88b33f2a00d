"""Which endpoints are left out while nobody can tell whether their pods are gone?"""

from __future__ import annotations

import httpx
import pytest

from discovery.backend import Endpoint
from middleware.upstream.absent_pods import ABSENCE_SECONDS, AbsentPods
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.transport import UpstreamTransport

pytestmark = pytest.mark.anyio


def endpoints(*names: str, pod: str | None = "llm/qwen") -> tuple[Endpoint, ...]:
    url = httpx.URL("http://127.0.0.1:1/")
    return tuple(Endpoint(id=name, address="127.0.0.1", port=1, url=url, pod=pod) for name in names)


def registry() -> UpstreamRegistry:
    return UpstreamRegistry(make_transport=lambda e: UpstreamTransport(address=e.address, port=e.port))


async def test_one_that_refused_is_left_out_for_a_while() -> None:
    now = 0.0
    pool = registry().candidates("pool", endpoints("a", "b"))
    absent = AbsentPods(is_uninformed=lambda: True, clock=lambda: now)
    absent.note("a")
    assert [candidate.upstream.id for candidate in absent.without(pool)] == ["b"]
    absent.note("b")
    assert absent.without(pool) == pool  # rather all than none
    now = ABSENCE_SECONDS
    assert absent.without(pool) == pool
    assert not absent


async def test_while_the_cluster_can_be_asked_nothing_is_noted_and_what_was_is_forgotten() -> None:
    uninformed = True
    pool = registry().candidates("pool", endpoints("a", "b"))
    absent = AbsentPods(is_uninformed=lambda: uninformed)
    absent.note("a")
    uninformed = False
    assert absent.without(pool) == pool
    assert not absent
    absent.note("a")
    assert not absent


async def test_only_pods_can_be_absent() -> None:
    known = registry()
    known.absent.is_uninformed = lambda: True
    (backend,) = known.candidates("backend", endpoints("10.0.0.1:80", pod=None))
    (pod,) = known.candidates("pool", endpoints("uid/10.0.0.2:80"))
    backend.upstream.note_refused()
    assert not known.absent
    pod.upstream.note_refused()
    assert known.absent


async def test_a_confined_name_must_not_resolve_to_ourselves() -> None:
    transport = UpstreamTransport(address="localhost", port=1, is_confined=True)
    with pytest.raises(httpx.ConnectError, match="own pod or node"):
        await transport.send(method="GET", target=b"/", headers=[(b"host", b"h")], body=b"")
    transport.close()
