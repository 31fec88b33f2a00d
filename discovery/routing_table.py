"""Which rule takes a request? Precedence is sorted once at compile; match() is as fast for 10,000 models as for two.

Every match of every rule is an entry, ranked as Gateway API ranks matches (HTTPRouteRule.matches): hostname, then path,
method, number of headers, number of query parameters, age of the route, its name, order in it. Entries that ask for an
exact model are found by its name in a dict; the others are looked through in order, and only as far as they rank
before what the model found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from discovery.snapshot import ModelCard, Rule

if TYPE_CHECKING:
    import re2

MODEL_HEADER = b"x-gateway-model-name"
MODEL_HEADERS = (MODEL_HEADER, b"x-ai-eg-model")  # two names of one fact: what the body says


@dataclass(slots=True, kw_only=True)
class RouteRequest:
    """What of a request a route can match on."""

    method: str
    host: str  # lower case, without port
    path: str  # as sent, with unreserved characters decoded; without the query
    headers: Mapping[bytes, bytes]  # lower-case names; repeated fields joined with ","
    query: bytes = b""  # as sent, without "?"


class PathKind(IntEnum):
    """In the order of precedence; that of regular expressions is Envoy Gateway's."""

    EXACT = 0
    REGULAR_EXPRESSION = 1
    PREFIX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A value that a header or query parameter has in full: as it is, or as an RE2 expression describes it."""

    name: bytes  # lower case for a header
    value: bytes | None = None
    regex: re2._Regexp[bytes] | None = field(default=None, compare=False)
    source: str = ""  # of the regex

    def accepts(self, value: bytes | None) -> bool:
        if value is None:
            return False
        return self.regex.fullmatch(value) is not None if self.regex is not None else value == self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One match of one rule. Names in ``headers`` are unique; the model's header has the name MODEL_HEADER."""

    rule: Rule
    hostnames: tuple[str, ...] = ()  # lower case, may start with "*."; none: every host
    path_kind: PathKind = PathKind.PREFIX
    path: str = "/"  # a prefix may end with a slash, which says nothing
    path_regex: re2._Regexp[bytes] | None = field(default=None, compare=False)
    method: str | None = None
    headers: tuple[Pattern, ...] = ()
    query: tuple[Pattern, ...] = ()
    tie_break: tuple[float | str | int, ...] = ()  # age, route, rule, match: the smaller wins
    cards: tuple[ModelCard, ...] = ()  # the models that this entry is listed for

    def precedence(self) -> tuple[object, ...]:
        """The key by which entries of equally specific hostnames are sorted; the smaller wins."""
        length = len(self.path.rstrip("/")) if self.path_kind is PathKind.PREFIX else len(self.path)
        has_method = self.method is not None
        return (self.path_kind, -length, not has_method, -len(self.headers), -len(self.query), self.tie_break)


class RoutingTable:
    """The rules attached to one listener, in the order in which Gateway API ranks their matches."""

    def __init__(self, entries: Iterable[RouteEntry] = ()) -> None:
        self.entries = tuple(entries)
        by_host: dict[str | None, list[RouteEntry]] = {}
        for entry in self.entries:
            for hostname in dict.fromkeys(entry.hostnames) if entry.hostnames else (None,):
                by_host.setdefault(hostname, []).append(entry)
        self._any = _Bucket(by_host.pop(None, ()))
        self._exact = {name: _Bucket(found) for name, found in by_host.items() if not _is_wildcard(name)}
        self._wildcards = {(name or "")[1:]: _Bucket(found) for name, found in by_host.items() if _is_wildcard(name)}

    def match(self, request: RouteRequest) -> Rule | None:
        """The rule that takes this request, or None."""
        if self._exact or self._wildcards:
            for bucket in self._specific_buckets(request.host):
                rule = bucket.match(request)
                if rule is not None:
                    return rule
        return self._any.match(request)

    def models(self, host: str) -> tuple[ModelCard, ...]:
        """The models that the rules for this host name, sorted by id, each once."""
        cards: dict[str, ModelCard] = {}
        for bucket in (*self._specific_buckets(host), self._any):
            for name, card in bucket.cards.items():
                cards.setdefault(name, card)
        return tuple(cards[name] for name in sorted(cards))

    def _specific_buckets(self, host: str) -> list[_Bucket]:
        """Of the hostnames that match, the most specific first."""
        found: list[_Bucket] = []
        exact = self._exact.get(host)
        if exact is not None:
            found.append(exact)
        if self._wildcards:
            dot = host.find(".", 1)
            while dot != -1:
                bucket = self._wildcards.get(host[dot:])
                if bucket is not None:
                    found.append(bucket)
                dot = host.find(".", dot + 1)
        return found


class _Candidate:
    """An entry as match() reads it. ``headers`` and ``models`` leave out the exact model that it is found by."""

    __slots__ = ("exact", "headers", "method", "models", "prefix", "prefix_slash", "query", "rank", "regex", "rule")

    def __init__(self, entry: RouteEntry, rank: int) -> None:
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

    __slots__ = ("_by_model", "_others", "cards")

    def __init__(self, entries: Iterable[RouteEntry]) -> None:
        self._by_model: dict[bytes, list[_Candidate]] = {}
        self._others: list[_Candidate] = []
        self.cards: dict[str, ModelCard] = {}
        for rank, entry in enumerate(sorted(entries, key=RouteEntry.precedence)):
            for card in entry.cards:
                self.cards.setdefault(card.id, card)
            models = {p.value for p in entry.headers if p.name == MODEL_HEADER and p.value is not None}
            if not models:
                self._others.append(_Candidate(entry, rank))
            elif len(models) == 1:  # of two different ones, one never holds
                self._by_model.setdefault(next(iter(models)) or b"", []).append(_Candidate(entry, rank))

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
    candidates: list[_Candidate], request: RouteRequest, model: bytes | None, before: int | None
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
                query = _first_values(request.query)
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


def _first_values(query: bytes) -> dict[bytes, bytes]:
    """Of a repeated parameter the first value counts, as in Envoy."""
    values: dict[bytes, bytes] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1"):
        values.setdefault(name.encode("latin-1"), value.encode("latin-1"))
    return values


def _is_wildcard(hostname: str | None) -> bool:
    return hostname is not None and hostname.startswith("*.")
