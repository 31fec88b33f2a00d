"""Does the scraper know how busy pods are, whatever they do?"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType

import pytest

from app.main import make_transport
from discovery.backend import Endpoint
from discovery.snapshot import Routing, Snapshot
from middleware.scheduling.load import Knowledge, Load
from middleware.upstream import scraper as scraping
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.scraper import MetricsScraper
from tests.support.exchanges import make_endpoint, make_ref, make_rule
from tests.support.pods import Pod, vllm_metrics
from tests.support.raw_upstream import Conversation, RawUpstream, unanswered_port

pytestmark = pytest.mark.anyio

REF = make_ref()
BUSY = vllm_metrics(waiting=7).encode()


def snapshot_of(*endpoints: Endpoint) -> Snapshot:
    assert REF.backend is not None
    return Snapshot(
        version=1,
        routing=Routing(rules=(make_rule(REF),)),
        membership=MappingProxyType({REF.backend.id: endpoints}),
    )


class Scraping:
    """A scraper over pods, and what it knows of them."""

    def __init__(self) -> None:
        self.registry = UpstreamRegistry(make_transport=make_transport)
        self.scraper = MetricsScraper(registry=self.registry, make_transport=make_transport)

    def follow(self, *pods: Pod) -> None:
        snapshot = snapshot_of(*(make_endpoint(*pod.address) for pod in pods))
        self.registry.follow(snapshot)
        self.scraper.follow(snapshot)

    def load(self, pod: Pod) -> Load:
        return self.registry.upstream(make_endpoint(*pod.address)).load

    async def until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not predicate():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scraping_of(*pods: Pod) -> AsyncIterator[Scraping]:
    one = Scraping()
    try:
        one.follow(*pods)
        yield one
    finally:
        await one.scraper.close()
        one.registry.close()


async def test_what_a_pod_says_is_known() -> None:
    async with Pod(metrics=vllm_metrics(waiting=3, running=8, kv=0.25)) as pod, scraping_of(pod) as one:
        load = one.load(pod)
        assert load.knowledge is Knowledge.UNREAD
        await one.until(lambda: load.knowledge is not Knowledge.UNREAD)
        assert (load.waiting, load.running, load.kv_usage) == (3, 8, 0.25)
        pod.metrics = vllm_metrics(waiting=1)
        await one.until(lambda: load.waiting == 1)


async def test_an_idle_pod_is_asked_once_a_second_and_a_busy_one_all_the_time() -> None:
    async with Pod() as pod, scraping_of(pod) as one:
        load = one.load(pod)
        await one.until(lambda: load.interval_seconds == scraping.IDLE_INTERVAL_SECONDS)
        assert REF.backend is not None
        one.scraper.touch(REF.backend.id)
        await pod.until_asked(3)
        await one.until(lambda: load.interval_seconds == scraping.BUSY_INTERVAL_SECONDS)


async def test_a_pod_that_hangs_delays_nobody() -> None:
    async with Pod("127.1.0.1") as slow, Pod("127.1.0.2") as fast:
        slow.metrics_may_go.clear()
        async with scraping_of(slow, fast) as one:
            assert REF.backend is not None
            one.scraper.touch(REF.backend.id)
            await fast.until_asked(5)
            assert slow.asked == 1
            assert one.load(slow).knowledge is Knowledge.UNREAD
            await one.until(lambda: one.load(slow).knowledge is Knowledge.STALE)
            assert one.load(slow).last_failure
            assert one.load(fast).knowledge is Knowledge.FRESH
            slow.metrics_may_go.set()
            await one.until(lambda: one.load(slow).knowledge is Knowledge.FRESH)


@pytest.mark.parametrize(
    ("metrics", "status", "failure"),
    [
        pytest.param(vllm_metrics(waiting=float("nan")), 200, "vllm:num_requests_waiting is not a number", id="nan"),
        pytest.param(vllm_metrics(running=-1), 200, "vllm:num_requests_running is not a number", id="negative"),
        pytest.param("x" * 10_000_000, 200, "more than 4 MiB", id="10-mb"),
        pytest.param("", 503, "status 503", id="503"),
        pytest.param("", 302, "status 302", id="redirect"),
    ],
)
async def test_a_pod_that_lies_is_not_believed(metrics: str, status: int, failure: str) -> None:
    async with Pod() as pod:
        pod.metrics, pod.metrics_status = metrics, status
        async with scraping_of(pod) as one:
            load = one.load(pod)
            await one.until(lambda: load.knowledge is Knowledge.STALE)
            assert failure in load.last_failure


@pytest.mark.parametrize(
    ("coding", "content"),
    [
        pytest.param(b"gzip", gzip.compress(BUSY), id="gzip"),
        pytest.param(b"deflate", zlib.compress(BUSY), id="deflate"),
        pytest.param(b"identity", BUSY, id="identity"),
    ],
)
async def test_metrics_that_are_compressed_unasked_are_read(coding: bytes, content: bytes) -> None:
    async with Pod() as pod:
        pod.metrics_content, pod.metrics_headers = content, b"Content-Encoding: %b\r\n" % coding
        async with scraping_of(pod) as one:
            await one.until(lambda: one.load(pod).waiting == 7)


@pytest.mark.parametrize(
    ("coding", "content", "failure"),
    [
        pytest.param(b"gzip", gzip.compress(b"x" * 10_000_000), "more than 4 MiB", id="bomb"),
        pytest.param(b"gzip", gzip.compress(BUSY)[:-12], "compression is broken", id="half"),
        pytest.param(b"gzip", BUSY, "compression is broken", id="none"),
        pytest.param(b"br", BUSY, "a coding that was not asked for", id="br"),
    ],
)
async def test_what_cannot_be_decompressed_is_not_an_idle_pod(coding: bytes, content: bytes, failure: str) -> None:
    async with Pod() as pod:
        pod.metrics_content, pod.metrics_headers = content, b"Content-Encoding: %b\r\n" % coding
        async with scraping_of(pod) as one:
            load = one.load(pod)
            await one.until(lambda: load.knowledge is Knowledge.STALE)
            assert failure in load.last_failure


async def test_a_lie_leaves_the_last_reading_until_it_is_stale() -> None:
    async with Pod(metrics=vllm_metrics(waiting=3)) as pod, scraping_of(pod) as one:
        load = one.load(pod)
        await one.until(lambda: load.waiting == 3)
        pod.metrics = vllm_metrics(waiting=-1)
        load.begin()
        await one.until(lambda: bool(load.last_failure))
        assert (load.waiting, load.knowledge) == (3, Knowledge.FRESH)


@pytest.mark.parametrize("metrics", ["", '{"path": "/metrics"}', "up 1\n"])
async def test_what_is_absent_from_a_reading_that_worked_is_0(metrics: str) -> None:
    async with Pod() as pod:
        pod.metrics = metrics
        async with scraping_of(pod) as one:
            load = one.load(pod)
            await one.until(lambda: load.knowledge is not Knowledge.UNREAD)
            assert (load.knowledge, load.queue) == (Knowledge.FRESH, 0)


async def test_a_pod_without_metrics_is_known_to_have_none() -> None:
    async with Pod() as pod:
        pod.metrics_status = 404
        async with scraping_of(pod) as one:
            await one.until(lambda: one.load(pod).knowledge is Knowledge.NONE)


async def test_a_pod_without_metrics_is_hardly_asked_again_whatever_its_traffic() -> None:
    async with Pod("127.1.0.1") as bare, Pod("127.1.0.2") as telling:
        bare.metrics_status = 404
        async with scraping_of(bare, telling) as one:
            await one.until(lambda: one.load(bare).knowledge is Knowledge.NONE)
            assert REF.backend is not None
            one.scraper.touch(REF.backend.id)
            await telling.until_asked(10)
            assert bare.asked == 1


async def test_a_pod_that_is_not_there_is_stale() -> None:
    async with Pod() as pod:
        pass
    async with scraping_of(pod) as one:
        await one.until(lambda: one.load(pod).knowledge is Knowledge.STALE)
        assert "no connection" in one.load(pod).last_failure


async def test_a_pod_is_silent_from_its_last_byte_or_request_on() -> None:
    async with Pod() as pod:
        one = Scraping()
        one.scraper = MetricsScraper(registry=one.registry, make_transport=make_transport, silence_limit_seconds=0.3)
        try:
            one.follow(pod)
            upstream = one.registry.upstream(make_endpoint(*pod.address))
            upstream.begin()
            stream = await upstream.transport.send(
                method="POST", target=b"/", headers=[(b"host", b"pod"), (b"content-length", b"0")], body=b""
            )
            while await stream.read():
                pass
            loop = asyncio.get_running_loop()
            heard_at = loop.time()
            assert not upstream.load.is_silent
            await one.until(lambda: upstream.load.is_silent)
            assert loop.time() - heard_at > 0.25
            assert upstream.load.queue == 1
            stream.release()
            upstream.end()
            await one.until(lambda: not upstream.load.is_silent)
        finally:
            await one.scraper.close()
            one.registry.close()


@pytest.mark.parametrize(
    ("failures", "has_traffic", "endpoints", "seconds"),
    [
        pytest.param(0, False, 1, 1.0, id="well"),
        pytest.param(0, False, 50, 1.0, id="fifty"),
        pytest.param(0, False, 200, 4.0, id="as-many-as-keep-their-connections"),
        pytest.param(0, False, 250, 12.5, id="more-than-keep-their-connections"),
        pytest.param(0, False, 1000, 50.0, id="a-thousand"),
        pytest.param(2, False, 1, 1.0, id="twice-is-chance"),
        pytest.param(3, False, 1, 5.0, id="three-times"),
        pytest.param(4, False, 1, 10.0, id="longer"),
        pytest.param(6, False, 1, 30.0, id="for-a-minute"),
        pytest.param(100_000, False, 1, 30.0, id="for-a-month"),
        pytest.param(100_000, True, 1, 5.0, id="while-others-have-traffic"),
        pytest.param(100_000, False, 1000, 50.0, id="a-thousand-that-fail"),
    ],
)
def test_how_often_who_is_at_rest_is_asked(failures: int, has_traffic: bool, endpoints: int, seconds: float) -> None:
    assert scraping.idle_interval(failures, has_traffic=has_traffic, endpoints=endpoints) == seconds


async def test_many_at_rest_are_asked_less_often_and_not_in_waves() -> None:
    """Asked for the first time all together, they come again one by one."""
    draws = iter(range(1_000_000))
    async with Pod() as pod:
        one = Scraping()
        one.scraper = MetricsScraper(
            registry=one.registry, make_transport=make_transport, draw=lambda: next(draws) % 100 / 100
        )
        try:
            endpoints = [replace(make_endpoint(*pod.address), id=f"endpoint-{number}") for number in range(100)]
            snapshot = snapshot_of(*endpoints)
            one.registry.follow(snapshot)
            one.scraper.follow(snapshot)
            loads = [one.registry.upstream(endpoint).load for endpoint in endpoints]
            await one.until(lambda: all(load.knowledge is Knowledge.FRESH for load in loads))
            first = [load.read_at for load in loads]
            assert {load.interval_seconds for load in loads} == {2.0}
            await one.until(lambda: all(load.read_at > at for load, at in zip(loads, first, strict=True)))
            later = [load.read_at - at for load, at in zip(loads, first, strict=True)]
            assert max(later) - min(later) > 0.5
        finally:
            await one.scraper.close()
            one.registry.close()


async def test_a_pod_that_closes_each_connection_is_read_again_and_again() -> None:
    async with Pod() as pod:
        pod.metrics_headers = b"Connection: close\r\n"
        async with scraping_of(pod) as one:
            assert REF.backend is not None
            one.scraper.touch(REF.backend.id)
            await pod.until_asked(5)
            assert one.load(pod).knowledge is Knowledge.FRESH


async def test_pods_come_and_go() -> None:
    async with Pod("127.1.0.1") as first, Pod("127.1.0.2") as second, scraping_of(first) as one:
        await first.until_asked()
        one.follow(first, second)
        assert len(one.scraper) == 2
        await second.until_asked()
        first.metrics_may_go.clear()
        load = one.load(first)
        load.begin()  # so that it is asked often
        await first.until_asked()
        one.follow(second)
        assert len(one.scraper) == 1
        asked = first.asked
        await second.until_asked()
        assert first.asked == asked


async def test_a_pod_of_two_pools_is_asked_until_both_have_left_it() -> None:
    other = make_ref("other")
    assert REF.backend is not None
    assert other.backend is not None
    async with Pod() as pod, scraping_of() as one:
        endpoints = (make_endpoint(*pod.address),)
        routing = Routing(rules=(make_rule(REF, other),))
        for version, pools in enumerate(([REF, other], [other], [])):
            membership = {ref.backend.id: endpoints for ref in pools if ref.backend is not None}
            snapshot = Snapshot(version=version, routing=routing, membership=MappingProxyType(membership))
            one.registry.follow(snapshot)
            one.scraper.follow(snapshot)
            assert len(one.scraper) == (len(pools) > 0)
        one.scraper.follow(snapshot_of(*endpoints))
        assert len(one.scraper) == 1
        one.scraper.follow(Snapshot(version=9, routing=Routing(), membership=MappingProxyType({})))
        assert len(one.scraper) == 0


async def test_closing_ends_every_reading() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: Conversation) -> None:
        await peer.request()
        asked.set()
        await peer.until_closed()
        ended.set()

    async with RawUpstream(script) as upstream:
        async with scraping_of(Pod(upstream.host, port=upstream.port)):
            await asyncio.wait_for(asked.wait(), 5)
        await asyncio.wait_for(ended.wait(), 0.5)


async def test_closing_ends_what_is_being_connected_to() -> None:
    with unanswered_port() as port:
        pod = Pod(port=port)
        async with scraping_of(pod) as one:
            load = one.load(pod)
            await one.until(lambda: any("_connect" in repr(task) for task in asyncio.all_tasks()))
        assert not [task for task in asyncio.all_tasks() if "_connect" in repr(task)]
        assert load.knowledge is Knowledge.UNREAD


async def test_a_name_of_the_dns_is_not_asked_and_known_by_what_is_sent_there() -> None:
    one = Scraping()
    endpoint = make_endpoint("models.example", 80)
    snapshot = snapshot_of(endpoint)
    one.registry.follow(snapshot)
    one.scraper.follow(snapshot)
    assert len(one.scraper) == 0
    assert one.registry.upstream(endpoint).load.knowledge is Knowledge.NONE
    await one.scraper.close()
