"""What do the CEL rules of HTTPRoute say? (Gateway API v1.6, httproute_types.go.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from discovery.resources.problem import FieldPath
from discovery.resources.quantities import parse_duration
from discovery.resources.schema import Finding, compile_pattern

MAX_MATCHES = 128  # of all rules of a route together

_FILTER_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "ExtensionRef": "extensionRef",
    "CORS": "cors",
    "ExternalAuth": "externalAuth",
}
_REPEATABLE_FILTERS = frozenset({"RequestMirror", "ExtensionRef"})
_PATH_CHARACTERS = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"

Data = Mapping[str, Any]


def check_http_route(spec: Data) -> Iterator[Finding]:
    """All rules of an HTTPRoute."""
    yield from _check_parent_refs(spec.get("parentRefs", ()), ("parentRefs",))
    rules: Sequence[Data] = spec.get("rules", ())
    yield from check_rule_names(rules, ("rules",))
    if sum(len(rule.get("matches", ())) for rule in rules) > MAX_MATCHES:
        yield ("rules",), f"must have at most {MAX_MATCHES} matches in all rules together"
    for index, rule in enumerate(rules):
        yield from _check_rule(rule, ("rules", index))


def _check_parent_refs(refs: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    """Two references to one parent must tell its listeners apart."""
    parents: dict[tuple[object, ...], list[tuple[int, Data]]] = {}
    for index, ref in enumerate(refs):
        parent = (ref.get("group"), ref.get("kind"), ref.get("namespace", ""), ref["name"])
        parents.setdefault(parent, []).append((index, ref))
    for same in parents.values():
        if len(same) == 1:
            continue
        sections = {(bool(ref.get("sectionName")), bool(ref.get("port"))) for _, ref in same}
        if len(sections) > 1 or sections == {(False, False)}:
            yield (*path, same[1][0]), "sectionName or port must be specified when a parent is referenced twice"
            continue
        seen: set[tuple[object, object]] = set()
        for index, ref in same:
            section = (ref.get("sectionName"), ref.get("port"))
            if section in seen:
                yield (*path, index), "sectionName or port must be unique when a parent is referenced twice"
            seen.add(section)


def check_rule_names(rules: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    """Rule names are unique in a route."""
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        name = rule.get("name")
        if name is not None and name in seen:
            yield (*path, index, "name"), f'"{name}" is the name of another rule of this route'
        seen.add(name or "")


def check_timeouts(timeouts: Data, path: FieldPath) -> Iterator[Finding]:
    """One attempt cannot take longer than the whole request."""
    if "request" in timeouts and "backendRequest" in timeouts:
        request = parse_duration(timeouts["request"])
        if request and parse_duration(timeouts["backendRequest"]) > request:
            yield (*path, "backendRequest"), f"cannot be longer than the request timeout {timeouts['request']}"


def check_service_port(ref: Data, path: FieldPath) -> Iterator[Finding]:
    """A Service has many ports: which one must be said."""
    if ref.get("group", "") == "" and ref.get("kind", "Service") == "Service" and "port" not in ref:
        yield (*path, "port"), "is required for a reference to a Service"


def _check_rule(rule: Data, path: FieldPath) -> Iterator[Finding]:
    matches: Sequence[Data] = rule.get("matches", ())
    for index, match in enumerate(matches):
        yield from _check_path((match.get("path") or {}), (*path, "matches", index, "path", "value"))
    filters: Sequence[Data] = rule.get("filters", ())
    refs: Sequence[Data] = rule.get("backendRefs", ())
    yield from _check_filters(filters, matches, (*path, "filters"))
    if refs and any("requestRedirect" in f for f in filters):
        yield (*path, "backendRefs"), "must not be there together with a RequestRedirect filter"
    for index, ref in enumerate(refs):
        ref_path = (*path, "backendRefs", index)
        yield from check_service_port(ref, ref_path)
        yield from _check_filters(ref.get("filters", ()), matches, (*ref_path, "filters"))
    yield from check_timeouts(rule.get("timeouts") or {}, (*path, "timeouts"))
    yield from _check_session((rule.get("sessionPersistence") or {}), (*path, "sessionPersistence"))


def _check_path(match: Data, path: FieldPath) -> Iterator[Finding]:
    value = match.get("value", "/")
    if match.get("type") not in ("Exact", "PathPrefix"):
        return
    if not value.startswith("/"):
        yield path, "must start with /"
    for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
        if part in value:
            yield path, f'must not contain "{part}"'
    for end in ("/..", "/."):
        if value.endswith(end):
            yield path, f'must not end with "{end}"'
    if compile_pattern(_PATH_CHARACTERS).search(value) is None:
        yield path, "must only contain characters of a URL path"


def _check_filters(filters: Sequence[Data], matches: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, item in enumerate(filters):
        type_ = item["type"]
        if type_ in seen and type_ not in _REPEATABLE_FILTERS:
            yield (*path, index), f"a {type_} filter cannot be repeated"
        seen.add(type_)
        yield from _check_filter(item, matches, (*path, index))
    if {"RequestRedirect", "URLRewrite"} <= seen:
        yield path, "may have either a RequestRedirect or a URLRewrite filter, not both"


def _check_filter(item: Data, matches: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    expected = _FILTER_FIELDS[item["type"]]
    if expected not in item:
        yield (*path, expected), f"is required when type is {item['type']}"
    for type_, field in _FILTER_FIELDS.items():
        if field in item and field != expected:
            yield (*path, field), f"must not be there unless type is {type_}, and it is {item['type']}"
    for field in ("requestRedirect", "urlRewrite"):
        modifier = (item.get(field) or {}).get("path")
        if modifier is not None:
            yield from _check_path_modifier(modifier, matches, (*path, field, "path"))
    mirror = item.get("requestMirror")
    if mirror is not None:
        yield from _check_mirror(mirror, (*path, "requestMirror"))
    cors = item.get("cors") or {}
    for field in ("allowHeaders", "allowMethods", "allowOrigins"):
        if "*" in cors.get(field, ()) and len(cors[field]) > 1:
            yield (*path, "cors", field), 'cannot have "*" alongside others'
    auth = item.get("externalAuth")
    if auth is not None:
        yield from _check_external_auth(auth, (*path, "externalAuth"))


def _check_path_modifier(modifier: Data, matches: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    for type_, field in (("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")):
        if modifier["type"] == type_ and field not in modifier:
            yield (*path, field), f"is required when type is {type_}"
        if modifier["type"] != type_ and field in modifier:
            yield (*path, field), f"must not be there unless type is {type_}"
    if "replacePrefixMatch" in modifier and modifier["type"] == "ReplacePrefixMatch":
        is_one_prefix = len(matches) == 1 and (matches[0].get("path") or {}).get("type") == "PathPrefix"
        if not is_one_prefix:
            yield (*path, "replacePrefixMatch"), "needs exactly one match in this rule, with a PathPrefix"


def _check_mirror(mirror: Data, path: FieldPath) -> Iterator[Finding]:
    if "percent" in mirror and "fraction" in mirror:
        yield path, "may have only one of percent and fraction"
    fraction = mirror.get("fraction")
    if fraction is not None and fraction["numerator"] > fraction.get("denominator", 100):
        yield (*path, "fraction", "numerator"), "must not be greater than the denominator"
    yield from check_service_port(mirror["backendRef"], (*path, "backendRef"))


def _check_external_auth(auth: Data, path: FieldPath) -> Iterator[Finding]:
    for protocol, field in (("GRPC", "grpc"), ("HTTP", "http")):
        if (auth["protocol"] == protocol) != (field in auth):
            yield (*path, field), f"must be there exactly when protocol is {protocol}"
    yield from check_service_port(auth["backendRef"], (*path, "backendRef"))


def _check_session(session: Data, path: FieldPath) -> Iterator[Finding]:
    if not session:
        return
    type_ = session.get("type", "Cookie")
    for kind, field in (("Cookie", "cookie"), ("Header", "header")):
        if (type_ == kind) != (field in session):
            yield (*path, field), f"must be there exactly when type is {kind}"
    if (session.get("cookie") or {}).get("lifetimeType") == "Permanent" and "absoluteTimeout" not in session:
        yield (*path, "absoluteTimeout"), "is required when the cookie's lifetimeType is Permanent"
