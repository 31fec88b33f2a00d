"""Does each load balancer choose as it is named?"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.rule_policy import ConsistentHash, RulePolicy
from middleware.endpoint_picking import decide
from middleware.exchange import Exchange
from middleware.load_balancing import Balancer, hash_key, highest_of_all, make_balancer
from middleware.upstream.rule_traffic import RuleTraffic
from tests.middleware.test_deciding import make_pool
from tests.support.exchanges import make_attempt, make_exchange, make_ref, make_rule

ARM = make_ref()


def test_round_robin_goes_round_and_goes_on_where_the_last_request_left() -> None:
    pool, turns = make_pool(0, 0, 0), dict[str, int]()
    chosen = [Balancer(kind="RoundRobin", draw=random.random, turns=turns).choose(ARM, pool) for _ in range(6)]
    assert chosen == [*pool, *pool]


def test_random_looks_at_no_load() -> None:
    pool, generator = make_pool(100, 0), random.Random(1)
    balancer = Balancer(kind="Random", draw=generator.random, turns={})
    counts = Counter(balancer.choose(ARM, pool).endpoint.id for _ in range(1000))
    assert min(counts.values()) > 400


@given(keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50), gone=st.integers(0, 7))
def test_when_an_endpoint_goes_only_its_own_keys_move(keys: list[int], gone: int) -> None:
    pool = make_pool(*([0] * 8))
    left = pool[:gone] + pool[gone + 1 :]
    for key in keys:
        before = highest_of_all(pool, key)
        if before is not pool[gone]:
            assert highest_of_all(left, key) is before


def test_keys_spread_evenly() -> None:
    pool = make_pool(*([0] * 10))
    balancers = [hash_key(ConsistentHash(source="Headers", names=(b"x-user",)), user(n)) for n in range(2000)]
    counts = Counter(highest_of_all(pool, key).endpoint.id for key in balancers if key is not None)
    assert len(counts) == 10
    assert 140 < min(counts.values()) <= max(counts.values()) < 260


def user(number: int) -> Exchange:
    return make_exchange(headers=[(b"host", b"h"), (b"x-user", b"user-%d" % number)])


def test_a_retry_of_a_hashed_request_goes_to_another_endpoint_and_always_the_same() -> None:
    pool = make_pool(0, 0, 0, 0)
    balancer = Balancer(kind=ConsistentHash(source="SourceIP"), draw=random.random, turns={}, key=7)
    first = decide((ARM,), lambda _: pool, [], balancer.choose)
    second = {decide((ARM,), lambda _: pool, [make_attempt(first)], balancer.choose).endpoint.id for _ in range(20)}
    assert len(second) == 1
    assert first.endpoint.id not in second


@pytest.mark.parametrize(
    ("settings", "same", "other"),
    [
        pytest.param(
            ConsistentHash(source="Headers", names=(b"x-user",)),
            {"headers": [(b"host", b"a"), (b"x-user", b"1")]},
            {"headers": [(b"host", b"a"), (b"x-user", b"2")]},
            id="header",
        ),
        pytest.param(
            ConsistentHash(source="Cookie", names=(b"user",)),
            {"headers": [(b"cookie", b"user=1; z=1")]},
            {"headers": [(b"cookie", b"user=2; z=1")]},
            id="cookie",
        ),
        pytest.param(
            ConsistentHash(source="QueryParams", names=(b"user",)),
            {"target": b"/v1/x?user=1&user=2"},
            {"target": b"/v1/x?user=2&user=1"},
            id="query-where-the-first-counts",
        ),
        pytest.param(
            ConsistentHash(source="QueryParams", names=("größe".encode(),)),
            {"target": b"/v1/x?gr%C3%B6%C3%9Fe=%E4%BD%A0"},
            {"target": b"/v1/x?gr%C3%B6%C3%9Fe=%FF"},
            id="query-beyond-ascii",
        ),
    ],
)
def test_what_is_hashed_is_what_the_policy_names(
    settings: ConsistentHash, same: dict[str, Any], other: dict[str, Any]
) -> None:
    key = hash_key(settings, make_exchange(**same))
    assert key is not None
    assert key == hash_key(settings, make_exchange(**same))
    assert key != hash_key(settings, make_exchange(**other))
    assert hash_key(settings, make_exchange()) is None


def test_a_client_without_the_cookie_is_given_one_that_finds_its_endpoint_again() -> None:
    settings = ConsistentHash(
        source="Cookie", names=(b"user",), cookie_max_age_seconds=60, cookie_attributes=b"; Secure"
    )
    rule = make_rule(ARM, policy=RulePolicy(load_balancer=settings))
    exchange = make_exchange(rule=rule, rule_traffic=RuleTraffic())
    given_key = make_balancer(exchange, random.random).key
    assert exchange.hash_cookie is not None
    value, *attributes = exchange.hash_cookie.split(b"; ")
    assert attributes == [b"Max-Age=60", b"HttpOnly", b"Secure"]
    back = make_exchange(headers=[(b"cookie", value)], rule=rule, rule_traffic=RuleTraffic())
    assert make_balancer(back, random.random).key == given_key
    assert back.hash_cookie is None
