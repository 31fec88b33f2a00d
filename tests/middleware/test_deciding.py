"""Do the pure decisions hold: the split, the pick, the retry, the redirect's location?"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.filters import Redirect, ReplacePrefix
from discovery.rule_policy import RetryPolicy, RetryTrigger
from discovery.snapshot import Refusal
from middleware.admission import location
from middleware.endpoint_picking import decide as pick_endpoint
from middleware.errors import NoEndpointsError, RefusedByConfigurationError
from middleware.load_balancing import Balancer, least_of_two
from middleware.retrying import is_keep_alive_race, may_retry, parse_retry_after, wait_before
from middleware.traffic_splitting import decide as split
from middleware.upstream.connection import ConnectionBrokenError
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Candidate
from middleware.upstream.rule_traffic import RuleTraffic
from tests.support.exchanges import (
    make_attempt,
    make_endpoint,
    make_exchange,
    make_pick,
    make_ref,
    make_rule,
    make_upstream,
)

BALANCER = Balancer(kind=None, draw=random.random, turns={})

# -- traffic splitting ----------------------------------------------------------------------------------------------

weights = st.lists(st.integers(0, 1_000_000), min_size=1, max_size=16).filter(lambda found: sum(found) > 0)


@given(weights=weights, draw=st.floats(0, 1, exclude_max=True))
def test_a_weight_of_zero_is_never_drawn(weights: list[int], draw: float) -> None:
    rule = make_rule(*(make_ref(f"default/{index}", weight=weight) for index, weight in enumerate(weights)))
    arms = split(rule, draw)
    assert len(arms) == len({arm.name for arm in arms})
    assert all(arm.weight > 0 for arm in arms)
    assert len(arms) == sum(weight > 0 for weight in weights)


@given(weights=weights)
def test_each_backend_ref_gets_exactly_its_share_of_the_unit_interval(weights: list[int]) -> None:
    rule = make_rule(*(make_ref(f"default/{index}", weight=weight) for index, weight in enumerate(weights)))
    total, start = sum(weights), 0
    for index, weight in enumerate(weights):
        if weight:
            middle = (start + weight / 2) / total
            assert split(rule, middle)[0].name == f"default/{index}"
        start += weight


def test_a_draw_that_falls_to_an_invalid_backend_ref_is_refused() -> None:
    from dataclasses import replace

    refusal = Refusal(reason="invalid_backend_ref", message="no such pool")
    broken = replace(make_ref("default/broken", weight=1), backend=None, refusal=refusal)
    rule = make_rule(make_ref("default/good", weight=1), broken)
    assert split(rule, 0.4)[0].name == "default/good"
    with pytest.raises(RefusedByConfigurationError) as caught:
        split(rule, 0.6)
    assert caught.value.reason == "invalid_backend_ref"


# -- endpoint picking -----------------------------------------------------------------------------------------------


def make_pool(*in_flight: int) -> tuple[Candidate, ...]:
    endpoints = [make_endpoint(f"192.0.2.{index}") for index in range(len(in_flight))]
    return tuple(
        Candidate(endpoint, make_upstream(endpoint, in_flight=count))
        for endpoint, count in zip(endpoints, in_flight, strict=True)
    )


def test_of_two_the_one_with_fewer_requests_is_picked() -> None:
    pool = make_pool(5, 1)
    for draw in (0.0, 0.3, 0.7, 0.999):
        assert least_of_two(pool, lambda draw=draw: draw) is pool[1]  # type: ignore[misc]


@given(count=st.integers(2, 50), draws=st.tuples(st.floats(0, 0.9999), st.floats(0, 0.9999)))
def test_the_two_choices_are_always_different_endpoints(count: int, draws: tuple[float, float]) -> None:
    remaining = list(draws)
    # With all equal the first choice wins; making it busier must move the pick.
    pool = make_pool(*([0] * count))
    first = least_of_two(pool, lambda: remaining.pop(0))
    first.upstream.in_flight = 1
    remaining = list(draws)
    assert least_of_two(pool, lambda: remaining.pop(0)) is not first


def test_load_spreads_evenly_over_equal_endpoints() -> None:
    pool, generator = make_pool(*([0] * 8)), random.Random(1)
    for _ in range(800):
        least_of_two(pool, generator.random).upstream.in_flight += 1
    counts = [candidate.upstream.in_flight for candidate in pool]
    assert max(counts) - min(counts) <= 5  # two choices: the gap does not grow with the number of requests


def test_an_endpoint_is_tried_once_before_any_is_tried_again() -> None:
    pool, arm = make_pool(0, 0, 0), make_ref()
    attempts: list[Attempt] = []
    for _ in range(3):
        pick = pick_endpoint((arm,), lambda _: pool, attempts, BALANCER.choose)
        assert pick.upstream.id not in {attempt.pick.upstream.id for attempt in attempts}
        attempts.append(make_attempt(pick))
    assert pick_endpoint((arm,), lambda _: pool, attempts, BALANCER.choose).upstream in {item.upstream for item in pool}


def test_no_endpoint_at_all_is_an_error_that_names_the_backend() -> None:
    with pytest.raises(NoEndpointsError, match="default/qwen"):
        pick_endpoint((make_ref("default/qwen"),), lambda _: (), [], BALANCER.choose)


# -- retrying -------------------------------------------------------------------------------------------------------

POLICY = RetryPolicy()


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (Outcome.CONNECT_FAILED, None, True),
        (Outcome.ANSWERED, 503, True),
        (Outcome.ANSWERED, 200, False),
        (Outcome.ANSWERED, 429, False),
        (Outcome.ANSWERED, 500, False),
        (Outcome.RESET, None, False),
        (Outcome.TIMEOUT, None, False),
        (Outcome.PROTOCOL_ERROR, None, False),
    ],
)
def test_only_what_had_no_effect_is_retried(outcome: Outcome, status: int | None, expected: bool) -> None:
    assert may_retry(POLICY, [make_attempt(make_pick(), outcome, status=status)]) is expected


@pytest.mark.parametrize(
    ("triggers", "outcome", "status", "expected"),
    [
        ({"5xx"}, Outcome.ANSWERED, 500, True),
        ({"5xx"}, Outcome.RESET, None, True),
        ({"gateway-error"}, Outcome.ANSWERED, 500, False),
        ({"gateway-error"}, Outcome.ANSWERED, 504, True),
        ({"gateway-error"}, Outcome.TIMEOUT, None, True),
        ({"reset"}, Outcome.RESET, None, True),
        ({"reset"}, Outcome.ANSWERED, 503, False),
        ({"connect-failure"}, Outcome.RESET, None, False),
        ({"retriable-4xx"}, Outcome.ANSWERED, 409, True),
        ({"retriable-4xx"}, Outcome.ANSWERED, 404, False),
        ({"retriable-status-codes"}, Outcome.ANSWERED, 503, True),
        ({"retriable-status-codes"}, Outcome.CONNECT_FAILED, None, False),
        (set(), Outcome.ANSWERED, 503, False),
    ],
)
def test_triggers_mean_what_they_mean_in_envoy(
    triggers: set[RetryTrigger], outcome: Outcome, status: int | None, expected: bool
) -> None:
    policy = RetryPolicy(triggers=frozenset(triggers))
    assert may_retry(policy, [make_attempt(make_pick(), outcome, status=status)]) is expected


def test_there_are_two_retries_and_the_keep_alive_race_is_none() -> None:
    attempts = [make_attempt(make_pick())] * 2
    assert may_retry(POLICY, attempts)
    assert may_retry(POLICY, [make_attempt(make_pick(), Outcome.STALE), *attempts])
    assert not may_retry(POLICY, [make_attempt(make_pick())] * 3)


@pytest.mark.parametrize(
    ("in_flight", "retrying", "expected"),
    [(1, 9, True), (1, 10, False), (49, 10, False), (100, 19, True), (100, 20, False)],
)
def test_retries_are_limited_to_ten_or_a_fifth_of_what_is_in_flight(
    in_flight: int, retrying: int, expected: bool
) -> None:
    traffic = RuleTraffic()
    traffic.in_flight, traffic.retries_in_flight = in_flight, retrying
    permit = traffic.retry_permit()
    assert permit.take() is expected
    assert permit.take() is expected  # taken once, however often it is asked for
    assert traffic.retries_in_flight == retrying + expected
    permit.release()
    permit.release()
    assert traffic.retries_in_flight == retrying


def test_another_endpoint_is_tried_at_once_and_the_same_one_after_a_while() -> None:
    tried = make_pick()
    attempts = [make_attempt(tried)]
    other = make_pick(make_endpoint("192.0.2.99"))
    assert wait_before(POLICY, other, attempts, retry_after_seconds=60, draw=1.0) == 0
    assert wait_before(POLICY, tried, attempts, retry_after_seconds=None, draw=1.0) == pytest.approx(0.025)
    assert wait_before(POLICY, tried, attempts * 2, retry_after_seconds=None, draw=0.5) == pytest.approx(0.0375)
    assert wait_before(POLICY, tried, attempts * 9, retry_after_seconds=None, draw=1.0) == pytest.approx(0.25)
    assert wait_before(POLICY, tried, attempts, retry_after_seconds=1.0, draw=1.0) == 1.0
    assert wait_before(POLICY, tried, attempts, retry_after_seconds=2.0, draw=1.0) is None
    patient = RetryPolicy(backoff_base_seconds=1, backoff_max_seconds=8, backs_off_always=True)
    assert wait_before(patient, other, attempts * 3, retry_after_seconds=60, draw=1.0) == 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (b"1", 1.0), (b" 0 ", 0.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", float("inf")), (b"-1", float("inf"))],
)
def test_retry_after(value: bytes | None, expected: float | None) -> None:
    assert parse_retry_after(value) == expected


@pytest.mark.parametrize(
    ("is_reused", "seconds", "has_bytes", "expected"),
    [(True, 0.01, False, True), (False, 0.01, False, False), (True, 0.3, False, False), (True, 0.01, True, False)],
)
def test_the_keep_alive_race_is_silence_at_once_on_a_reused_connection(
    is_reused: bool, seconds: float, has_bytes: bool, expected: bool
) -> None:
    error = ConnectionBrokenError("x", is_reused=is_reused, seconds_since_write=seconds, has_answer_bytes=has_bytes)
    assert is_keep_alive_race(error, []) is expected
    assert not is_keep_alive_race(error, [make_attempt(make_pick(), Outcome.STALE)])


# -- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirect", "listener_port", "expected"),
    [
        pytest.param(Redirect(), 80, b"http://gateway.example/v1/x?q=1", id="same-place"),
        pytest.param(Redirect(), 8080, b"http://gateway.example:8080/v1/x?q=1", id="listener-port"),
        pytest.param(Redirect(scheme="https"), 8080, b"https://gateway.example/v1/x?q=1", id="scheme"),
        pytest.param(
            Redirect(scheme="http", port=443), 80, b"http://gateway.example:443/v1/x?q=1", id="port-of-the-other-scheme"
        ),
        pytest.param(Redirect(port=80), 8080, b"http://gateway.example/v1/x?q=1", id="well-known-port-is-left-out"),
        pytest.param(Redirect(hostname="o.example"), 80, b"http://o.example/v1/x?q=1", id="hostname"),
        pytest.param(
            Redirect(path=ReplacePrefix(prefix=b"/v1", replacement=b"")), 80, b"http://gateway.example/x?q=1", id="path"
        ),
    ],
)
def test_the_location_of_a_redirect(redirect: Redirect, listener_port: int, expected: bytes) -> None:
    from discovery.routing_table import RoutingTable
    from discovery.snapshot import Listener

    listener = Listener(name="", hostname=None, port=listener_port, table=RoutingTable(()))
    exchange = make_exchange(method="GET", target=b"/v1/x?q=1", listener=listener)
    assert location(redirect, exchange, local_port=1) == expected
