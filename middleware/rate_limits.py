"""May this client have one more request now? Token buckets by limit and client, which outlive reloads.

A bucket holds at most a limit's requests and fills evenly, as Envoy's local rate limit does; each process counts for
itself. All limits that hold for a request must have a token for it, and only then does it take one of each. A limit
without selectors is for requests that no other one holds for.

Clients that a limit tells apart (Distinct) have a bucket each, known by a digest: the value may be a key. Of those
buckets there are at most so many in the process. A full one says nothing, so it makes room; when none is full, the
clients that have no bucket yet share one per limit: the gateway forgets nobody who has used his share, and lets through
no more than the policy says.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from discovery.rate_limit import AddressSelector, ClientSelector, PathSelector, RateLimit, ValueSelector
from discovery.route_entry import PathKind
from discovery.routing_table import first_values
from discovery.snapshot import Routing, Rule, Snapshot
from middleware.errors import RateLimitedError
from middleware.exchange import Exchange

MAX_CLIENT_BUCKETS = 50_000  # of all limits together: about 12 MB
_EXAMINED = 8  # buckets that are looked at to make room for one
_NEARLY = 1e-9  # what float arithmetic may leave missing of a whole token


class Held(NamedTuple):
    """A limit that holds for a request, and the client whose bucket it is; b"" where clients are not told apart."""

    limit: RateLimit
    client: bytes = b""


def decide(limits: Sequence[RateLimit], exchange: Exchange) -> list[Held]:
    """The limits that hold for a request, the strictest first."""
    held: list[Held] = []
    default: RateLimit | None = None
    for limit in limits:
        if not limit.selectors:
            default = limit
            continue
        parts: list[bytes] = []
        if all(_holds(selector, exchange, parts) for selector in limit.selectors):
            held.append(Held(limit, _digest(parts) if parts else b""))
    if not held:
        return [] if default is None else [Held(default)]
    if len(held) > 1:
        held.sort(key=lambda item: item.limit.requests / item.limit.unit_seconds)
    return held


def _holds(selector: ClientSelector, exchange: Exchange, parts: list[bytes]) -> bool:
    """Whether all of a selector holds; what tells clients apart is put into ``parts``."""
    if selector.methods and not any((exchange.method == name) != inverted for name, inverted in selector.methods):
        return False
    if selector.path is not None and not _path_holds(selector.path, exchange.path):
        return False
    if selector.address is not None and not _address_holds(selector.address, exchange.peer, parts):
        return False
    if not all(_value_holds(header, exchange.by_name.get(header.name), parts) for header in selector.headers):
        return False
    if selector.query:
        values = first_values(exchange.query)
        return all(_value_holds(parameter, values.get(parameter.name), parts) for parameter in selector.query)
    return True


def _value_holds(selector: ValueSelector, value: bytes | None, parts: list[bytes]) -> bool:
    if selector.pattern is not None:
        return selector.pattern.accepts(value) != selector.is_inverted
    if value is None:
        return False
    parts.append(value)
    return True


def _path_holds(selector: PathSelector, path: str) -> bool:
    if selector.kind is PathKind.EXACT:
        holds = path == selector.value
    elif selector.kind is PathKind.PREFIX:
        holds = path.startswith(selector.value) and path[len(selector.value) :][:1] in ("", "/")
    else:
        assert selector.regex is not None
        holds = selector.regex.fullmatch(path.encode("latin-1")) is not None
    return holds != selector.is_inverted


def _address_holds(selector: AddressSelector, peer: str, parts: list[bytes]) -> bool:
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ipaddress.ip_address(peer)
    except ValueError:
        address = None  # a server that does not say: nobody is told apart from it, and no range holds it
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if (address is not None and address in selector.network) == selector.is_inverted:
        return False
    if selector.is_distinct:
        parts.append(b"" if address is None else address.packed)
    return True


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:%b" % (len(part), part))
    return digest.digest()


class _Table:
    """One limit's buckets: what it says, and whether any rule still says it."""

    __slots__ = ("is_gone", "limit", "number", "overflow", "rate", "whole")

    def __init__(self, limit: RateLimit, number: int, now: float) -> None:
        self.limit = limit
        self.number = b"%d/" % number
        self.rate = limit.requests / limit.unit_seconds
        self.whole = _Bucket(self, now)  # of requests whose clients are not told apart
        self.overflow: _Bucket | None = None  # of clients that there was no room for
        self.is_gone = False


class _Bucket:
    """Tokens as of a moment; full when it is made."""

    __slots__ = ("_filled_at", "_table", "tokens")

    def __init__(self, table: _Table, now: float) -> None:
        self._table = table
        self._filled_at = now
        self.tokens = float(table.limit.requests)

    def fill(self, now: float) -> None:
        """Add what has come since."""
        limit = self._table.limit
        self.tokens = min(float(limit.requests), self.tokens + (now - self._filled_at) * self._table.rate)
        self._filled_at = now

    def wait_seconds(self, tokens: float) -> float:
        """How long until there are so many; 0 when there are."""
        missing = tokens - self.tokens
        return missing / self._table.rate if missing > _NEARLY else 0.0

    def says_nothing(self, now: float) -> bool:
        """Whether a new one would be the same, or nobody asks any more."""
        self.fill(now)
        return self._table.is_gone or self._table.limit.requests - self.tokens <= _NEARLY


class RateLimiter:
    """The buckets of all rules. Single-threaded: nothing is awaited between looking and taking."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, max_client_buckets: int = MAX_CLIENT_BUCKETS
    ) -> None:
        self._clock = clock
        self._max_client_buckets = max_client_buckets
        self._tables: dict[tuple[str, RateLimit], _Table] = {}
        self._of_rule: dict[str, tuple[tuple[RateLimit, ...], dict[int, _Table]]] = {}
        self._clients: OrderedDict[bytes, _Bucket] = OrderedDict()  # the one that was used longest ago first
        self._made = 0
        self._routing: Routing | None = None  # of the newest snapshot
        self.shadowed: dict[tuple[str, str], int] = {}  # (route, rule) -> requests that a shadow limit would refuse

    @property
    def client_buckets(self) -> int:
        """How many clients have a bucket of their own."""
        return len(self._clients)

    def admit(self, rule: Rule, exchange: Exchange) -> None:
        """Take the request's tokens. Raises RateLimitedError when one of the limits has none.

        Either way what x-ratelimit-* headers say of the limit that refuses, else of the strictest, is left for the
        answer.
        """
        held = decide(rule.policy.rate_limits, exchange)
        if not held:
            return
        now = self._clock()
        buckets = [self._bucket(rule, item, now, is_use=True) for item in held]
        refusing: int | None = None
        longest = 0.0
        for number, (limit, _) in enumerate(held):
            wait = buckets[number].wait_seconds(max(1, limit.cost))
            if wait <= 0.0:
                continue
            if limit.is_shadow:
                key = (rule.route, rule.name)
                self.shadowed[key] = self.shadowed.get(key, 0) + 1
            elif wait > longest:
                refusing, longest = number, wait
        if refusing is None:
            for bucket, (limit, _) in zip(buckets, held, strict=True):
                bucket.tokens = max(0.0, bucket.tokens - limit.cost)
        tells = exchange.listener is None or exchange.listener.tells_rate_limits
        told = refusing if refusing is not None else next((i for i, (limit, _) in enumerate(held) if limit.tells), None)
        if tells and told is not None and held[told].limit.tells:
            exchange.answer_additions = _headers(held[told].limit, buckets[told])
        if refusing is not None:
            limit = held[refusing].limit
            unit = limit.unit.lower()
            raise RateLimitedError(
                f"Too many requests: {limit.requests} per {unit} are allowed.", retry_after_seconds=longest
            )

    def remaining(self, rule: Rule, held: Held) -> float:
        """How many tokens there are now. Takes none and makes no bucket for the client."""
        return self._bucket(rule, held, self._clock(), is_use=False).tokens

    def follow(self, snapshot: Snapshot) -> None:
        """Forget limits that no rule has any more; those that are the same keep their buckets."""
        if snapshot.routing is self._routing:
            return
        self._routing = snapshot.routing
        self._of_rule.clear()
        if not self._tables:
            return
        # All rules of a policy have the very same tuple of limits, so that this asks few questions.
        given = {id(rule.policy.rate_limits): rule.policy.rate_limits for rule in snapshot.routing.rules}
        shared = {(limit.shared_by, limit) for limits in given.values() for limit in limits if limit.shared_by}
        own = {rule.id: rule.policy.rate_limits for rule in snapshot.routing.rules}
        for owner, limit in list(self._tables):
            stays = (owner, limit) in shared if limit.shared_by else limit in own.get(owner, ())
            if not stays:
                self._tables.pop((owner, limit)).is_gone = True  # its clients' buckets make room when there is need

    def _bucket(self, rule: Rule, held: Held, now: float, *, is_use: bool) -> _Bucket:
        table = self._table(rule, held.limit, now)
        bucket = table.whole if not held.client else self._client_bucket(table, held.client, now, is_use=is_use)
        bucket.fill(now)
        return bucket

    def _client_bucket(self, table: _Table, client: bytes, now: float, *, is_use: bool) -> _Bucket:
        key = table.number + client
        bucket = self._clients.get(key)
        if bucket is not None:
            if is_use:
                self._clients.move_to_end(key)
            return bucket
        if is_use and (len(self._clients) < self._max_client_buckets or self._makes_room(now)):
            bucket = self._clients[key] = _Bucket(table, now)
            return bucket
        if not is_use and len(self._clients) < self._max_client_buckets:
            return _Bucket(table, now)
        if table.overflow is None:
            table.overflow = _Bucket(table, now)
        return table.overflow

    def _makes_room(self, now: float) -> bool:
        """Drop a bucket that says nothing, if there is one among those that were used longest ago."""
        for _ in range(_EXAMINED):
            key, bucket = next(iter(self._clients.items()))
            if bucket.says_nothing(now):
                del self._clients[key]
                return True
            self._clients.move_to_end(key)
        return False

    def _table(self, rule: Rule, limit: RateLimit, now: float) -> _Table:
        # By identity within the rule's own limits: hashing a limit costs more than all else here.
        known = self._of_rule.get(rule.id)
        if known is None or known[0] is not rule.policy.rate_limits:
            known = self._of_rule[rule.id] = (rule.policy.rate_limits, {})
        tables = known[1]
        table = tables.get(id(limit))
        if table is None:
            key = (limit.shared_by or rule.id, limit)
            table = self._tables.get(key)
            if table is None:
                self._made += 1
                table = self._tables[key] = _Table(limit, self._made, now)
            tables[id(limit)] = table
        return table


def _headers(limit: RateLimit, bucket: _Bucket) -> tuple[tuple[bytes, bytes], ...]:
    """As in draft 03 of the RateLimit header fields, under the names that Envoy gives them."""
    return (
        (b"x-ratelimit-limit", b"%d" % limit.requests),
        (b"x-ratelimit-remaining", b"%d" % int(bucket.tokens + _NEARLY)),
        (b"x-ratelimit-reset", b"%d" % math.ceil(bucket.wait_seconds(1))),
    )
