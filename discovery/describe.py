"""What does the snapshot look like to an operator? Its JSON form for /config, and the conditions for /status."""

from __future__ import annotations

from typing import Any

from discovery.backend import Endpoint, PoolSettings, UpstreamTLS
from discovery.describe_rule import describe_path_rewrite, describe_rule
from discovery.route_entry import PathKind, Pattern, RouteEntry
from discovery.shown import MASK, as_text, is_credential
from discovery.snapshot import Listener, Routing, Snapshot
from discovery.status import Condition, ObjectStatus

Json = dict[str, Any]


def describe(snapshot: Snapshot) -> Json:
    """The snapshot as plain JSON values. Header values that may be credentials are masked."""
    routing = snapshot.routing
    return {
        "version": snapshot.version,
        "listeners": [_describe_listener(listener) for listener in routing.listeners],
        "rules": [describe_rule(rule) for rule in routing.rules],
        "backends": {
            backend.id: {
                "kind": backend.kind,
                "namespace": backend.namespace,
                "name": backend.name,
                **(_describe_pool(backend.pool) if backend.pool is not None else {}),
                "endpoints": [describe_endpoint(e) for e in snapshot.membership.get(backend.id, ())],
            }
            for backend in routing.backends.values()
        },
        "models": sorted(routing.model_names),
        "baseModels": dict(sorted(routing.base_models.items())),
    }


def describe_statuses(routing: Routing) -> list[Json]:
    """The conditions of each object, in the shape of a Kubernetes status."""
    return [_describe_status(status) for status in routing.statuses]


def _describe_listener(listener: Listener) -> Json:
    return {
        "name": listener.name,
        "hostname": listener.hostname,
        "port": listener.port,
        "bodyLimitBytes": listener.body_limit,
        "tellsRateLimits": listener.tells_rate_limits,
        "matches": [describe_entry(entry) for entry in listener.table.entries],
    }


def describe_entry(entry: RouteEntry) -> Json:
    kinds = {PathKind.EXACT: "Exact", PathKind.PREFIX: "PathPrefix", PathKind.REGULAR_EXPRESSION: "RegularExpression"}
    described: Json = {"rule": entry.rule.id, "path": {"type": kinds[entry.path_kind], "value": entry.path}}
    if entry.hostnames:
        described["hostnames"] = list(entry.hostnames)
    if entry.method:
        described["method"] = entry.method
    if entry.headers:
        described["headers"] = [_describe_pattern(p, is_header=True) for p in entry.headers]
    if entry.query:
        described["queryParams"] = [_describe_pattern(p, is_header=False) for p in entry.query]
    return described


def _describe_pattern(pattern: Pattern, *, is_header: bool) -> Json:
    value = pattern.source if pattern.value is None else as_text(pattern.value)
    is_secret = is_header and is_credential(pattern.name)
    return {
        "name": as_text(pattern.name),
        "type": "RegularExpression" if pattern.value is None else "Exact",
        "value": MASK if is_secret else value,
    }


def _describe_pool(pool: PoolSettings) -> Json:
    described: Json = {"failureMode": "FailOpen" if pool.fails_open else "FailClose"}
    if pool.by_load_alone:
        described["routingStrategy"] = "DEFAULT"
    if pool.priorities:
        described["priorities"] = dict(pool.priorities)
    if pool.model_priorities:
        described["modelPriorities"] = dict(pool.model_priorities)
    return described


def describe_endpoint(endpoint: Endpoint) -> Json:
    described: Json = {"id": endpoint.id, "address": endpoint.address, "port": endpoint.port}
    if endpoint.pod is not None:
        described["pod"] = endpoint.pod
    if endpoint.engine is not None:
        described["engine"] = endpoint.engine
    if endpoint.host is not None:
        described["host"] = as_text(endpoint.host)
    if endpoint.tls is not None:
        described["tls"] = _describe_tls(endpoint.tls)
    if endpoint.path_rewrites:
        described["pathRewrites"] = [describe_path_rewrite(rewrite) for rewrite in endpoint.path_rewrites]
    return described


def _describe_tls(tls: UpstreamTLS) -> Json:
    authorities = "the system's" if tls.authorities is None else f"{tls.authorities.count('BEGIN CERT')} of its own"
    return {
        "serverName": tls.server_name,
        "authorities": authorities if tls.verifies else "not verified",
        "versions": [tls.min_version, tls.max_version],
        "fingerprint": tls.fingerprint,
    }


def _describe_status(status: ObjectStatus) -> Json:
    described: Json = {
        "group": status.group,
        "kind": status.kind,
        "namespace": status.namespace,
        "name": status.name,
        "conditions": [_describe_condition(condition) for condition in status.conditions],
    }
    if status.parent is not None:
        described["parent"] = status.parent
    if status.attached_routes is not None:
        described["attachedRoutes"] = status.attached_routes
    if status.supported_kinds is not None:
        described["supportedKinds"] = [{"group": group, "kind": kind} for group, kind in status.supported_kinds]
    return described


def _describe_condition(condition: Condition) -> Json:
    described: Json = {"type": condition.type, "status": condition.status, "reason": condition.reason}
    if condition.message:
        described["message"] = condition.message
    if condition.observed_generation is not None:
        described["observedGeneration"] = condition.observed_generation
    return described
