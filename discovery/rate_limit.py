"""How often may which clients ask? A rule's local rate limits, compiled (BackendTrafficPolicy rateLimit.local)."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re2

    from discovery.route_entry import PathKind, Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSelector:
    """Clients by a header (lower-case name) or a query parameter."""

    name: bytes
    pattern: Pattern | None = None  # None: it is there, and each of its values has a limit of its own
    is_inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSelector:
    """Requests by their path, without the query."""

    kind: PathKind
    value: str
    regex: re2._Regexp[bytes] | None = field(default=None, compare=False)
    is_inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSelector:
    """Clients by the address that their connection comes from."""

    network: IPv4Network | IPv6Network
    is_distinct: bool = False  # each address has a limit of its own
    is_inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSelector:
    """All that is given must hold; of several methods one."""

    headers: tuple[ValueSelector, ...] = ()
    query: tuple[ValueSelector, ...] = ()
    methods: tuple[tuple[str, bool], ...] = ()  # and whether it is any other method that is meant
    path: PathSelector | None = None
    address: AddressSelector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket for those requests that all selectors hold for: ``requests`` tokens at most, refilled evenly
    within ``unit_seconds``.

    Equal limits keep their buckets over reloads, so what says only where the limit stands is not compared.
    """

    requests: int  # 1..2**32-1
    unit: str
    unit_seconds: float
    cost: int = 1  # tokens of one request, 0..requests; 0 asks for one and takes none
    selectors: tuple[ClientSelector, ...] = ()  # none: for requests that no other limit of the policy holds for
    shared_by: str = ""  # the policy whose rules share the buckets; "": each rule has its own
    is_shadow: bool = False  # counted, never enforced
    tells: bool = True  # in x-ratelimit-* headers
    field: str = field(default="", compare=False)  # where the policy says it
