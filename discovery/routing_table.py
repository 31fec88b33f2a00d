"""Which rule takes a request? Precedence is sorted once at compile; match() is as fast for 10,000 models as for two.

Every match of every rule is an entry, ranked as Gateway API ranks matches (HTTPRouteRule.matches): hostname, then path,
method, number of headers, number of query parameters, age of the route, its name, order in it. Entries that ask for an
exact model are found by its name in a dict; the others are looked through in order, and only as far as they rank
before what the model found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from urllib.parse import parse_qsl

from discovery.hostnames import EXACT_RANK, narrower
from discovery.route_entry import MODEL_HEADER, MODEL_HEADERS, PathKind, Pattern, RouteEntry, RouteRequest
from discovery.slices import Steps, run_at_once
from discovery.snapshot import ModelCard, Rule

_Rank = tuple[object, ...]


class RoutingTable:
    """The rules attached to one listener, in the order in which Gateway API ranks their matches.

    A request belongs to the most specific of the hostnames that routes and listener agree on, and to that one alone:
    where none of its rules matches, a less specific hostname's are not asked. Gateway API gives precedence to the more
    specific name without saying what follows when its rules do not match; in Envoy a name is a virtual host, and a
    request has just one. A route without hostnames is there under the listener's. Of routes that agree with the
    listener on the same name, the one whose own hostname is more specific ranks first (HTTPRouteSpec.Hostnames).
    """

    def __init__(self, entries: Iterable[RouteEntry] = (), *, hostname: str | None = None) -> None:
        run_at_once(self._fill(entries, hostname))

    @classmethod
    def build_steps(cls, entries: Iterable[RouteEntry], *, hostname: str | None = None) -> Steps[RoutingTable]:
        """``RoutingTable(entries)`` in steps."""
        table = cls.__new__(cls)
        yield from table._fill(entries, hostname)
        return table

    def match(self, request: RouteRequest) -> Rule | None:
        """The rule that takes this request, or None."""
        bucket = self._bucket(request.host) if self._has_hostnames else self._any
        return bucket.match(request) if bucket is not None else None

    def models(self, host: str) -> tuple[ModelCard, ...]:
        """The models that the rules for this host name, sorted by id, each once."""
        bucket = self._bucket(host)
        return tuple(bucket.cards[name] for name in sorted(bucket.cards)) if bucket is not None else ()

    def hostname_for(self, host: str) -> str | None:
        """The most specific hostname that routes are attached under and that this host has; None takes every host."""
        if host in self._exact:
            return host
        suffix = self._suffix_for(host)
        return f"*{suffix}" if suffix is not None else None

    def rank(self, entry: RouteEntry, hostname: str | None) -> tuple[object, ...] | None:
        """What an entry is sorted by under one of the table's hostnames, the smaller first; None: it is not there.

        How specific the route's own hostname is, and then RouteEntry.precedence.
        """
        own_rank = _agreed(entry.hostnames, self.hostname).get(hostname)
        return None if own_rank is None else (-own_rank, *entry.precedence())

    def shadowed_steps(self) -> Steps[list[tuple[RouteEntry, RouteEntry]]]:
        """Entries that can take no request, each with one that asks for the same and ranks before it."""
        first: dict[object, RouteEntry] = {}
        found: list[tuple[RouteEntry, RouteEntry]] = []
        for entry in sorted(self.entries, key=attrgetter("tie_break")):
            other = first.setdefault(entry.conditions(), entry)
            if other is not entry:
                found.append((entry, other))
            yield
        return found

    def _fill(self, entries: Iterable[RouteEntry], hostname: str | None) -> Steps[None]:
        self.entries = tuple(entries)
        self.hostname = hostname
        self._any: _Bucket | None = None
        self._exact: dict[str, _Bucket] = {}
        self._wildcards: dict[str, _Bucket] = {}  # by what follows the asterisk
        for entry in self.entries:
            for name, own_rank in _agreed(entry.hostnames, hostname).items():
                self._bucket_named(name).add(entry, (-own_rank, *entry.precedence()))
            yield
        buckets = [*self._exact.values(), *self._wildcards.values(), *([self._any] if self._any else ())]
        for bucket in buckets:
            yield from bucket.sort()
        self._has_hostnames = bool(self._exact or self._wildcards)

    def _bucket_named(self, name: str | None) -> _Bucket:
        if name is None:
            self._any = self._any or _Bucket()
            return self._any
        if name.startswith("*."):
            return self._wildcards.setdefault(name[1:], _Bucket())
        return self._exact.setdefault(name, _Bucket())

    def _bucket(self, host: str) -> _Bucket | None:
        exact = self._exact.get(host)
        if exact is not None:
            return exact
        suffix = self._suffix_for(host)
        return self._any if suffix is None else self._wildcards[suffix]

    def _suffix_for(self, host: str) -> str | None:
        """The longest that a wildcard has."""
        if self._wildcards:
            dot = host.find(".", 1)
            while dot != -1:
                if host[dot:] in self._wildcards:
                    return host[dot:]
                dot = host.find(".", dot + 1)
        return None


def _agreed(hostnames: tuple[str, ...], listener: str | None) -> dict[str | None, int]:
    """The names that a route and its listener agree on, with how specific the route's own name is."""
    agreed: dict[str | None, int] = {} if hostnames else {listener: 0}
    for own in hostnames:
        name = own if listener is None or not own.startswith("*.") else narrower(own, listener)
        agreed[name] = max(agreed.get(name, 0), len(own) if own.startswith("*.") else EXACT_RANK)
    return agreed


class _Candidate:
    """An entry as match() reads it. ``headers`` and ``models`` leave out the exact model that it is found by."""

    __slots__ = ("exact", "headers", "method", "models", "prefix", "prefix_slash", "query", "rank", "regex", "rule")

    def __init__(self, entry: RouteEntry, rank: _Rank) -> None:
        self.rank = rank
        self.rule = entry.rule
        self.method = entry.method
        self.exact = entry.path if entry.path_kind is PathKind.EXACT else None
        self.regex = entry.path_regex
        self.prefix = entry.path.rstrip("/") if entry.path_kind is PathKind.PREFIX else ""
        self.prefix_slash = self.prefix + "/"
        self.headers = tuple(p for p in entry.headers if p.name != MODEL_HEADER)
        self.models = tuple(p for p in entry.headers if p.name == MODEL_HEADER and p.regex is not None)
        self.query = entry.query


class _Bucket:
    """The entries of one hostname."""

    __slots__ = ("_by_model", "_card_ranks", "_others", "cards")

    def __init__(self) -> None:
        self._by_model: dict[bytes, list[_Candidate]] = {}
        self._others: list[_Candidate] = []
        self.cards: dict[str, ModelCard] = {}  # of two with one id, that of the entry that ranks first
        self._card_ranks: dict[str, _Rank] = {}

    def add(self, entry: RouteEntry, rank: _Rank) -> None:
        """``sort`` comes after the last one."""
        for card in entry.cards:
            if card.id not in self._card_ranks or rank < self._card_ranks[card.id]:
                self.cards[card.id], self._card_ranks[card.id] = card, rank
        models = {p.value for p in entry.headers if p.name == MODEL_HEADER and p.value is not None}
        if not models:
            self._others.append(_Candidate(entry, rank))
        elif len(models) == 1:  # of two different ones, one never holds
            self._by_model.setdefault(next(iter(models)) or b"", []).append(_Candidate(entry, rank))

    def sort(self) -> Steps[None]:
        """Each list by itself, so that 10,000 models are 10,000 short lists."""
        self._card_ranks.clear()
        for candidates in (self._others, *self._by_model.values()):
            if len(candidates) > 1:
                candidates.sort(key=attrgetter("rank"))
            yield

    def match(self, request: RouteRequest) -> Rule | None:
        headers = request.headers
        model = headers.get(MODEL_HEADER)
        if model is None:
            model = headers.get(MODEL_HEADERS[1])
        best = None
        if model is not None:
            candidates = self._by_model.get(model)
            if candidates is not None:
                best = _first(candidates, request, model, None)
        if self._others:
            better = _first(self._others, request, model, None if best is None else best.rank)
            if better is not None:
                best = better
        return None if best is None else best.rule


def _first(
    candidates: list[_Candidate], request: RouteRequest, model: bytes | None, before: _Rank | None
) -> _Candidate | None:
    """The first candidate that takes the request and ranks before ``before``."""
    path, method = request.path, request.method
    query: dict[bytes, bytes] | None = None
    for candidate in candidates:
        if before is not None and candidate.rank > before:
            return None
        if candidate.method is not None and candidate.method != method:
            continue
        prefix = candidate.prefix
        if prefix and path != prefix and not path.startswith(candidate.prefix_slash):
            continue
        if candidate.exact is not None and path != candidate.exact:
            continue
        if candidate.headers and not _all_accept(candidate.headers, request.headers):
            continue
        if candidate.models and not all(pattern.accepts(model) for pattern in candidate.models):
            continue
        if candidate.regex is not None and candidate.regex.fullmatch(path.encode("utf-8", "surrogateescape")) is None:
            continue
        if candidate.query:
            if query is None:
                query = first_values(request.query)
            if not _all_accept(candidate.query, query):
                continue
        return candidate
    return None


def _all_accept(patterns: tuple[Pattern, ...], values: Mapping[bytes, bytes]) -> bool:
    for pattern in patterns:
        value = values.get(pattern.name)
        if pattern.regex is None:
            if value != pattern.value:
                return False
        elif value is None or pattern.regex.fullmatch(value) is None:
            return False
    return True


def first_values(query: bytes) -> dict[bytes, bytes]:
    """Of a repeated parameter the first value counts, as in Envoy."""
    values: dict[bytes, bytes] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1"):
        values.setdefault(name.encode("latin-1"), value.encode("latin-1"))
    return values
