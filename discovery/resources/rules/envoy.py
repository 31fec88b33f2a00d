"""What do the CEL rules of Envoy Gateway's and Envoy AI Gateway's kinds say, as far as we implement them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from discovery.resources.meta import ENVOY_GATEWAY, GATEWAY_API, INFERENCE
from discovery.resources.problem import FieldPath
from discovery.resources.rules.http_route import check_rule_names, check_timeouts
from discovery.resources.schema import Finding

_ROUTE_KINDS = frozenset({"Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "UDPRoute", "TLSRoute"})
_SECURITY_KINDS = frozenset({"Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute"})
_HTTP_KINDS = frozenset({"Gateway", "HTTPRoute", "GRPCRoute"})
_MAX_UNIX_PATH = 108

Data = Mapping[str, Any]


def check_backend(spec: Data) -> Iterator[Finding]:
    """Backend: each endpoint is one of fqdn, ip, unix, and fqdn is not mixed with the others."""
    endpoints: Sequence[Data] = spec.get("endpoints", ())
    if spec.get("type") == "DynamicResolver" and "endpoints" in spec:
        yield ("endpoints",), "must not be there when type is DynamicResolver"
    kinds: set[str] = set()
    for index, endpoint in enumerate(endpoints):
        given = [field for field in ("fqdn", "ip", "unix") if field in endpoint]
        if len(given) != 1:
            yield ("endpoints", index), "exactly one of fqdn, ip and unix must be specified"
        kinds.update(given)
        if len((endpoint.get("unix") or {}).get("path", "")) > _MAX_UNIX_PATH:
            yield ("endpoints", index, "unix", "path"), f"must have at most {_MAX_UNIX_PATH} characters"
    if "fqdn" in kinds and len(kinds) > 1:
        yield ("endpoints",), "fqdn addresses cannot be mixed with other address types"
    tls = spec.get("tls") or {}
    authorities = [field for field in ("caCertificateRefs", "wellKnownCACertificates") if tls.get(field)]
    if len(authorities) > 1:
        yield ("tls",), "must not have both caCertificateRefs and wellKnownCACertificates"
    if authorities and tls.get("insecureSkipVerify"):
        yield ("tls", "insecureSkipVerify"), "must not be true together with certificate authorities"


def check_backend_traffic_policy(spec: Data) -> Iterator[Finding]:
    """BackendTrafficPolicy: what it is for, and fields that exclude each other."""
    yield from _check_targets(spec, _ROUTE_KINDS)
    if "compression" in spec and "compressor" in spec:
        yield ("compression",), "must not be there together with compressor"
    if "requestBuffer" in spec and spec.get("httpUpgrade"):
        yield ("requestBuffer",), "must not be there together with httpUpgrade"
    if "admissionControl" in spec:
        for path, target in _targets(spec):
            if target["kind"] not in _HTTP_KINDS:
                yield (*path, "kind"), "admissionControl needs a target of kind Gateway, HTTPRoute or GRPCRoute"
    if spec.get("mergeType") == "Replace":
        yield ("mergeType",), "Replace is not allowed, leave mergeType out"


def check_client_traffic_policy(spec: Data) -> Iterator[Finding]:
    """ClientTrafficPolicy: it is for Gateways only; fields that exclude each other."""
    yield from _check_targets(spec, frozenset({"Gateway"}))
    limit = (spec.get("connection") or {}).get("connectionLimit") or {}
    if "closeDelay" in limit and "value" not in limit:
        yield ("connection", "connectionLimit", "closeDelay"), "can only be there when value is set"
    headers = spec.get("headers") or {}
    if "preserveXRequestID" in headers and "requestID" in headers:
        yield ("headers", "preserveXRequestID"), "must not be there together with requestID"
    detection = spec.get("clientIPDetection") or {}
    if "customHeader" in detection and "xForwardedFor" in detection:
        yield ("clientIPDetection",), "customHeader must not be there together with xForwardedFor"


def check_security_policy(spec: Data) -> Iterator[Finding]:
    """SecurityPolicy: what it is for (the rest of it is not implemented)."""
    yield from _check_targets(spec, _SECURITY_KINDS)


def check_ai_gateway_route(spec: Data) -> Iterator[Finding]:
    """AIGatewayRoute."""
    parents: Sequence[Data] = spec.get("parentRefs", ())
    for index, parent in enumerate(parents):
        if parent.get("kind", "Gateway") != "Gateway":
            yield ("parentRefs", index, "kind"), "only Gateway is supported"
    rules: Sequence[Data] = spec.get("rules", ())
    yield from check_rule_names(rules, ("rules",))
    for index, rule in enumerate(rules):
        path: FieldPath = ("rules", index)
        if rule.get("name") == "route-not-found":
            yield (*path, "name"), "route-not-found is reserved"
        yield from _check_ai_refs(rule.get("backendRefs", ()), (*path, "backendRefs"))
        yield from check_timeouts(rule.get("timeouts") or {}, (*path, "timeouts"))


def check_ai_service_backend(spec: Data) -> Iterator[Finding]:
    """AIServiceBackend: its backendRef is a Backend."""
    ref = spec["backendRef"]
    if ref.get("kind") != "Backend" or ref.get("group") != ENVOY_GATEWAY:
        yield ("backendRef",), f"must be a Backend of {ENVOY_GATEWAY}"


def _check_ai_refs(refs: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    pools = 0
    for index, ref in enumerate(refs):
        if ("group" in ref) != ("kind" in ref):
            yield (*path, index), "group and kind must be specified together"
        elif "group" in ref and (ref["group"], ref["kind"]) != (INFERENCE, "InferencePool"):
            yield (*path, index), f"only InferencePool of {INFERENCE} is supported, or an AIServiceBackend without kind"
        pools += "group" in ref
    if pools and pools != len(refs):
        yield path, "InferencePool and AIServiceBackend cannot be mixed in one rule"
    elif pools > 1:
        yield path, "only one InferencePool is allowed in a rule"


def _targets(spec: Data) -> Iterator[tuple[FieldPath, Data]]:
    if "targetRef" in spec:
        yield ("targetRef",), spec["targetRef"]
    for field in ("targetRefs", "targetSelectors"):
        for index, target in enumerate(spec.get(field, ())):
            yield (field, index), target


def _check_targets(spec: Data, kinds: frozenset[str]) -> Iterator[Finding]:
    if not spec.get("targetSelectors") and ("targetRef" in spec) == ("targetRefs" in spec):
        yield ("targetRefs",), "either targetRef or targetRefs must be used"
    for path, target in _targets(spec):
        if target.get("group", GATEWAY_API) != GATEWAY_API:
            yield (*path, "group"), f"must be {GATEWAY_API}"
        if path[0] != "targetSelectors" and target["kind"] not in kinds:
            yield (*path, "kind"), f"must be one of {', '.join(sorted(kinds))}"
