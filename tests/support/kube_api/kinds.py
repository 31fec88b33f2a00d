"""Which kinds does the tests' API server have? Built-in ones, and custom resources that come and go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKind:
    """A resource of the API. ``versions`` are served, all of them the same objects; the first is the stored one."""

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    is_namespaced: bool = True
    is_custom: bool = True  # defined by a CRD
    has_generation: bool = True

    @property
    def qualified(self) -> str:
        """ "inferencepools.inference.networking.k8s.io", as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str = "") -> str:
        """ "group/version", or "v1" of the core group."""
        version = version or self.versions[0]
        return f"{self.group}/{version}" if self.group else version


def _built_in(group: str, plural: str, kind: str, *, namespaced: bool = True, generation: bool = False) -> ApiKind:
    return ApiKind(
        group=group,
        versions=("v1",),
        plural=plural,
        kind=kind,
        is_namespaced=namespaced,
        is_custom=False,
        has_generation=generation,
    )


_GATEWAY, _INFERENCE = "gateway.networking.k8s.io", "inference.networking.k8s.io"
_ENVOY, _AI = "gateway.envoyproxy.io", "aigateway.envoyproxy.io"

BUILT_IN = (
    _built_in("", "pods", "Pod"),
    _built_in("", "services", "Service"),
    _built_in("", "configmaps", "ConfigMap"),
    _built_in("", "namespaces", "Namespace", namespaced=False),
    _built_in("discovery.k8s.io", "endpointslices", "EndpointSlice", generation=True),
    _built_in("coordination.k8s.io", "leases", "Lease"),
)
CUSTOM = (
    ApiKind(group=_GATEWAY, versions=("v1",), plural="gatewayclasses", kind="GatewayClass", is_namespaced=False),
    ApiKind(group=_GATEWAY, versions=("v1", "v1beta1"), plural="gateways", kind="Gateway"),
    ApiKind(group=_GATEWAY, versions=("v1", "v1beta1"), plural="httproutes", kind="HTTPRoute"),
    ApiKind(group=_GATEWAY, versions=("v1beta1",), plural="referencegrants", kind="ReferenceGrant"),
    ApiKind(group=_INFERENCE, versions=("v1",), plural="inferencepools", kind="InferencePool"),
    ApiKind(
        group="inference.networking.x-k8s.io", versions=("v1alpha2",), plural="inferencepools", kind="InferencePool"
    ),
    ApiKind(group=_ENVOY, versions=("v1alpha1",), plural="backends", kind="Backend"),
    ApiKind(group=_ENVOY, versions=("v1alpha1",), plural="backendtrafficpolicies", kind="BackendTrafficPolicy"),
    ApiKind(group=_ENVOY, versions=("v1alpha1",), plural="clienttrafficpolicies", kind="ClientTrafficPolicy"),
    ApiKind(group=_ENVOY, versions=("v1alpha1",), plural="securitypolicies", kind="SecurityPolicy"),
    ApiKind(group=_AI, versions=("v1alpha1", "v1beta1"), plural="aigatewayroutes", kind="AIGatewayRoute"),
    ApiKind(group=_AI, versions=("v1alpha1",), plural="aiservicebackends", kind="AIServiceBackend"),
)
