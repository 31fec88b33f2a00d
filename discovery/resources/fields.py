"""Which known fields do we not implement, and what does each of them do instead?

Everything that a schema knows and that is not listed here is implemented, or is checked where it is used. The reasons
are for the operator and are printed behind the field's path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from discovery.resources.meta import ENVOY_AI_GATEWAY, ENVOY_GATEWAY, GATEWAY_API, INFERENCE, INFERENCE_ALPHA
from discovery.resources.problem import FieldPath


class Effect(Enum):
    """What happens to an object that has the field."""

    IGNORED = "warned"  # a warning; the rest of the object works
    RESTRICTS = "invalid"  # a warning would let through more than the object says: the object is invalid
    REMOVED = "removed"  # a warning; the field is no longer in the schema


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNote:
    """A field that does not do what its documentation says. ``path`` has `[]` for every item of a list."""

    path: str
    effect: Effect
    reason: str
    is_expected: bool = False  # nothing to mend: the schema asks for the field
    applies: Callable[[Any], bool] = lambda value: value is not None


def occurrences(data: object, path: str) -> Iterator[tuple[FieldPath, Any]]:
    """Every place in the data that a path with `[]` names."""
    yield from _walk(data, path.replace("[]", ".[]").split("."), ())


def _walk(data: object, steps: list[str], path: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    if not steps:
        yield path, data
    elif steps[0] == "[]":
        if isinstance(data, list):
            for index, item in enumerate(data):
                yield from _walk(item, steps[1:], (*path, index))
    elif isinstance(data, dict) and steps[0] in data:
        yield from _walk(data[steps[0]], steps[1:], (*path, steps[0]))


def _ignored(reason: str, *paths: str, applies: Callable[[Any], bool] | None = None) -> tuple[FieldNote, ...]:
    return _notes(Effect.IGNORED, reason, paths, applies)


def _expected(reason: str, path: str) -> tuple[FieldNote, ...]:
    """What manifests cannot do without, and we have no use for."""
    return (FieldNote(path=path, effect=Effect.IGNORED, reason=reason, is_expected=True),)


def _not_yet(instead: str, *paths: str, applies: Callable[[Any], bool] | None = None) -> tuple[FieldNote, ...]:
    """``instead``: what happens in its place, which is why a warning is enough."""
    return _notes(Effect.IGNORED, f"not implemented, ignored: {instead}", paths, applies)


def _restricts(reason: str, *paths: str, applies: Callable[[Any], bool] | None = None) -> tuple[FieldNote, ...]:
    return _notes(Effect.RESTRICTS, reason, paths, applies)


def _removed(reason: str, *paths: str) -> tuple[FieldNote, ...]:
    return _notes(Effect.REMOVED, reason, paths, None)


def _notes(
    effect: Effect, reason: str, paths: tuple[str, ...], applies: Callable[[Any], bool] | None
) -> tuple[FieldNote, ...]:
    if applies is None:
        return tuple(FieldNote(path=path, effect=effect, reason=reason) for path in paths)
    return tuple(FieldNote(path=path, effect=effect, reason=reason, applies=applies) for path in paths)


# RFC 6265 section 4.1.1: what may stand in Set-Cookie without ending it early.
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_COOKIE_ATTRIBUTE = re.compile(r"[ -:<-~]*")

_UNCHANGED = "requests are forwarded as they came"
_EXPERIMENTAL = "experimental in Gateway API, ignored"
_PICKER = (
    "read and never called, which is fine: Pointsman picks the endpoint itself, and does what failureMode says when it "
    "knows of none"
)

NOTES: Mapping[tuple[str, str], tuple[FieldNote, ...]] = {
    (GATEWAY_API, "GatewayClass"): _ignored("not looked at, ignored", "spec.parametersRef"),
    (GATEWAY_API, "Gateway"): (
        *_ignored(
            "ignored: --host and --port decide where Pointsman listens",
            "spec.addresses",
            "spec.infrastructure",
        ),
        *_ignored(_EXPERIMENTAL, "spec.allowedListeners", "spec.defaultScope", "spec.tls"),
    ),
    (GATEWAY_API, "HTTPRoute"): (
        *_ignored(_EXPERIMENTAL, "spec.useDefaultGateways"),
        *_not_yet(
            "only a rule's own filters mirror requests",
            "spec.rules[].backendRefs[].filters[].requestMirror",
        ),
    ),
    (INFERENCE, "InferencePool"): _expected(_PICKER, "spec.endpointPickerRef"),
    (INFERENCE_ALPHA, "InferencePool"): _expected(_PICKER, "spec.extensionRef"),
    (ENVOY_GATEWAY, "Backend"): (
        *_not_yet("endpoints of all zones are alike", "spec.endpoints[].zone"),
        *_ignored(
            "ignored: only HTTP/1.1 is spoken, and asked for",
            "spec.tls.alpnProtocols",
            applies=lambda value: value != ["http/1.1"],
        ),
        *_ignored("ignored: it is about clients", "spec.tls.fingerprints"),
        *_ignored(
            "1.0 and 1.1 mean 1.2, the lowest that is spoken",
            "spec.tls.minVersion",
            applies=lambda value: value in ("1.0", "1.1"),
        ),
    ),
    (ENVOY_GATEWAY, "ClientTrafficPolicy"): (
        *_restricts(
            "not implemented, and without it Pointsman would accept more than the policy says",
            "spec.tls",
            "spec.clientIPDetection",
            "spec.proxyProtocol",
            "spec.path",
            "spec.http1",
            "spec.headers.earlyRequestHeaders",
            "spec.connection.connectionLimit",
        ),
        *_restricts(
            "not implemented, and without it Pointsman would accept more than the policy says",
            "spec.enableProxyProtocol",
            applies=lambda value: value is True,
        ),
        *_restricts(
            "not implemented, and without it Pointsman would accept or forward more than the policy says",
            "spec.headers.withUnderscoresAction",
            applies=lambda value: value in ("RejectRequest", "DropHeader"),
        ),
        *_not_yet("Pointsman tells no such headers", "spec.headers.enableEnvoyHeaders"),
        *_not_yet("a ResponseHeaderModifier filter can do it", "spec.headers.lateResponseHeaders"),
        *_not_yet(
            "a well-formed X-Request-Id is kept, else one is made",
            "spec.headers.preserveXRequestID",
            "spec.headers.requestID",
        ),
        *_not_yet("clients cannot set x-forwarded-client-cert at all", "spec.headers.xForwardedClientCert"),
        *_not_yet(
            "the operating system's buffers are used",
            "spec.connection.socketBufferLimit",
        ),
        *_not_yet("connections are accepted as they come", "spec.connection.maxAcceptPerSocketEvent"),
        *_not_yet("only HTTP/1.1 is served", "spec.grpc", "spec.http2", "spec.http3"),
        *_not_yet("the admin port answers health checks", "spec.healthCheck"),
        *_not_yet("backends are spoken to in clear", "spec.scheme"),
        *_not_yet("Pointsman's own keep-alive and timeouts hold", "spec.tcpKeepalive", "spec.timeout"),
        *_ignored("not implemented: only objects of the policy's own namespace", "spec.targetSelectors[].namespaces"),
    ),
    (ENVOY_GATEWAY, "BackendTrafficPolicy"): (
        *_restricts(
            "not implemented, and without it Pointsman would forward more than the policy says",
            "spec.rateLimit.global",
            "spec.rateLimit.local.rules[].cost.response",
            "spec.requestBuffer",
            "spec.bandwidthLimit",
            "spec.mergeType",
        ),
        *_restricts(
            "Global is not implemented, and without it Pointsman would forward more than the policy says",
            "spec.rateLimit.type",
            applies=lambda value: value == "Global",
        ),
        *_restricts(
            "there is no such metadata here, and without it Pointsman would forward more than the policy says",
            "spec.rateLimit.local.rules[].cost.request.metadata",
        ),
        *_restricts(
            "only Number: there is no metadata here, and without it Pointsman would forward more than the policy says",
            "spec.rateLimit.local.rules[].cost.request.from",
            applies=lambda value: value == "Metadata",
        ),
        *_not_yet("nothing is rejected by the backends' success rate", "spec.admissionControl"),
        *_not_yet("connections are not counted for their own sake", "spec.circuitBreaker.maxRequestsPerConnection"),
        *_not_yet("the rule as a whole is limited", "spec.circuitBreaker.perEndpoint"),
        *_not_yet("answers are relayed as they come", "spec.compression", "spec.compressor", "spec.responseOverride"),
        *_not_yet("buffers are Pointsman's own", "spec.connection"),
        *_not_yet("host names are resolved at connect", "spec.dns"),
        *_not_yet("gRPC is not served: only httpStatus is answered", "spec.faultInjection.abort.grpcStatus"),
        *_not_yet(
            "only HTTP checks are made, endpoints are judged by the requests they get",
            "spec.healthCheck.active.type",
            applies=lambda value: value != "HTTP",
        ),
        *_not_yet("only HTTP checks are made", "spec.healthCheck.active.tcp", "spec.healthCheck.active.grpc"),
        *_not_yet(
            "consecutive failures alone count",
            "spec.healthCheck.passive.failurePercentageThreshold",
            "spec.healthCheck.passive.splitExternalLocalOriginErrors",
            "spec.healthCheck.passive.consecutiveLocalOriginFailures",
            "spec.healthCheck.passive.alwaysEjectOneEndpoint",
        ),
        *_not_yet("backends are spoken to in HTTP/1.1, without upgrades", "spec.http2", "spec.httpUpgrade"),
        *_not_yet(
            "the endpoint with fewer requests is picked",
            "spec.loadBalancer.type",
            applies=lambda value: value in ("BackendUtilization", "DynamicModule"),
        ),
        *_not_yet(
            "the endpoint with fewer requests is picked",
            "spec.loadBalancer.backendUtilization",
            "spec.loadBalancer.dynamicModule",
        ),
        *_restricts(
            "is no name that a cookie can have",
            "spec.loadBalancer.consistentHash.cookie.name",
            applies=lambda value: not _COOKIE_NAME.fullmatch(value),
        ),
        *_restricts(
            "are no attributes that a cookie can have",
            "spec.loadBalancer.consistentHash.cookie.attributes",
            applies=lambda value: any(not _COOKIE_ATTRIBUTE.fullmatch(part) for item in value.items() for part in item),
        ),
        *_not_yet("clients cannot choose their endpoint", "spec.loadBalancer.endpointOverride"),
        *_not_yet("a new endpoint gets its whole share at once", "spec.loadBalancer.slowStart"),
        *_not_yet("endpoints of all zones are alike", "spec.loadBalancer.zoneAware"),
        *_not_yet(
            "rendezvous hashing needs no table",
            "spec.loadBalancer.consistentHash.tableSize",
            applies=lambda value: value != 65537,
        ),
        *_not_yet("the client's address is in X-Forwarded-For", "spec.proxyProtocol"),
        *_not_yet("endpoints are addressed themselves", "spec.routingType"),
        *_not_yet("telemetry is configured by OTEL_* variables", "spec.telemetry"),
        *_not_yet(
            "Pointsman's own keep-alive and timeouts hold",
            "spec.tcpKeepalive",
            "spec.timeout.http.connectionIdleTimeout",
            "spec.timeout.http.maxConnectionDuration",
            "spec.timeout.http.maxStreamDuration",
        ),
        *_not_yet("backends are spoken to in HTTP/1.1", "spec.useClientProtocol"),
        *_ignored("not implemented: only objects of the policy's own namespace", "spec.targetSelectors[].namespaces"),
    ),
    (ENVOY_AI_GATEWAY, "AIGatewayRoute"): (
        *_removed(
            "is no longer part of AIGatewayRoute, ignored",
            "spec.schema",
            "spec.filterConfig",
        ),
        *_removed("is no longer part of AIGatewayRoute, ignored: use parentRefs", "spec.targetRefs"),
        *_not_yet("tokens are counted in metrics only", "spec.llmRequestCosts"),
    ),
    (ENVOY_AI_GATEWAY, "AIServiceBackend"): (
        *_removed("is no longer part of AIServiceBackend, ignored", "spec.timeouts"),
        *_ignored("ignored: a path prefix is written as schema.prefix", "spec.schema.version"),
    ),
}

# Where an object leaves these out, Pointsman's own default holds and not the CRD's: Envoy's hidden 1024, and a share of
# 10 % that never ejects anything in a small pool. From an API server the CRD's default comes as if it had been written.
# A backendRef's priority of 0 is said only where it is written: unset, the Backend's `fallback` decides.
UNSET_IS_OURS: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {
    # FailClose is for a picker that may not answer. Ours always does, so only who writes it means the pods' metrics.
    (INFERENCE, "InferencePool"): (("spec", "endpointPickerRef", "failureMode"),),
    (INFERENCE_ALPHA, "InferencePool"): (("spec", "extensionRef", "failureMode"),),
    (ENVOY_AI_GATEWAY, "AIGatewayRoute"): (("spec", "rules", "[]", "backendRefs", "[]", "priority"),),
    (ENVOY_GATEWAY, "BackendTrafficPolicy"): (
        ("spec", "circuitBreaker", "maxConnections"),
        ("spec", "circuitBreaker", "maxPendingRequests"),
        ("spec", "circuitBreaker", "maxParallelRequests"),
        ("spec", "circuitBreaker", "maxParallelRetries"),
        ("spec", "healthCheck", "passive", "maxEjectionPercent"),
    ),
}
