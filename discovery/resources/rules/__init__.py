"""Which CEL rules does an object break, and what would be right?

The CRDs' own CEL decides (cel.py). For the kinds that people write by hand most, functions in Python say the same with
the exact field and in better words: they are asked when CEL objects, and CEL's own words remain where they say nothing.
Such a function takes the object's `spec` and yields what it objects to, with the path below `spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from discovery.resources.kinds import Kind
from discovery.resources.meta import ENVOY_AI_GATEWAY, ENVOY_GATEWAY, GATEWAY_API, INFERENCE, INFERENCE_ALPHA
from discovery.resources.problem import FieldPath
from discovery.resources.rules import envoy, gateway, http_route, inference
from discovery.resources.schema import Finding, Validator

Spec = Mapping[str, Any]
SpecRules = Callable[[Spec], Iterator[Finding]]

EXPLANATIONS: Mapping[tuple[str, str], SpecRules] = {
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


def broken_rules(kind: Kind, validator: Validator, body: Mapping[str, Any]) -> list[Finding]:
    """What the rules of a kind object to in an object whose structure is right, at the nearest field we can name."""
    broken = validator.broken_rules(body)
    explain = EXPLANATIONS.get((kind.group, kind.kind)) if broken else None
    if explain is None:
        return broken
    found = [(("spec", *path), message) for path, message in explain(body["spec"])]
    explained = [finding for finding in found if any(_is_related(finding[0], path) for path, _ in broken)]
    rest = [finding for finding in broken if not any(_is_related(finding[0], path) for path, _ in explained)]
    return [*explained, *rest]


def _is_related(one: FieldPath, other: FieldPath) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]
