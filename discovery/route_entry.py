"""What does one match of a rule ask of a request, and how does it rank?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

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
    hostnames: tuple[str, ...] = ()  # the route's that overlap with the listener's: lower case, may start with "*."
    path_kind: PathKind = PathKind.PREFIX
    path: str = "/"  # a prefix may end with a slash, which says nothing
    path_regex: re2._Regexp[bytes] | None = field(default=None, compare=False)
    method: str | None = None
    headers: tuple[Pattern, ...] = ()
    query: tuple[Pattern, ...] = ()
    tie_break: tuple[float | str | int, ...] = ()  # age, route, rule, match: the smaller wins
    cards: tuple[ModelCard, ...] = ()  # the models that this entry is listed for

    def conditions(self) -> tuple[object, ...]:
        """All that it asks of a request: entries that are equal in this take the same requests."""
        return (
            frozenset(self.hostnames),
            self.path_kind,
            self.path.rstrip("/") if self.path_kind is PathKind.PREFIX else self.path,
            self.method,
            frozenset(self.headers),
            frozenset(self.query),
        )

    def precedence(self) -> tuple[object, ...]:
        """The key by which entries of equally specific hostnames are sorted; the smaller wins."""
        length = len(self.path.rstrip("/")) if self.path_kind is PathKind.PREFIX else len(self.path)
        has_method = self.method is not None
        return (self.path_kind, -length, not has_method, -len(self.headers), -len(self.query), self.tie_break)
