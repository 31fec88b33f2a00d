"""Which rate limits does a BackendTrafficPolicy set, and what is wrong with them? rateLimit.local -> RateLimits."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

import re2

from discovery.compile.matches import compile_regex, decode_unreserved
from discovery.rate_limit import AddressSelector, ClientSelector, PathSelector, RateLimit, ValueSelector
from discovery.resources import envoy_gateway as given
from discovery.route_entry import MODEL_HEADER, MODEL_HEADERS, PathKind, Pattern
from discovery.status import Cause

_DAY = 24 * 3600.0
# A month and a year are as long as Envoy Gateway makes them.
UNIT_SECONDS = {"Second": 1.0, "Minute": 60.0, "Hour": 3600.0, "Day": _DAY, "Month": 30 * _DAY, "Year": 365 * _DAY}


class _Unusable(Exception):
    """A rule that says what cannot be followed; ``field`` is its place below the rule."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def compile_rate_limits(policy: given.BackendTrafficPolicy) -> tuple[tuple[RateLimit, ...], tuple[Cause, ...]]:
    """The limits, each once, and what is wrong with those that are left out: then the policy is invalid."""
    limit = policy.spec.rate_limit
    if limit is None:
        return (), ()
    if limit.local is None:
        causes = (Cause(field="spec.rateLimit.local", message="is required"),) if limit.type == "Local" else ()
        return (), causes
    found: dict[RateLimit, None] = {}
    causes_found: list[Cause] = []
    has_default = False
    for number, rule in enumerate(limit.local.rules):
        field = f"spec.rateLimit.local.rules[{number}]"
        if not rule.client_selectors:
            if has_default:
                message = "only one rule may be without clientSelectors"
                causes_found.append(Cause(field=f"{field}.clientSelectors", message=message))
            has_default = True
        try:
            found.setdefault(_compile(rule, policy.path, field))
        except _Unusable as error:
            causes_found.append(Cause(field=f"{field}.{error.field}", message=error.message))
    return tuple(found), tuple(causes_found)


def _compile(rule: given.RateLimitRule, policy: str, field: str) -> RateLimit:
    cost = 1
    if rule.cost.request is not None and rule.cost.request.number is not None:
        cost = rule.cost.request.number
    if not 0 <= cost <= rule.limit.requests:
        raise _Unusable("cost.request.number", f"must be between 0 and the limit of {rule.limit.requests}")
    return RateLimit(
        requests=rule.limit.requests,
        unit=rule.limit.unit,
        unit_seconds=UNIT_SECONDS[rule.limit.unit],
        cost=cost,
        selectors=tuple(
            _selector(selector, f"clientSelectors[{number}]") for number, selector in enumerate(rule.client_selectors)
        ),
        shared_by=policy if rule.shared else "",
        is_shadow=rule.shadow_mode,
        tells=rule.x_rate_limit_headers != "Off",
        field=field,
    )


def _selector(selector: given.ClientSelector, field: str) -> ClientSelector:
    return ClientSelector(
        headers=tuple(_values(selector.headers, f"{field}.headers", is_header=True)),
        query=tuple(_values(selector.query_params, f"{field}.queryParams", is_header=False)),
        methods=tuple((method.value, method.invert) for method in selector.methods),
        path=None if selector.path is None else _path(selector.path, f"{field}.path"),
        address=None if selector.source_cidr is None else _address(selector.source_cidr, f"{field}.sourceCIDR"),
    )


def _values(selectors: Sequence[given.ValueSelector], field: str, *, is_header: bool) -> Iterator[ValueSelector]:
    for number, selector in enumerate(selectors):
        where = f"{field}[{number}]"
        name = (selector.name.lower() if is_header else selector.name).encode("utf-8")
        if is_header and name in MODEL_HEADERS:
            name = MODEL_HEADER
        if selector.type == "Distinct":
            if selector.value is not None:
                raise _Unusable(f"{where}.value", "must not be there: each value has a limit of its own")
            if selector.invert:
                raise _Unusable(f"{where}.invert", "must not be true where each value has a limit of its own")
            yield ValueSelector(name=name)
            continue
        if selector.value is None:
            raise _Unusable(f"{where}.value", "is required")
        if selector.type == "Exact":
            pattern = Pattern(name=name, value=selector.value.encode("utf-8"))
        else:
            pattern = Pattern(name=name, regex=_regex(selector.value, f"{where}.value"), source=selector.value)
        yield ValueSelector(name=name, pattern=pattern, is_inverted=selector.invert)


def _path(selector: given.PathSelector, field: str) -> PathSelector:
    if selector.type == "RegularExpression":
        regex = _regex(selector.value, f"{field}.value")
        kind = PathKind.REGULAR_EXPRESSION
        return PathSelector(kind=kind, value=selector.value, regex=regex, is_inverted=selector.invert)
    value = decode_unreserved(selector.value)
    if selector.type == "Exact":
        return PathSelector(kind=PathKind.EXACT, value=value, is_inverted=selector.invert)
    return PathSelector(kind=PathKind.PREFIX, value=value.rstrip("/"), is_inverted=selector.invert)


def _address(selector: given.SourceSelector, field: str) -> AddressSelector:
    try:
        network = ipaddress.ip_network(selector.value, strict=False)
    except ValueError:
        raise _Unusable(f"{field}.value", f"{selector.value} is not a range such as 10.0.0.0/8") from None
    return AddressSelector(network=network, is_distinct=selector.type == "Distinct", is_inverted=selector.invert)


def _regex(source: str, field: str) -> re2._Regexp[bytes]:
    try:
        return compile_regex(source)
    except ValueError as error:
        raise _Unusable(field, f"not a regular expression: {error}") from None
