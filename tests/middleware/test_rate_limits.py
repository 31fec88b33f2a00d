"""Do token buckets let through what a limit allows, client by client, and outlive reloads? The test moves the clock."""

from __future__ import annotations

import ipaddress
import tracemalloc
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.compile.matches import compile_regex
from discovery.rate_limit import AddressSelector, ClientSelector, PathSelector, RateLimit, ValueSelector
from discovery.route_entry import PathKind, Pattern
from discovery.rule_policy import FaultInjection, RulePolicy
from discovery.snapshot import Routing, Rule, Snapshot
from middleware import faults
from middleware.errors import RateLimitedError
from middleware.exchange import Exchange
from middleware.rate_limits import MAX_CLIENT_BUCKETS, RateLimiter, decide
from tests.support.exchanges import make_exchange, make_ref, make_rule


class Clock:
    """The time, which moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limit(requests: int = 2, *selectors: ClientSelector, **fields: Any) -> RateLimit:
    return RateLimit(requests=requests, unit="Second", unit_seconds=1.0, selectors=selectors, **fields)


def rule_with(*limits: RateLimit) -> Rule:
    return make_rule(make_ref(), policy=RulePolicy(rate_limits=limits))


def asked(*headers: tuple[bytes, bytes], **fields: Any) -> Exchange:
    return make_exchange(headers=[(b"host", b"h"), *headers], **fields)


def is_admitted(limiter: RateLimiter, rule: Rule, exchange: Exchange | None = None) -> bool:
    try:
        limiter.admit(rule, exchange or asked())
    except RateLimitedError:
        return False
    return True


USER = ClientSelector(headers=(ValueSelector(name=b"x-user"),))
RED = ClientSelector(headers=(ValueSelector(name=b"x-team", pattern=Pattern(name=b"x-team", value=b"red")),))
NOT_RED = ClientSelector(
    headers=(ValueSelector(name=b"x-team", pattern=Pattern(name=b"x-team", value=b"red"), is_inverted=True),)
)
TEN = ipaddress.ip_network("192.0.2.0/24")


@pytest.mark.parametrize(
    ("selector", "exchange", "expected"),
    [
        pytest.param(RED, asked((b"x-team", b"red")), True, id="header"),
        pytest.param(RED, asked((b"x-team", b"blue")), False, id="other-value"),
        pytest.param(RED, asked(), False, id="no-header"),
        pytest.param(NOT_RED, asked((b"x-team", b"red")), False, id="inverted"),
        pytest.param(NOT_RED, asked(), True, id="inverted-and-absent"),
        pytest.param(USER, asked((b"x-user", b"a")), True, id="distinct"),
        pytest.param(USER, asked(), False, id="distinct-and-absent"),
        pytest.param(ClientSelector(methods=(("GET", False),)), asked(), False, id="method"),
        pytest.param(ClientSelector(methods=(("GET", False), ("POST", False))), asked(), True, id="one-of-the-methods"),
        pytest.param(ClientSelector(methods=(("POST", True),)), asked(), False, id="any-other-method"),
        pytest.param(
            ClientSelector(path=PathSelector(kind=PathKind.PREFIX, value="/v1")),
            asked(target=b"/v1x"),
            False,
            id="prefix-by-elements",
        ),
        pytest.param(
            ClientSelector(path=PathSelector(kind=PathKind.PREFIX, value="/v1")),
            asked(target=b"/v1?a"),
            True,
            id="prefix",
        ),
        pytest.param(
            ClientSelector(path=PathSelector(kind=PathKind.PREFIX, value="")), asked(), True, id="prefix-of-all"
        ),
        pytest.param(
            ClientSelector(path=PathSelector(kind=PathKind.EXACT, value="/a", is_inverted=True)),
            asked(target=b"/a"),
            False,
            id="exact-inverted",
        ),
        pytest.param(
            ClientSelector(
                path=PathSelector(kind=PathKind.REGULAR_EXPRESSION, value="/v./x", regex=compile_regex("/v./x"))
            ),
            asked(target=b"/v1/xy"),
            False,
            id="expressions-match-in-full",
        ),
        pytest.param(
            ClientSelector(query=(ValueSelector(name=b"k", pattern=Pattern(name=b"k", value=b"a b")),)),
            asked(target=b"/x?k=a%20b&k=c"),
            True,
            id="query-decoded-first-value",
        ),
        pytest.param(ClientSelector(address=AddressSelector(network=TEN)), asked(peer="192.0.2.9"), True, id="address"),
        pytest.param(
            ClientSelector(address=AddressSelector(network=TEN)), asked(peer="::ffff:192.0.2.9"), True, id="mapped"
        ),
        pytest.param(
            ClientSelector(address=AddressSelector(network=TEN)), asked(peer="198.51.100.1"), False, id="elsewhere"
        ),
        pytest.param(
            ClientSelector(address=AddressSelector(network=TEN, is_inverted=True)),
            asked(peer="::1"),
            True,
            id="outside",
        ),
        pytest.param(ClientSelector(address=AddressSelector(network=TEN)), asked(peer="unix"), False, id="no-address"),
    ],
)
def test_selectors(selector: ClientSelector, exchange: Exchange, *, expected: bool) -> None:
    assert bool(decide((limit(1, selector),), exchange)) is expected


def test_all_selectors_of_a_limit_must_hold() -> None:
    both = (limit(1, RED, USER),)
    assert not decide(both, asked((b"x-team", b"red")))
    assert decide(both, asked((b"x-team", b"red"), (b"x-user", b"a")))


def test_the_limit_without_selectors_is_for_whom_no_other_holds() -> None:
    limits = (limit(5), limit(1, RED))
    assert [item.limit.requests for item in decide(limits, asked())] == [5]
    assert [item.limit.requests for item in decide(limits, asked((b"x-team", b"red")))] == [1]
    assert decide((limit(1, RED),), asked()) == []


def test_values_that_tell_clients_apart_are_not_kept() -> None:
    (held,) = decide((limit(1, USER),), asked((b"x-user", b"sk-secret")))
    assert len(held.client) == 16
    assert b"sk-secret" not in held.client


def test_a_bucket_empties_and_fills_evenly() -> None:
    clock = Clock()
    limiter, rule = RateLimiter(clock=clock), rule_with(limit(2))
    assert [is_admitted(limiter, rule) for _ in range(3)] == [True, True, False]
    clock.now += 0.5
    assert [is_admitted(limiter, rule) for _ in range(2)] == [True, False]
    clock.now += 60
    assert [is_admitted(limiter, rule) for _ in range(3)] == [True, True, False]


@given(steps=st.lists(st.floats(0, 0.7), max_size=60))
def test_in_no_second_more_than_the_limit_and_what_was_saved_is_let_through(steps: list[float]) -> None:
    clock = Clock()
    limiter, rule, admitted = RateLimiter(clock=clock), rule_with(limit(3)), []
    for step in steps:
        clock.now += step
        if is_admitted(limiter, rule):
            admitted.append(clock.now)
    for start in admitted:
        assert sum(start <= moment < start + 1 for moment in admitted) <= 3 + 3


def test_what_a_refused_client_is_told() -> None:
    clock = Clock()
    limiter = RateLimiter(clock=clock)
    rule = rule_with(RateLimit(requests=1, unit="Minute", unit_seconds=60.0))
    first = asked()
    limiter.admit(rule, first)
    assert dict(first.answer_additions) == {
        b"x-ratelimit-limit": b"1",
        b"x-ratelimit-remaining": b"0",
        b"x-ratelimit-reset": b"60",
    }
    clock.now += 20.5
    second = asked()
    with pytest.raises(RateLimitedError) as caught:
        limiter.admit(rule, second)
    assert caught.value.retry_after_seconds == pytest.approx(39.5)
    assert (caught.value.status, caught.value.reason) == (429, "rate_limited")
    assert dict(second.answer_additions)[b"x-ratelimit-reset"] == b"40"


def test_each_client_has_its_own_bucket() -> None:
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(1, USER))
    one, two = asked((b"x-user", b"1")), asked((b"x-user", b"2"))
    assert [is_admitted(limiter, rule, who) for who in (one, two, one, two, asked())] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_parts_of_a_client_s_key_cannot_be_shifted() -> None:
    selector = ClientSelector(headers=(ValueSelector(name=b"a"), ValueSelector(name=b"b")))
    (one,) = decide((limit(1, selector),), asked((b"a", b"xy"), (b"b", b"z")))
    (two,) = decide((limit(1, selector),), asked((b"a", b"x"), (b"b", b"yz")))
    assert one.client != two.client


def test_a_request_takes_from_all_limits_or_from_none() -> None:
    clock = Clock()
    strict, loose = limit(1, RED), limit(3, USER)
    limiter, rule = RateLimiter(clock=clock), rule_with(strict, loose)
    who = asked((b"x-team", b"red"), (b"x-user", b"a"))
    assert [is_admitted(limiter, rule, who) for _ in range(3)] == [True, False, False]
    assert dict(who.answer_additions)[b"x-ratelimit-limit"] == b"1"
    other = asked((b"x-user", b"a"))
    assert [is_admitted(limiter, rule, other) for _ in range(3)] == [True, True, False]


def test_a_cost_takes_more_and_a_cost_of_nothing_only_asks() -> None:
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(5, cost=2))
    assert [is_admitted(limiter, rule) for _ in range(3)] == [True, True, False]
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(1, RED, cost=0), limit(1, USER))
    red = asked((b"x-team", b"red"))
    assert all(is_admitted(limiter, rule, red) for _ in range(5))


def test_a_shadow_limit_refuses_nothing_and_counts() -> None:
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(1, is_shadow=True))
    assert all(is_admitted(limiter, rule) for _ in range(3))
    assert limiter.shadowed == {(rule.route, rule.name): 2}


def test_headers_can_be_turned_off() -> None:
    exchange = asked()
    RateLimiter(clock=Clock()).admit(rule_with(limit(1, tells=False)), exchange)
    assert exchange.answer_additions == ()


def snapshot(*rules: Rule) -> Snapshot:
    return Snapshot(version=1, routing=Routing(rules=rules), membership=MappingProxyType({}))


def test_an_equal_limit_keeps_its_buckets_over_a_reload_and_a_changed_one_starts_anew() -> None:
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(1, RED), limit(1))
    limiter.follow(snapshot(rule))
    assert is_admitted(limiter, rule)
    same = rule_with(limit(1), limit(1, RED, field="elsewhere"))
    limiter.follow(snapshot(same))
    assert not is_admitted(limiter, same)
    changed = rule_with(limit(2))
    limiter.follow(snapshot(changed))
    assert is_admitted(limiter, changed)
    limiter.follow(snapshot(same))
    assert is_admitted(limiter, same)  # forgotten while no rule had it


def test_a_shared_limit_is_one_for_all_rules_of_its_policy() -> None:
    from dataclasses import replace

    limiter = RateLimiter(clock=Clock())
    one = rule_with(limit(1, shared_by="default/p"))
    two = replace(one, id="HTTPRoute/default/llm/1")
    limiter.follow(snapshot(one, two))
    assert [is_admitted(limiter, one), is_admitted(limiter, two)] == [True, False]
    limiter.follow(snapshot(two))
    assert not is_admitted(limiter, two)


def test_at_the_bound_full_buckets_make_room_and_newcomers_share_one() -> None:
    clock = Clock()
    limiter = RateLimiter(clock=clock, max_client_buckets=3)
    rule = rule_with(limit(1, USER))

    def come(name: int) -> bool:
        return is_admitted(limiter, rule, asked((b"x-user", b"%d" % name)))

    assert [come(number) for number in range(3)] == [True, True, True]
    assert [come(number) for number in (3, 4, 5)] == [True, False, False]  # together they have what one has
    assert limiter.client_buckets == 3
    assert not come(0)  # nobody who has used his share is forgotten
    clock.now += 1
    assert [come(number) for number in (6, 7, 8)] == [True, True, True]
    assert limiter.client_buckets == 3


def test_buckets_of_a_limit_that_is_gone_make_room() -> None:
    limiter = RateLimiter(clock=Clock(), max_client_buckets=1)
    old, new = rule_with(limit(1, USER)), rule_with(limit(9, USER))
    limiter.follow(snapshot(old))
    assert is_admitted(limiter, old, asked((b"x-user", b"a")))
    limiter.follow(snapshot(new))
    assert all(is_admitted(limiter, new, asked((b"x-user", b"b"))) for _ in range(9))
    assert limiter.client_buckets == 1


def test_looking_takes_nothing() -> None:
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(2, USER))
    (held,) = decide(rule.policy.rate_limits, asked((b"x-user", b"a")))
    assert limiter.remaining(rule, held) == 2
    assert limiter.client_buckets == 0
    assert is_admitted(limiter, rule, asked((b"x-user", b"a")))
    assert limiter.remaining(rule, held) == 1


@pytest.mark.parametrize(
    ("settings", "draws", "expected"),
    [
        (FaultInjection(delay_seconds=2), [0.99], (2, None)),
        (FaultInjection(delay_seconds=2, delay_percent=50), [0.5], (0, None)),
        (FaultInjection(delay_seconds=2, delay_percent=50, abort_status=503), [0.49, 0.9], (2, 503)),
        (FaultInjection(abort_status=503, abort_percent=0.1), [0.0009], (0, 503)),
        (FaultInjection(abort_status=503, abort_percent=0.1), [0.001], (0, None)),
    ],
)
def test_faults_are_drawn_each_for_itself(
    settings: FaultInjection, draws: list[float], expected: tuple[float, int | None]
) -> None:
    assert faults.decide(settings, lambda: draws.pop(0)) == expected
    assert draws == []


def test_the_most_clients_buckets_that_there_can_be_take_about_12_mb() -> None:
    limiter, rule = RateLimiter(clock=Clock()), rule_with(limit(2, USER))
    clients, exchange = 5_000, asked((b"x-user", b"first"))
    limiter.admit(rule, exchange)
    tracemalloc.start()
    try:
        for number in range(clients):
            exchange.by_name[b"x-user"] = b"%d" % number
            limiter.admit(rule, exchange)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert limiter.client_buckets > clients
    assert taken / clients * MAX_CLIENT_BUCKETS < 14_000_000
