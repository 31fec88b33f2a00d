"""What does the snapshot look like to an operator? Its JSON form for /config, and the conditions for /status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from discovery.backend import Endpoint, PoolSettings, UpstreamTLS
from discovery.filters import (
    BodyMutation,
    Filters,
    HeaderMutation,
    ModelRewrites,
    ModelTargets,
    PathRewrite,
    Redirect,
    ReplaceFullPath,
)
from discovery.rate_limit import ClientSelector, RateLimit
from discovery.route_entry import PathKind, Pattern, RouteEntry
from discovery.rule_policy import (
    ActiveHealth,
    ConcurrencyLimits,
    ConsistentHash,
    FaultInjection,
    LoadBalancer,
    RulePolicy,
)
from discovery.snapshot import BackendRef, Listener, Mirror, Refusal, Routing, Rule, Snapshot
from discovery.status import Condition, ObjectStatus

MASK = "***"
_CREDENTIAL_NAMES = frozenset(
    {b"authorization", b"proxy-authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"cookie", b"set-cookie"}
)
_CREDENTIAL_PARTS = (b"token", b"secret", b"password", b"api-key", b"apikey", b"credential")

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
    value = pattern.source if pattern.value is None else _text(pattern.value)
    is_secret = is_header and is_credential(pattern.name)
    return {
        "name": _text(pattern.name),
        "type": "RegularExpression" if pattern.value is None else "Exact",
        "value": MASK if is_secret else value,
    }


def describe_rule(rule: Rule) -> Json:
    described: Json = {
        "id": rule.id,
        "kind": rule.route_kind,
        "route": rule.route,
        "name": rule.name,
        "backendRefs": [_describe_ref(ref) for ref in rule.backend_refs],
        "policy": _describe_policy(rule.policy),
        **_describe_filters(rule.filters),
    }
    if rule.redirect is not None:
        described["redirect"] = _describe_redirect(rule.redirect)
    if rule.session is not None:
        described["session"] = {"type": rule.session.kind, "name": _text(rule.session.name)}
    if rule.mirrors:
        described["mirrors"] = [_describe_mirror(mirror) for mirror in rule.mirrors]
    if rule.refusal is not None:
        described["refusal"] = _describe_refusal(rule.refusal)
    return described


def _describe_mirror(mirror: Mirror) -> Json:
    return {
        "name": mirror.name,
        "backend": mirror.backend.id,
        "fraction": {"numerator": mirror.numerator, "denominator": mirror.denominator},
        **_describe_rewrites(mirror.model_rewrites),
    }


def _describe_ref(ref: BackendRef) -> Json:
    described: Json = {
        "name": ref.name,
        "weight": ref.weight,
        **_describe_filters(ref.filters),
        **_describe_rewrites(ref.model_rewrites),
    }
    if ref.priority:
        described["priority"] = ref.priority
    if ref.backend is not None:
        described["backend"] = ref.backend.id
    if ref.refusal is not None:
        described["refusal"] = _describe_refusal(ref.refusal)
    return described


def _describe_rewrites(rewrites: ModelRewrites | None) -> Json:
    if rewrites is None:
        return {}
    by_model = {name: describe_targets(targets) for name, targets in sorted(rewrites.by_model.items())}
    generic = describe_targets(rewrites.generic) if rewrites.generic is not None else None
    return {"modelRewrites": {"byModel": by_model, "generic": generic}}


def describe_targets(targets: ModelTargets) -> Json:
    """The names that one name stands for, each with its share of the requests."""
    shares = [
        {"model": target.name, "share": round(target.weight / targets.total_weight, 6)} for target in targets.targets
    ]
    return {"source": targets.source, "targets": shares}


def _describe_refusal(refusal: Refusal) -> Json:
    return {"reason": refusal.reason, "message": refusal.message}


def _describe_policy(policy: RulePolicy) -> Json:
    return {
        "requestTimeoutSeconds": policy.request_timeout_seconds,
        "backendRequestTimeoutSeconds": policy.backend_request_timeout_seconds,
        "firstByteTimeoutSeconds": policy.first_byte_timeout_seconds,
        "streamIdleTimeoutSeconds": policy.stream_idle_timeout_seconds,
        "connectTimeoutSeconds": policy.connect_timeout_seconds,
        "loadBalancer": _describe_balancer(policy.load_balancer),
        "retry": {
            "maxRetries": policy.retry.max_retries,
            "attemptsPerPriority": policy.retry.attempts_per_priority,
            "triggers": sorted(policy.retry.triggers),
            "statuses": sorted(policy.retry.statuses),
            "perTryTimeoutSeconds": policy.retry.per_try_timeout_seconds,
            "backOffSeconds": [policy.retry.backoff_base_seconds, policy.retry.backoff_max_seconds],
        },
        "limits": describe_limits(policy.limits),
        "passiveHealth": {
            "consecutiveFailures": policy.passive_health.consecutive_failures,
            "consecutiveGatewayErrors": policy.passive_health.consecutive_gateway_errors,
            "countsBusy": policy.passive_health.counts_busy,
            "baseEjectionSeconds": policy.passive_health.base_ejection_seconds,
            "maxEjectionPercent": policy.passive_health.max_ejection_percent,
            "panicThresholdPercent": policy.passive_health.panic_threshold_percent,
        },
        **({"activeHealth": _describe_check(policy.active_health)} if policy.active_health is not None else {}),
        **({"rateLimits": [describe_rate_limit(limit) for limit in policy.rate_limits]} if policy.rate_limits else {}),
        **({"faults": _describe_faults(policy.faults)} if policy.faults is not None else {}),
    }


def _describe_balancer(balancer: LoadBalancer | None) -> Json | str | None:
    if isinstance(balancer, ConsistentHash):
        return {"consistentHash": balancer.source, "names": [_text(name) for name in balancer.names]}
    return balancer


def describe_rate_limit(limit: RateLimit) -> Json:
    """A limit, and in words which clients it is for. Values that may be credentials are masked."""
    return {
        "requests": limit.requests,
        "unit": limit.unit,
        "cost": limit.cost,
        "clients": " and ".join(words for selector in limit.selectors for words in _selector_words(selector)),
        "sharedBy": limit.shared_by or None,
        "isShadow": limit.is_shadow,
        "field": limit.field,
    }


def _selector_words(selector: ClientSelector) -> Iterator[str]:
    for noun, values in (("header", selector.headers), ("query parameter", selector.query)):
        for value in values:
            name, pattern = _text(value.name), value.pattern
            if pattern is None:
                yield f"each value of {noun} {name}"
            else:
                is_secret = noun == "header" and is_credential(value.name)
                shown = MASK if is_secret else pattern.source if pattern.value is None else _text(pattern.value)
                sign = ("!" if value.is_inverted else "") + ("~" if pattern.value is None else "=")
                yield f"{noun} {name} {sign} {shown}"
    if selector.methods:
        yield "method " + " or ".join(f"!= {name}" if inverted else name for name, inverted in selector.methods)
    if selector.path is not None:
        path = selector.path
        kinds = {PathKind.EXACT: "=", PathKind.PREFIX: "below", PathKind.REGULAR_EXPRESSION: "~"}
        yield f"path {'not ' if path.is_inverted else ''}{kinds[path.kind]} {path.value or '/'}"
    if selector.address is not None:
        address = selector.address
        where = f"{'outside of' if address.is_inverted else 'in'} {address.network}"
        yield f"each address {where}" if address.is_distinct else f"addresses {where}"


def _describe_check(check: ActiveHealth) -> Json:
    return {
        "request": f"{check.method} {_text(check.path)}",
        "host": None if check.host is None else _text(check.host),
        "port": check.port,
        "expectedStatuses": sorted(check.statuses),
        "retriableStatuses": sorted(check.retriable_statuses),
        "expectsContent": bool(check.expected),
        "timeoutSeconds": check.timeout_seconds,
        "intervalSeconds": check.interval_seconds,
        "unhealthyThreshold": check.unhealthy_threshold,
        "healthyThreshold": check.healthy_threshold,
    }


def _describe_faults(faults: FaultInjection) -> Json:
    described: Json = {}
    if faults.delay_seconds is not None:
        described["delay"] = {"seconds": faults.delay_seconds, "percent": faults.delay_percent}
    if faults.abort_status is not None:
        described["abort"] = {"status": faults.abort_status, "percent": faults.abort_percent}
    return described


def describe_limits(limits: ConcurrencyLimits) -> Json:
    """The limits that are set, in the words of BackendTrafficPolicy."""
    return {name: value for name, value in _limits(limits) if value is not None}


def _limits(limits: ConcurrencyLimits) -> Iterator[tuple[str, float | None]]:
    yield "maxParallelRequests", limits.max_parallel_requests
    yield "maxConnections", limits.max_connections
    yield "maxPendingRequests", None if limits.max_connections is None else limits.max_pending_requests
    yield "maxParallelRetries", limits.max_parallel_retries
    yield "retryBudgetShare", limits.retry_budget_share


def _describe_filters(filters: Filters) -> Json:
    described: Json = {}
    if filters.request_headers is not None:
        described["requestHeaders"] = _describe_mutation(filters.request_headers)
    if filters.response_headers is not None:
        described["responseHeaders"] = _describe_mutation(filters.response_headers)
    if filters.host is not None:
        described["host"] = _text(filters.host)
    if filters.path is not None:
        described["path"] = _describe_rewrite(filters.path)
    if filters.body is not None:
        described["body"] = _describe_body(filters.body)
    return {"filters": described} if described else {}


def _describe_body(mutation: BodyMutation) -> Json:
    sets = [{"path": name, "value": MASK if is_secret_member(name) else _text(value)} for name, value in mutation.set]
    return {"set": sets, "remove": list(mutation.remove)}


def _describe_mutation(mutation: HeaderMutation) -> Json:
    return {
        "set": [_describe_header(name, value) for name, value in mutation.set],
        "add": [_describe_header(name, value) for name, value in mutation.add],
        "remove": sorted(_text(name) for name in mutation.remove),
    }


def _describe_header(name: bytes, value: bytes) -> Json:
    return {"name": _text(name), "value": MASK if is_credential(name) else _text(value)}


def _describe_rewrite(rewrite: PathRewrite) -> Json:
    if isinstance(rewrite, ReplaceFullPath):
        return {"replaceFullPath": _text(rewrite.path)}
    return {"prefix": _text(rewrite.prefix) or "/", "replacePrefixMatch": _text(rewrite.replacement) or "/"}


def _describe_redirect(redirect: Redirect) -> Json:
    return {
        "scheme": redirect.scheme,
        "hostname": redirect.hostname,
        "port": redirect.port,
        "path": None if redirect.path is None else _describe_rewrite(redirect.path),
        "statusCode": redirect.status_code,
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
        described["host"] = _text(endpoint.host)
    if endpoint.tls is not None:
        described["tls"] = _describe_tls(endpoint.tls)
    if endpoint.path_rewrites:
        described["pathRewrites"] = [_describe_rewrite(rewrite) for rewrite in endpoint.path_rewrites]
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


def is_credential(name: bytes) -> bool:
    """Whether a header of this lower-case name may hold a credential."""
    return name in _CREDENTIAL_NAMES or any(part in name for part in _CREDENTIAL_PARTS)


def is_secret_member(name: str) -> bool:
    """The same of a member of a request's body, where tokens are mostly those of a text."""
    name = name.lower().replace("_", "-")
    return is_credential(name.encode()) and not name.endswith("tokens")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
