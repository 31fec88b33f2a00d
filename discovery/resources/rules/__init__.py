"""What do the CEL rules of each kind say? In Python, over the plain data of an object that its schema accepts.

A rule is a function of the object's `spec` that yields what it objects to, with the path below `spec`. The CRDs carry
the same rules as CEL in `x-kubernetes-validations`; transition rules (`oldSelf`) have no meaning for a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from discovery.resources.meta import ENVOY_AI_GATEWAY, ENVOY_GATEWAY, GATEWAY_API, INFERENCE, INFERENCE_ALPHA
from discovery.resources.rules import envoy, gateway, http_route, inference
from discovery.resources.schema import Finding

Spec = Mapping[str, Any]
SpecRules = Callable[[Spec], Iterator[Finding]]

RULES: Mapping[tuple[str, str], SpecRules] = {
    (GATEWAY_API, "HTTPRoute"): http_route.check_http_route,
    (GATEWAY_API, "Gateway"): gateway.check_gateway,
    (INFERENCE, "InferencePool"): inference.check_inference_pool,
    (INFERENCE_ALPHA, "InferenceModel"): inference.check_inference_model,
    (ENVOY_GATEWAY, "Backend"): envoy.check_backend,
    (ENVOY_GATEWAY, "BackendTrafficPolicy"): envoy.check_backend_traffic_policy,
    (ENVOY_GATEWAY, "ClientTrafficPolicy"): envoy.check_client_traffic_policy,
    (ENVOY_GATEWAY, "SecurityPolicy"): envoy.check_security_policy,
    (ENVOY_AI_GATEWAY, "AIGatewayRoute"): envoy.check_ai_gateway_route,
    (ENVOY_AI_GATEWAY, "AIServiceBackend"): envoy.check_ai_service_backend,
}
