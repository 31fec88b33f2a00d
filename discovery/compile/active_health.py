"""How does a BackendTrafficPolicy have endpoints checked, and what is wrong with that? healthCheck.active ->
ActiveHealth."""

from __future__ import annotations

import base64
import re

from discovery.resources.envoy_gateway import ActiveHealthCheck, BackendTrafficPolicy
from discovery.resources.quantities import parse_duration
from discovery.rule_policy import ActiveHealth
from discovery.status import Cause

_FIELD = "spec.healthCheck.active"
_PATH = re.compile(r"/[\x21-\x7e]*")  # nothing that would end the request line
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"})
MAX_EXPECTED_BYTES = 1024  # so much of an answer is looked at, as in Envoy


def compile_active_health(
    policy: BackendTrafficPolicy, route_host: str | None
) -> tuple[ActiveHealth | None, tuple[Cause, ...]]:
    """The check, and what is wrong with it: then the policy is invalid. Only checks over HTTP are made.

    ``route_host`` is asked for where the check names no host.
    """
    check = policy.spec.health_check.active if policy.spec.health_check is not None else None
    if check is None or check.type != "HTTP" or check.http is None:
        return None, ()
    http = check.http
    method = (http.method or "GET").upper()
    causes = []
    if _PATH.fullmatch(http.path) is None:
        causes.append(Cause(field=f"{_FIELD}.http.path", message="must start with / and have no spaces"))
    if method not in _METHODS:
        causes.append(Cause(field=f"{_FIELD}.http.method", message=f"{http.method} is not a method for checks"))
    timeout, interval = parse_duration(check.timeout), parse_duration(check.interval)
    for name, seconds in (("timeout", timeout), ("interval", interval)):
        if seconds <= 0:
            causes.append(Cause(field=f"{_FIELD}.{name}", message="must be more than 0s"))
    expected = _expected(check)
    if len(expected) > MAX_EXPECTED_BYTES:
        message = f"must have at most {MAX_EXPECTED_BYTES} bytes"
        causes.append(Cause(field=f"{_FIELD}.http.expectedResponse", message=message))
    if causes:
        return None, tuple(causes)
    host = http.hostname or route_host
    return ActiveHealth(
        timeout_seconds=timeout,
        interval_seconds=interval,
        initial_jitter_seconds=parse_duration(check.initial_jitter) if check.initial_jitter else 0.0,
        unhealthy_threshold=check.unhealthy_threshold,
        healthy_threshold=check.healthy_threshold,
        method=method,
        path=http.path.encode("ascii"),
        host=host.encode("ascii") if host else None,
        statuses=frozenset(http.expected_statuses) or frozenset({200}),
        retriable_statuses=frozenset(http.retriable_statuses),
        expected=expected,
        port=check.overrides.port,
    ), ()


def _expected(check: ActiveHealthCheck) -> bytes:
    """What the answer must contain; b"" for anything. That it is base64 was checked when it was decoded."""
    payload = check.http.expected_response if check.http is not None else None
    if payload is None:
        return b""
    return payload.text.encode("utf-8") if payload.text is not None else base64.b64decode(payload.binary or "")
