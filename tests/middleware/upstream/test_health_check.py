"""Do active checks find out who is well, for the rules that want it and for no others? Pure, and over real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType

import pytest

from app.main import make_transport
from discovery.backend import Endpoint, UpstreamTLS
from discovery.rule_policy import ActiveHealth, PassiveHealth, RulePolicy
from discovery.snapshot import Routing, Snapshot
from middleware.circuit_breaking import decide, failing_for
from middleware.upstream.breaker import Health, State
from middleware.upstream.health_check import HealthChecks
from middleware.upstream.registry import Candidate, UpstreamRegistry
from tests.support.certificates import Authority
from tests.support.exchanges import make_endpoint, make_ref, make_rule, make_upstream
from tests.support.raw_upstream import Conversation, RawUpstream

OFTEN = ActiveHealth(path=b"/health", interval_seconds=0.01, timeout_seconds=2.0)


def pool(count: int) -> tuple[Candidate, ...]:
    endpoints = [make_endpoint(f"192.0.2.{number}") for number in range(count)]
    return tuple(Candidate(endpoint, make_upstream(endpoint)) for endpoint in endpoints)


def ids(candidates: tuple[Candidate, ...]) -> set[str]:
    return {candidate.upstream.id for candidate in candidates}


def test_who_fails_is_left_out() -> None:
    found = pool(3)
    assert decide(found, [ids(found)], PassiveHealth(), failing=ids(found[1:2])) == (found[0], found[2])
    assert decide(found, [ids(found)], PassiveHealth(), failing={"somebody else"}) == found


def test_those_that_fail_count_in_panic() -> None:
    found = pool(3)
    assert decide(found, [ids(found)], PassiveHealth(), failing=ids(found[1:])) == found
    assert decide(found, [ids(found)], PassiveHealth(panic_threshold_percent=0), failing=ids(found[1:])) == found[:1]


def test_no_share_of_ejections_protects_who_fails_checks() -> None:
    found = pool(4)
    settings = PassiveHealth(max_ejection_percent=0)
    breaker = found[0].upstream.breaker(settings)
    for _ in range(5):
        breaker.report(breaker.acquire(), Health.FAILURE)
    tripped = {found[0].upstream.id: breaker}
    assert decide(found, [ids(found)], settings, tripped=tripped, failing=ids(found[3:])) == found[:3]


def test_only_rules_with_the_same_check_leave_it_out() -> None:
    registry = UpstreamRegistry(make_transport=make_transport)
    registry.failing[OFTEN] = {"pod-1"}
    assert failing_for(RulePolicy(active_health=replace(OFTEN)), registry) == {"pod-1"}
    assert failing_for(RulePolicy(active_health=replace(OFTEN, path=b"/other")), registry) == set()
    assert failing_for(RulePolicy(), registry) == set()


# -- over real sockets ----------------------------------------------------------------------------------------------


class Pod:
    """A model server whose health is what the test says; it tells when it was asked."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.requests: list[bytes] = []
        self._changed = asyncio.Condition()

    async def __call__(self, peer: Conversation) -> None:
        while True:
            request = await peer.request()
            async with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
            await peer.answer(b"ok", status=self.status)

    async def asked(self, count: int) -> None:
        """Wait until it was asked so often, all in all."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)


def snapshot_of(*endpoints: Endpoint, active: ActiveHealth | None = OFTEN) -> Snapshot:
    ref = make_ref()
    assert ref.backend is not None
    rule = make_rule(ref, policy=RulePolicy(active_health=active))
    return Snapshot(
        version=1, routing=Routing(rules=(rule,)), membership=MappingProxyType({ref.backend.id: tuple(endpoints)})
    )


@asynccontextmanager
async def following() -> AsyncIterator[tuple[UpstreamRegistry, HealthChecks]]:
    registry = UpstreamRegistry(make_transport=make_transport)
    checks = HealthChecks(registry=registry, make_transport=make_transport, draw=lambda: 0.0)
    try:
        yield registry, checks
    finally:
        await checks.close()
        registry.close()
        assert (checks.running, registry.failing) == (0, {})


def show(registry: UpstreamRegistry, checks: HealthChecks, snapshot: Snapshot) -> None:
    registry.follow(snapshot)
    checks.follow(snapshot)


async def until(checks: HealthChecks, *healthy: bool) -> None:
    """Wait until the endpoints are healthy or not, in their order."""
    async with asyncio.timeout(5):
        while [health.is_healthy for _, health in checks.states()] != list(healthy):
            await asyncio.sleep(0.005)


@pytest.mark.anyio
async def test_an_endpoint_is_pending_then_healthy_then_not_and_healthy_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pod = Pod()
    async with RawUpstream(pod) as upstream, following() as (registry, checks):
        show(registry, checks, snapshot_of(make_endpoint(upstream.host, upstream.port)))
        ((_, health),) = checks.states()
        assert (health.is_healthy, len(registry.failing), str(health)) == (False, 1, "not checked yet")
        await until(checks, True)
        assert registry.failing == {}
        pod.status = "500 Oops"
        await until(checks, False)
        assert registry.failing == {OFTEN: {f"{upstream.host}:{upstream.port}"}}
        pod.status = "200 OK"
        await until(checks, True)
        assert upstream.connections == 1  # which all checks used
    words = [record.getMessage() for record in caplog.records if "endpoint" in record.getMessage()]
    label = f"endpoint 127.0.0.1:{upstream.port} is "
    assert words == [
        f"{label}healthy",
        f"{label}unhealthy: active check failed once: status 500",
        f"{label}healthy",
    ]


@pytest.mark.anyio
async def test_checks_speak_tls_where_requests_do() -> None:
    authority, pod = Authority(), Pod()
    async with RawUpstream(pod, tls=authority.server("model.test")) as upstream, following() as (registry, checks):
        endpoint = make_endpoint(upstream.host, upstream.port)
        tls = UpstreamTLS(server_name="model.test", authorities=authority.pem)
        show(registry, checks, snapshot_of(replace(endpoint, tls=tls)))
        await until(checks, True)


@pytest.mark.anyio
async def test_another_port_can_be_asked() -> None:
    pod = Pod()
    async with RawUpstream(pod) as upstream, following() as (registry, checks):
        settings = replace(OFTEN, port=upstream.port)
        show(registry, checks, snapshot_of(make_endpoint(upstream.host, 1), active=settings))
        await until(checks, True)


@pytest.mark.anyio
async def test_nothing_is_asked_that_no_rule_wants() -> None:
    pod = Pod()
    async with RawUpstream(pod) as upstream, following() as (registry, checks):
        endpoint = make_endpoint(upstream.host, upstream.port)
        show(registry, checks, snapshot_of(endpoint, active=None))
        assert list(checks.states()) == []
        show(registry, checks, snapshot_of(endpoint))
        await until(checks, True)
        show(registry, checks, snapshot_of(endpoint, active=None))
        assert list(checks.states()) == []
        (candidate,) = registry.candidates("InferencePool/default/qwen", (endpoint,))
        assert candidate.upstream.checks == {}
        asked = len(pod.requests)
        await asyncio.sleep(0.05)  # five times the interval
        assert len(pod.requests) <= asked + 1


@pytest.mark.anyio
async def test_an_endpoint_that_has_been_used_goes_on_as_it_was_when_checks_change() -> None:
    pod = Pod()
    async with RawUpstream(pod) as upstream, following() as (registry, checks):
        endpoint = make_endpoint(upstream.host, upstream.port)
        gone = make_endpoint("127.0.0.1", 1)
        show(registry, checks, snapshot_of(endpoint, gone))
        await until(checks, True, False)
        await pod.asked(1)
        show(registry, checks, snapshot_of(endpoint, gone, active=replace(OFTEN, interval_seconds=3600.0)))
        assert [health.is_healthy for _, health in checks.states()] == [True, False]
        new = make_endpoint("127.0.0.1", 2)
        show(registry, checks, snapshot_of(endpoint, new, active=replace(OFTEN, interval_seconds=3600.0)))
        assert [health.is_healthy for _, health in checks.states()] == [True, False]
        assert list(registry.failing.values()) == [{new.id}]


@pytest.mark.anyio
async def test_an_endpoint_that_has_answered_requests_is_used_until_a_check_fails() -> None:
    pod = Pod()
    async with RawUpstream(pod) as upstream, following() as (registry, checks):
        endpoint, new = make_endpoint(upstream.host, upstream.port), make_endpoint("127.0.0.1", 1)
        show(registry, checks, snapshot_of(endpoint, new, active=None))
        (candidate, _) = registry.candidates("InferencePool/default/qwen", (endpoint, new))
        stream = await candidate.upstream.transport.send(method="GET", target=b"/", headers=[(b"host", b"h")], body=b"")
        while await stream.read():
            pass
        stream.release()
        show(registry, checks, snapshot_of(endpoint, new))
        assert [health.is_healthy for _, health in checks.states()] == [True, False]


@pytest.mark.anyio
async def test_who_passes_a_check_has_its_breaker_closed() -> None:
    pod = Pod()
    async with RawUpstream(pod) as upstream, following() as (registry, checks):
        endpoint = make_endpoint(upstream.host, upstream.port)
        shown = snapshot_of(endpoint)
        show(registry, checks, shown)
        await until(checks, True)
        (candidate,) = registry.candidates("InferencePool/default/qwen", (endpoint,))
        breaker = candidate.upstream.breaker(PassiveHealth())
        for _ in range(5):
            breaker.report(breaker.acquire(), Health.FAILURE)
        states = [breaker.state]
        await pod.asked(len(pod.requests) + 2)
        states.append(breaker.state)
        assert states == [State.OPEN, State.CLOSED]


@pytest.mark.anyio
async def test_so_many_checks_run_at_once() -> None:
    running = most = 0
    release = asyncio.Event()
    started = asyncio.Semaphore(0)

    async def slow(peer: Conversation) -> None:
        nonlocal running, most
        await peer.request()
        running += 1
        most = max(most, running)
        started.release()
        await release.wait()
        running -= 1
        await peer.answer()

    registry = UpstreamRegistry(make_transport=make_transport)
    checks = HealthChecks(registry=registry, make_transport=make_transport, draw=lambda: 0.0, max_concurrent=3)
    async with RawUpstream(slow) as upstream:
        endpoints = [replace(make_endpoint(upstream.host, upstream.port), id=f"pod-{number}") for number in range(10)]
        show(registry, checks, snapshot_of(*endpoints, active=replace(OFTEN, interval_seconds=3600.0)))
        for _ in range(3):
            await started.acquire()
        assert checks.running == 3
        release.set()
        await until(checks, *[True] * 10)
        assert most == 3
        await checks.close()
        registry.close()


@pytest.mark.anyio
async def test_closing_ends_what_is_under_way() -> None:
    asked = asyncio.Event()

    async def silent(peer: Conversation) -> None:
        await peer.request()
        asked.set()
        await peer.until_closed()

    async with RawUpstream(silent) as upstream:
        async with following() as (registry, checks):
            show(registry, checks, snapshot_of(make_endpoint(upstream.host, upstream.port)))
            await asked.wait()
            assert checks.running == 1
        await upstream.wait_ended()
        checks.follow(snapshot_of(make_endpoint(upstream.host, upstream.port)))
        assert list(checks.states()) == []
