"""What does a rule look like to an operator? Its JSON form for /config and explain: arms, filters, mirrors."""

from __future__ import annotations

from typing import Any

from discovery.describe_policy import describe_policy
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
from discovery.shown import MASK, as_text, is_credential, is_secret_member
from discovery.snapshot import BackendRef, Mirror, Refusal, Rule

Json = dict[str, Any]


def describe_rule(rule: Rule) -> Json:
    described: Json = {
        "id": rule.id,
        "kind": rule.route_kind,
        "route": rule.route,
        "name": rule.name,
        "backendRefs": [_describe_ref(ref) for ref in rule.backend_refs],
        "policy": describe_policy(rule.policy),
        **_describe_filters(rule.filters),
    }
    if rule.redirect is not None:
        described["redirect"] = _describe_redirect(rule.redirect)
    if rule.session is not None:
        described["session"] = {"type": rule.session.kind, "name": as_text(rule.session.name)}
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


def _describe_filters(filters: Filters) -> Json:
    described: Json = {}
    if filters.request_headers is not None:
        described["requestHeaders"] = _describe_mutation(filters.request_headers)
    if filters.response_headers is not None:
        described["responseHeaders"] = _describe_mutation(filters.response_headers)
    if filters.host is not None:
        described["host"] = as_text(filters.host)
    if filters.path is not None:
        described["path"] = describe_path_rewrite(filters.path)
    if filters.body is not None:
        described["body"] = _describe_body(filters.body)
    return {"filters": described} if described else {}


def _describe_body(mutation: BodyMutation) -> Json:
    sets = [{"path": name, "value": MASK if is_secret_member(name) else as_text(value)} for name, value in mutation.set]
    return {"set": sets, "remove": list(mutation.remove)}


def _describe_mutation(mutation: HeaderMutation) -> Json:
    return {
        "set": [_describe_header(name, value) for name, value in mutation.set],
        "add": [_describe_header(name, value) for name, value in mutation.add],
        "remove": sorted(as_text(name) for name in mutation.remove),
    }


def _describe_header(name: bytes, value: bytes) -> Json:
    return {"name": as_text(name), "value": MASK if is_credential(name) else as_text(value)}


def describe_path_rewrite(rewrite: PathRewrite) -> Json:
    if isinstance(rewrite, ReplaceFullPath):
        return {"replaceFullPath": as_text(rewrite.path)}
    return {"prefix": as_text(rewrite.prefix) or "/", "replacePrefixMatch": as_text(rewrite.replacement) or "/"}


def _describe_redirect(redirect: Redirect) -> Json:
    return {
        "scheme": redirect.scheme,
        "hostname": redirect.hostname,
        "port": redirect.port,
        "path": None if redirect.path is None else describe_path_rewrite(redirect.path),
        "statusCode": redirect.status_code,
    }
