"""Which of an arm's candidates takes the request? The load balancers of a BackendTrafficPolicy (pure)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from discovery.backend import PoolSettings
from discovery.routing_table import first_values
from discovery.rule_policy import ConsistentHash, LoadBalancer
from discovery.snapshot import BackendRef, Rule
from middleware.cookies import read_cookie
from middleware.exchange import Exchange
from middleware.upstream.registry import Candidate

_MASK = (1 << 64) - 1


@dataclass(slots=True, kw_only=True)
class Balancer:
    """One request's way of choosing: the rule's load balancer with what it needs to know of the request."""

    kind: LoadBalancer | None
    draw: Callable[[], float]
    turns: dict[str, int]  # of the rule; round robin goes on from them
    key: int | None = None  # what the request hashes to; None: nothing to hash by

    def choose(self, arm: BackendRef, pool: tuple[Candidate, ...]) -> Candidate:
        """One of ``pool``, which is not empty."""
        kind = self.kind
        if kind is None or kind == "LeastRequest":
            return least_of_two(pool, self.draw)
        if kind == "RoundRobin":
            assert arm.backend is not None  # where there is a pool
            turn = self.turns.get(arm.backend.id, 0)
            self.turns[arm.backend.id] = turn + 1
            return pool[turn % len(pool)]
        if kind == "Random" or self.key is None:
            return pool[int(self.draw() * len(pool))]
        return highest_of_all(pool, self.key)


def least_of_two(pool: tuple[Candidate, ...], draw: Callable[[], float]) -> Candidate:
    """The one with fewer requests in flight of two different candidates drawn at random.

    The power of two choices (Mitzenmacher 1996) is within a constant of the least loaded of all at the cost of two
    look-ups, and does not herd as picking the very least loaded does.
    """
    count = len(pool)
    if count == 1:
        return pool[0]
    first = int(draw() * count)
    second = int(draw() * (count - 1))
    if second >= first:
        second += 1
    one, other = pool[first], pool[second]
    return other if other.upstream.in_flight < one.upstream.in_flight else one


def highest_of_all(pool: tuple[Candidate, ...], key: int) -> Candidate:
    """The candidate with the highest score for this key: rendezvous hashing (Thaler and Ravishankar 1996).

    Each replica of the gateway finds the same one without any table, and when one goes only its own keys move.
    """
    return max(pool, key=lambda candidate: _mix(key ^ crc32(candidate.upstream.id.encode())))


def _mix(value: int) -> int:
    # The finaliser of splitmix64: every bit of the key moves every bit of the score.
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def hash_key(settings: ConsistentHash, exchange: Exchange) -> int | None:
    """What the request hashes to by the policy's settings; None when it has none of what is asked for."""
    match settings.source:
        case "SourceIP":
            parts = [exchange.peer.encode()]
        case "Headers":
            parts = [exchange.by_name[name] for name in settings.names if name in exchange.by_name]
        case "Cookie":
            value = read_cookie(exchange.by_name.get(b"cookie", b""), settings.names[0])
            parts = [] if value is None else [value]
        case "QueryParams":
            query = first_values(exchange.query)
            parts = [query[name] for name in settings.names if name in query]
    return _key_of(parts) if parts else None


def scheduled_pool(rule: Rule, arm: BackendRef) -> PoolSettings | None:
    """The pool's settings where its profile chooses among the arm's endpoints; None: the rule's load balancer does.

    That is so for backends that are no pools, and for pools where a policy asks for anything but LeastRequest, which is
    what Envoy does unasked.
    """
    kind = rule.policy.load_balancer
    if arm.backend is None or (kind is not None and kind != "LeastRequest"):
        return None
    return arm.backend.pool


def make_balancer(exchange: Exchange, draw: Callable[[], float]) -> Balancer:
    """The balancer of the request's rule. A client without the cookie that it is told apart by is given one."""
    assert exchange.rule is not None
    assert exchange.rule_traffic is not None
    kind = exchange.rule.policy.load_balancer
    balancer = Balancer(kind=kind, draw=draw, turns=exchange.rule_traffic.turns)
    if isinstance(kind, ConsistentHash):
        balancer.key = hash_key(kind, exchange)
        if balancer.key is None and kind.cookie_max_age_seconds is not None:
            value = b"%032x" % random.getrandbits(128)
            balancer.key = _key_of([value])
            age = b"; Max-Age=%d" % kind.cookie_max_age_seconds if kind.cookie_max_age_seconds else b""
            exchange.hash_cookie = kind.names[0] + b"=" + value + age + b"; HttpOnly" + kind.cookie_attributes
    return balancer


def _key_of(parts: list[bytes]) -> int:
    return int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=8).digest())
