"""When does a rule match? The matches of a route's rule -> entries of the routing table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import re2

from discovery.resources.envoy_ai_gateway import AIRouteRule
from discovery.resources.gateway_api import PathMatch, RouteMatch, RouteRule, ValueMatch
from discovery.route_entry import MODEL_HEADER, MODEL_HEADERS, PathKind, Pattern
from discovery.status import Cause

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledMatch:
    """One match, without the rule and the hostnames that make it an entry."""

    path_kind: PathKind
    path: str
    path_regex: re2._Regexp[bytes] | None
    method: str | None
    headers: tuple[Pattern, ...]
    query: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledMatches:
    """Those matches of a rule that can hold, and what is wrong with the others (they are dropped)."""

    matches: tuple[CompiledMatch, ...]
    causes: tuple[Cause, ...] = ()

    def models(self) -> Iterator[str]:
        """The exact model values, in order."""
        for match in self.matches:
            for pattern in match.headers:
                if pattern.name == MODEL_HEADER and pattern.value is not None:
                    yield pattern.value.decode("utf-8", "replace")


def compile_matches(rule: RouteRule | AIRouteRule, rule_index: int) -> CompiledMatches:
    """All matches of a rule. One with a bad regular expression cannot hold: it is dropped, with its cause."""
    compiled: list[CompiledMatch] = []
    causes: list[Cause] = []
    for index, match in enumerate(_route_matches(rule)):
        field = f"spec.rules[{rule_index}].matches[{index}]"
        try:
            compiled.append(_compile(match))
        except _BadRegex as error:
            causes.append(Cause(field=f"{field}.{error.field}", message=f"not a regular expression: {error}"))
    return CompiledMatches(matches=tuple(compiled), causes=tuple(causes))


def only_prefix(rule: RouteRule | AIRouteRule) -> str:
    """The PathPrefix that a ReplacePrefixMatch replaces; the schema's rules see to it that there is just one."""
    for match in _route_matches(rule):
        if match.path.type == "PathPrefix":
            return decode_unreserved(match.path.value)
    return "/"


def decode_unreserved(path: str) -> str:
    """Percent-encoded letters, digits and `-._~` as they are: paths are compared in this form (RFC 3986, 6.2.2)."""
    if "%" not in path:
        return path
    parts = path.split("%")
    decoded = [parts[0]]
    for part in parts[1:]:
        try:
            character = chr(int(part[:2], 16)) if len(part) >= 2 else ""
        except ValueError:
            character = ""
        decoded.append(character + part[2:] if character in _UNRESERVED else f"%{part}")
    return "".join(decoded)


class _BadRegex(Exception):
    """A regular expression that RE2 does not take; ``field`` is its place in the match."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _route_matches(rule: RouteRule | AIRouteRule) -> Sequence[RouteMatch]:
    if isinstance(rule, RouteRule):
        return rule.matches or (RouteMatch(),)
    return [RouteMatch(headers=match.headers) for match in rule.matches] or [RouteMatch()]


def _compile(match: RouteMatch) -> CompiledMatch:
    path_kind, path, path_regex = _compile_path(match.path)
    return CompiledMatch(
        path_kind=path_kind,
        path=path,
        path_regex=path_regex,
        method=match.method,
        headers=_compile_values(match.headers, "headers"),
        query=_compile_values(match.query_params, "queryParams"),
    )


def _compile_path(match: PathMatch) -> tuple[PathKind, str, re2._Regexp[bytes] | None]:
    match match.type:
        case "Exact":
            return PathKind.EXACT, decode_unreserved(match.value), None
        case "PathPrefix":
            return PathKind.PREFIX, decode_unreserved(match.value), None
        case "RegularExpression":
            return PathKind.REGULAR_EXPRESSION, match.value, _compile_regex(match.value, "path.value")


def _compile_values(matches: Sequence[ValueMatch], field: str) -> tuple[Pattern, ...]:
    """Of several matches on one name only the first counts. Header names ignore case, parameter names do not."""
    patterns: dict[str, Pattern] = {}
    for index, match in enumerate(matches):
        key = match.name.lower() if field == "headers" else match.name
        if key in patterns:
            continue
        name = key.encode("utf-8")
        if field == "headers" and name in MODEL_HEADERS:
            name = MODEL_HEADER
        if match.type == "Exact":
            patterns[key] = Pattern(name=name, value=match.value.encode("utf-8"))
        else:
            regex = _compile_regex(match.value, f"{field}[{index}].value")
            patterns[key] = Pattern(name=name, regex=regex, source=match.value)
    return tuple(patterns.values())


def compile_regex(source: str) -> re2._Regexp[bytes]:
    """A regular expression as Envoy takes them. Raises ValueError with RE2's words."""
    try:
        return _re2(source)
    except re2.error as error:
        detail = error.args[0] if error.args else ""
        raise ValueError(detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)) from None


def _compile_regex(source: str, field: str) -> re2._Regexp[bytes]:
    try:
        return compile_regex(source)
    except ValueError as error:
        raise _BadRegex(field, str(error)) from None


@lru_cache(maxsize=1024)
def _re2(source: str) -> re2._Regexp[bytes]:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(source.encode("utf-8"), options)
