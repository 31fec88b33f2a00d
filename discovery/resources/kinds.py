"""Which kinds do we read, in which versions, and what becomes of the others?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from discovery.resources import core, envoy_ai_gateway, envoy_gateway, gateway_api, inference
from discovery.resources.meta import (
    ENVOY_AI_GATEWAY,
    ENVOY_GATEWAY,
    GATEWAY_API,
    INFERENCE,
    INFERENCE_ALPHA,
    LLM_D,
    Resource,
    UnimplementedPolicy,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind:
    """A kind that we read. ``versions`` maps each served apiVersion to the version of its schema."""

    group: str
    kind: str
    versions: Mapping[str, str]
    model: type[Resource] | None  # None: checked, and used by nothing yet, which `unused` says
    has_schema: bool = True  # core kinds have none: read leniently
    is_namespaced: bool = True
    unused: str = ""


def _kind(
    group: str,
    kind: str,
    versions: str,
    model: type[Resource] | None,
    *,
    aliases: Mapping[str, str] | None = None,
    has_schema: bool = True,
    is_namespaced: bool = True,
    unused: str = "",
) -> Kind:
    return Kind(
        group=group,
        kind=kind,
        versions={**{version: version for version in versions.split()}, **(aliases or {})},
        model=model,
        has_schema=has_schema,
        is_namespaced=is_namespaced,
        unused=unused,
    )


# Gateway API still serves v1beta1 of its older kinds; the shape is v1's.
_BETA = {"v1beta1": "v1"}

_NO_FILTER = "not implemented: a rule that refers to it is answered with 500"

_ALL = (
    _kind(GATEWAY_API, "GatewayClass", "v1", gateway_api.GatewayClass, aliases=_BETA, is_namespaced=False),
    _kind(GATEWAY_API, "Gateway", "v1", gateway_api.Gateway, aliases=_BETA),
    _kind(GATEWAY_API, "HTTPRoute", "v1", gateway_api.HTTPRoute, aliases=_BETA),
    _kind(GATEWAY_API, "ReferenceGrant", "v1 v1beta1", gateway_api.ReferenceGrant),
    _kind(GATEWAY_API, "BackendTLSPolicy", "v1", UnimplementedPolicy),
    _kind(INFERENCE, "InferencePool", "v1", inference.InferencePool),
    _kind(INFERENCE_ALPHA, "InferencePool", "v1alpha2", inference.InferencePool),
    _kind(INFERENCE_ALPHA, "InferenceModel", "v1alpha2", inference.InferenceModel),
    _kind(INFERENCE_ALPHA, "InferenceObjective", "v1alpha2", inference.InferenceObjective),
    _kind(INFERENCE_ALPHA, "InferenceModelRewrite", "v1alpha2", inference.InferenceModelRewrite),
    _kind(LLM_D, "InferenceObjective", "v1alpha2", inference.InferenceObjective),
    _kind(LLM_D, "InferenceModelRewrite", "v1alpha2", inference.InferenceModelRewrite),
    _kind(ENVOY_GATEWAY, "Backend", "v1alpha1", envoy_gateway.Backend),
    _kind(ENVOY_GATEWAY, "BackendTrafficPolicy", "v1alpha1", envoy_gateway.BackendTrafficPolicy),
    _kind(ENVOY_GATEWAY, "ClientTrafficPolicy", "v1alpha1", envoy_gateway.ClientTrafficPolicy),
    _kind(ENVOY_GATEWAY, "SecurityPolicy", "v1alpha1", UnimplementedPolicy),
    _kind(ENVOY_GATEWAY, "HTTPRouteFilter", "v1alpha1", None, unused=_NO_FILTER),
    _kind(ENVOY_AI_GATEWAY, "AIGatewayRoute", "v1alpha1 v1beta1", envoy_ai_gateway.AIGatewayRoute),
    _kind(ENVOY_AI_GATEWAY, "AIServiceBackend", "v1alpha1 v1beta1", envoy_ai_gateway.AIServiceBackend),
    _kind(ENVOY_AI_GATEWAY, "BackendSecurityPolicy", "v1alpha1 v1beta1", UnimplementedPolicy),
    _kind("", "ConfigMap", "v1", inference.AdapterMap, has_schema=False),
    _kind("", "Pod", "v1", core.Pod, has_schema=False),
    _kind("", "Service", "v1", core.Service, has_schema=False),
    _kind("", "Namespace", "v1", core.Namespace, has_schema=False, is_namespaced=False),
    _kind("discovery.k8s.io", "EndpointSlice", "v1", core.EndpointSlice, has_schema=False),
)

# The other sort of ConfigMap that is read; the label of the first goes before.
CERTIFICATE_MAP = _kind("", "ConfigMap", "v1", core.CertificateMap, has_schema=False)

KINDS: Mapping[tuple[str, str], Kind] = {(kind.group, kind.kind): kind for kind in _ALL}


def find_misspelt(group: str, kind: str) -> Kind | None:
    """The kind that was meant when only upper and lower case differ: an API server knows no such kind."""
    for known in _ALL:
        if known.group == group and known.kind.lower() == kind.lower() and known.kind != kind:
            return known
    return None


def find_namesake(kind: str) -> Kind | None:
    """A kind of the same name in a group that we read."""
    return next((known for known in _ALL if known.kind == kind and known.has_schema), None)
