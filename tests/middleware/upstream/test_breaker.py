"""Does the breaker keep its promises, whatever the order of attempts, results and time?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from discovery.rule_policy import PassiveHealth, RulePolicy
from discovery.snapshot import Routing, SnapshotStore
from middleware.circuit_breaking import decide
from middleware.upstream.breaker import NO_PERMIT, Breaker, Health, Permit, State
from middleware.upstream.registry import Candidate, UpstreamRegistry
from middleware.upstream.transport import UpstreamTransport
from tests.support.exchanges import make_endpoint, make_ref, make_rule, make_upstream


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


SETTINGS = PassiveHealth(consecutive_failures=3, base_ejection_seconds=10, interval_seconds=1)


def trip(breaker: Breaker) -> None:
    while breaker.state is not State.OPEN:
        breaker.report(breaker.acquire(), Health.GATEWAY_FAILURE)


def is_in(breaker: Breaker, state: State) -> bool:
    return breaker.state is state


def make(settings: PassiveHealth = SETTINGS) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(settings, clock=clock), clock


def test_consecutive_failures_trip_and_a_success_between_starts_over() -> None:
    breaker, _ = make()
    for health in (Health.FAILURE, Health.GATEWAY_FAILURE, Health.SUCCESS, Health.FAILURE, Health.FAILURE):
        breaker.report(breaker.acquire(), health)
    assert is_in(breaker, State.CLOSED)
    assert breaker.report(breaker.acquire(), Health.FAILURE)
    assert is_in(breaker, State.OPEN)
    assert not breaker.admits()


def test_what_says_nothing_neither_trips_nor_starts_over() -> None:
    breaker, _ = make()
    for health in (Health.FAILURE, Health.NOTHING, Health.FAILURE, Health.NOTHING, Health.NOTHING):
        breaker.report(breaker.acquire(), health)
    assert is_in(breaker, State.CLOSED)
    breaker.report(breaker.acquire(), Health.FAILURE)
    assert is_in(breaker, State.OPEN)


def test_gateway_errors_have_a_count_of_their_own() -> None:
    breaker, _ = make(PassiveHealth(consecutive_failures=None, consecutive_gateway_errors=2))
    for health in (Health.GATEWAY_FAILURE, Health.FAILURE, Health.GATEWAY_FAILURE):
        breaker.report(breaker.acquire(), health)
    assert is_in(breaker, State.CLOSED)
    breaker.report(breaker.acquire(), Health.GATEWAY_FAILURE)
    assert is_in(breaker, State.OPEN)


def test_after_its_time_exactly_one_probe_is_admitted_and_its_success_closes() -> None:
    breaker, clock = make()
    trip(breaker)
    clock.now += 9.99
    assert not breaker.admits()
    clock.now += 0.01
    assert breaker.admits()
    probe = breaker.acquire()
    assert probe.is_probe
    assert is_in(breaker, State.HALF_OPEN)
    assert not breaker.admits()
    assert not breaker.acquire().is_probe
    breaker.report(probe, Health.SUCCESS)
    assert is_in(breaker, State.CLOSED)


def test_a_probe_that_fails_opens_again_for_longer() -> None:
    breaker, clock = make()
    trip(breaker)
    clock.now += 10
    for times in (2, 3, 4):
        breaker.report(breaker.acquire(), Health.FAILURE)
        assert is_in(breaker, State.OPEN)
        clock.now += 10 * times - 0.01
        assert not breaker.admits()
        clock.now += 0.01
        assert breaker.admits()


def test_a_probe_whose_client_leaves_makes_room_for_the_next() -> None:
    breaker, clock = make()
    trip(breaker)
    clock.now += 10
    breaker.report(breaker.acquire(), Health.NOTHING)
    assert is_in(breaker, State.HALF_OPEN)
    assert breaker.admits()


def test_the_first_byte_of_a_probe_closes_and_what_follows_counts_anew() -> None:
    breaker, clock = make()
    trip(breaker)
    clock.now += 10
    permit = breaker.first_byte(breaker.acquire())
    assert is_in(breaker, State.CLOSED)
    breaker.report(permit, Health.GATEWAY_FAILURE)
    breaker.report(breaker.acquire(), Health.GATEWAY_FAILURE)
    assert is_in(breaker, State.CLOSED)
    breaker.report(breaker.acquire(), Health.GATEWAY_FAILURE)
    assert is_in(breaker, State.OPEN)


def test_late_result_of_an_older_generation_is_ignored() -> None:
    breaker, clock = make()
    late = [breaker.acquire() for _ in range(5)]
    trip(breaker)
    for permit in late:
        assert not breaker.report(permit, Health.FAILURE)
    clock.now += 10
    breaker.report(breaker.acquire(), Health.SUCCESS)
    for permit in late:
        assert not breaker.report(permit, Health.FAILURE)
    assert is_in(breaker, State.CLOSED)


def test_ejections_grow_to_a_limit_and_healthy_intervals_take_it_back() -> None:
    breaker, clock = make(
        PassiveHealth(consecutive_failures=1, base_ejection_seconds=10, max_ejection_seconds=25, interval_seconds=5)
    )

    def ejection() -> float:
        trip(breaker)
        start = clock.now
        while not breaker.admits():
            clock.now += 0.5
        took = clock.now - start
        breaker.report(breaker.acquire(), Health.SUCCESS)
        return took

    assert [ejection() for _ in range(4)] == [10, 20, 25, 25]
    clock.now += 100
    assert ejection() == 10


class BreakerMachine(RuleBasedStateMachine):
    """Attempts start and end in any order while time passes."""

    permits = Bundle("permits")

    @initialize(threshold=st.integers(1, 4))
    def start(self, threshold: int) -> None:
        self.clock = Clock()
        self.changes: list[tuple[State, State]] = []
        self.breaker = Breaker(
            PassiveHealth(consecutive_failures=threshold, base_ejection_seconds=10),
            clock=self.clock,
            on_change=lambda breaker, old, new: self.changes.append((old, new)),
        )
        self.probes = 0

    @rule(target=permits)
    def acquire(self) -> Permit:
        was_admitted, was_closed = self.breaker.admits(), self.breaker.state is State.CLOSED
        permit = self.breaker.acquire()
        assert permit.is_probe == (was_admitted and not was_closed)
        if not was_admitted:
            assert permit == NO_PERMIT
        self.probes += permit.is_probe
        return permit

    @rule(permit=consumes(permits), health=st.sampled_from(Health))
    def report(self, permit: Permit, health: Health) -> None:
        before = self.breaker.state
        self.breaker.report(permit, health)
        if permit == NO_PERMIT:
            assert self.breaker.state is before
        self.probes -= permit.is_probe

    @rule(target=permits, permit=consumes(permits))
    def first_byte(self, permit: Permit) -> Permit:
        self.probes -= permit.is_probe
        after = self.breaker.first_byte(permit)
        self.probes += after.is_probe
        return after

    @rule(seconds=st.floats(0, 400))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "breaker"):
            allowed = {
                (State.CLOSED, State.OPEN),
                (State.OPEN, State.HALF_OPEN),
                (State.HALF_OPEN, State.OPEN),
                (State.HALF_OPEN, State.CLOSED),
            }
            assert set(self.changes) <= allowed
            if self.breaker.state is State.CLOSED:
                assert self.breaker.admits()


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# -- which endpoints may be tried -----------------------------------------------------------------------------------


def make_pool(total: int, ejected: int, settings: PassiveHealth = SETTINGS) -> tuple[Candidate, ...]:
    endpoints = [make_endpoint(f"192.0.2.{index}") for index in range(total)]
    pool = tuple(Candidate(endpoint, make_upstream(endpoint)) for endpoint in endpoints)
    for candidate in pool[:ejected]:
        trip(candidate.upstream.breaker(settings))
    return pool


def left_of(
    pool: tuple[Candidate, ...], levels: Sequence[tuple[Candidate, ...]], settings: PassiveHealth
) -> tuple[Candidate, ...]:
    """`decide` with what the registry would tell of these endpoints' breakers."""
    breakers = {c.upstream.id: c.upstream.breaker(settings) for level in levels for c in level}
    tripped = {upstream_id: breaker for upstream_id, breaker in breakers.items() if breaker.state is not State.CLOSED}
    ids = [frozenset(candidate.upstream.id for candidate in level) for level in levels]
    return decide(pool, ids, settings, tripped=tripped)


@pytest.mark.parametrize(
    ("total", "ejected", "left"),
    [
        pytest.param(4, 0, 4, id="none-ejected"),
        pytest.param(4, 1, 3, id="one-ejected"),
        pytest.param(4, 2, 2, id="half-ejected"),
        pytest.param(4, 3, 4, id="panic"),
        pytest.param(1, 1, 1, id="a-single-endpoint-is-panic"),
    ],
)
def test_ejected_endpoints_are_left_out_until_too_few_remain(total: int, ejected: int, left: int) -> None:
    pool = make_pool(total, ejected)
    assert len(left_of(pool, [pool], SETTINGS)) == left


def test_panic_looks_at_the_whole_rule_and_not_at_one_arm() -> None:
    pool = make_pool(2, 2)
    others = tuple(
        Candidate(endpoint, make_upstream(endpoint))
        for endpoint in (make_endpoint(f"198.51.100.{n}") for n in range(2))
    )
    assert left_of(pool, [pool + others], SETTINGS) == ()
    assert left_of(pool, [pool], SETTINGS) == pool


def test_no_more_than_the_allowed_share_is_ejected() -> None:
    limited = PassiveHealth(consecutive_failures=3, max_ejection_percent=25)
    pool = make_pool(4, 2, limited)
    assert len(left_of(pool, [pool], limited)) == 3
    few = PassiveHealth(consecutive_failures=3, max_ejection_percent=10)
    pool = make_pool(4, 2, few)
    assert len(left_of(pool, [pool], few)) == 4


def test_a_priority_that_can_carry_everything_keeps_the_rule_out_of_panic() -> None:
    first = make_pool(4, 4)
    fallback = (Candidate(endpoint := make_endpoint("198.51.100.1"), make_upstream(endpoint)),)
    assert left_of(first, [first, fallback], SETTINGS) == ()  # one endpoint of five is left, and it is a priority whole
    assert left_of(first, [first], SETTINGS) == first


def test_breakers_of_settings_that_no_rule_has_any_more_are_forgotten() -> None:
    registry = UpstreamRegistry(
        make_transport=lambda endpoint: UpstreamTransport(address=endpoint.address, port=endpoint.port)
    )
    endpoint, store = make_endpoint(), SnapshotStore()
    store.subscribe(registry.follow)

    def publish(settings: PassiveHealth) -> None:
        rule = make_rule(make_ref(), policy=RulePolicy(passive_health=settings))
        store.publish(Routing(rules=(rule,)), {"b": (endpoint,)})

    publish(SETTINGS)
    upstream = registry.upstream(endpoint)
    trip(upstream.breaker(SETTINGS))
    publish(SETTINGS)
    assert [breaker.state for breaker in upstream.breakers] == [State.OPEN]
    for failures in range(4, 20):
        publish(PassiveHealth(consecutive_failures=failures))
        upstream.breaker(PassiveHealth(consecutive_failures=failures))
    trip(upstream.breaker(SETTINGS))  # a request that began before the reloads
    assert len(list(upstream.breakers)) == 1
    assert not registry.tripped
