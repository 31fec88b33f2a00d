"""What does docs/manifests.md say that neither a schema nor the list of unimplemented fields knows?"""

from __future__ import annotations

from collections.abc import Mapping

from discovery.resources.meta import (
    ENVOY_AI_GATEWAY,
    ENVOY_GATEWAY,
    GATEWAY_API,
    INFERENCE,
    INFERENCE_ALPHA,
    LLM_D,
)

KindName = tuple[str, str]  # group, kind

DONE, WARNED, INVALID = "done", "warned", "invalid"

_UNIMPLEMENTED_POLICY = (
    "Not implemented. What it is for answers 500 `unsupported_policy`, because without it Pointsman would do less than "
    "the policy promises; `--ignore-policy KIND` serves it without."
)
_OBJECTIVE = (
    "A priority for requests to a pool that name it in `x-gateway-inference-objective`, which is read with "
    "`--trust-objective-header` only: those below 0 are shed when the pool is saturated."
)

_REWRITE = (
    "Which models a pool is asked for in place of those that clients name. [policies.md](policies.md) has the order of "
    "precedence; both groups are one kind here."
)

INTRODUCTIONS: Mapping[KindName, str] = {
    (
        GATEWAY_API,
        "GatewayClass",
    ): "Read, so that a file with one is complete; every Gateway is served, whatever its class.",
    (GATEWAY_API, "Gateway"): "Its listeners say which hosts are served and which routes may attach.",
    (GATEWAY_API, "HTTPRoute"): "Sends requests to backends by model, path, header, query and method.",
    (GATEWAY_API, "ReferenceGrant"): "Lets objects of one namespace refer to objects of another.",
    (GATEWAY_API, "BackendTLSPolicy"): _UNIMPLEMENTED_POLICY,
    (INFERENCE, "InferencePool"): "The pods of one model server, selected by label.",
    (
        INFERENCE_ALPHA,
        "InferencePool",
    ): "The older form of a pool: one port, a plain label map. The port may be left out "
    "in a file, and then the AIServiceBackends with these labels are the pool.",
    (
        INFERENCE_ALPHA,
        "InferenceModel",
    ): "A model's name at a pool: it is listed at `/v1/models`, requests for it may ask the pool for other models, and "
    "its criticality says whether they are shed when the pool is saturated.",
    (INFERENCE_ALPHA, "InferenceObjective"): _OBJECTIVE,
    (INFERENCE_ALPHA, "InferenceModelRewrite"): _REWRITE,
    (LLM_D, "InferenceObjective"): _OBJECTIVE,
    (LLM_D, "InferenceModelRewrite"): _REWRITE,
    (ENVOY_GATEWAY, "Backend"): "Addresses outside of the cluster's Services: IP addresses or host names.",
    (ENVOY_GATEWAY, "BackendTrafficPolicy"): "How requests travel to the backends of a route or of a whole Gateway.",
    (ENVOY_GATEWAY, "ClientTrafficPolicy"): "What a listener accepts from clients.",
    (ENVOY_GATEWAY, "SecurityPolicy"): _UNIMPLEMENTED_POLICY,
    (ENVOY_GATEWAY, "HTTPRouteFilter"): "Checked against its schema. A rule that refers to one answers 500 "
    "`unsupported_filter`: a filter must not be passed over.",
    (
        ENVOY_AI_GATEWAY,
        "AIGatewayRoute",
    ): "Sends requests to AIServiceBackends and InferencePools by headers, the model's name among them.",
    (ENVOY_AI_GATEWAY, "AIServiceBackend"): "A Backend and the API that it speaks.",
    (ENVOY_AI_GATEWAY, "BackendSecurityPolicy"): _UNIMPLEMENTED_POLICY,
    ("", "ConfigMap"): 'With the label `inference.networking.k8s.io/bbr-managed: "true"`: the LoRA adapters of a base '
    "model. With `ca.crt`: certificate authorities for Backends. Other ConfigMaps are skipped.",
    ("", "Pod"): "The endpoints of InferencePools and Services, where they are ready.",
    ("", "Service"): "A backend of an HTTPRoute: its EndpointSlices, else the pods that it selects, else its DNS name.",
    ("", "Namespace"): "Its labels, for `allowedRoutes`.",
    ("discovery.k8s.io", "EndpointSlice"): "The endpoints of a Service.",
}

_FILTER = "a rule with this filter answers 500 `unsupported_filter`"
_SHARE = "this backend's share of requests is answered with 500 `unsupported_filter`"
_ALL_OF_POLICY = "not implemented, see above"

# Fields of a schema that are in no typed model and are no FieldNote: what becomes of each and of all below it.
FIELDS: Mapping[KindName, Mapping[str, tuple[str, str]]] = {
    (GATEWAY_API, "GatewayClass"): {
        "spec.description": (DONE, "for people"),
    },
    (GATEWAY_API, "Gateway"): {
        "spec.listeners[].tls": (INVALID, "listeners other than HTTP are not served, and never in clear"),
    },
    (GATEWAY_API, "HTTPRoute"): {
        **{f"spec.rules[].filters[].{name}": (INVALID, _FILTER) for name in ("cors", "extensionRef", "externalAuth")},
        **{
            f"spec.rules[].backendRefs[].filters[].{name}": (INVALID, _SHARE)
            for name in ("cors", "extensionRef", "externalAuth", "requestRedirect")
        },
    },
    (GATEWAY_API, "BackendTLSPolicy"): {
        "spec.options": (INVALID, _ALL_OF_POLICY),
        "spec.validation": (INVALID, _ALL_OF_POLICY),
    },
    (INFERENCE, "InferencePool"): {
        "spec.selector.matchLabels": (DONE, "of pods in the pool's namespace"),
        "spec.targetPorts[].number": (DONE, ""),
    },
    (INFERENCE_ALPHA, "InferencePool"): {
        "spec.selector": (DONE, "of pods in the pool's namespace"),
        "spec.targetPortNumber": (DONE, "may be left out in a file"),
    },
    (ENVOY_GATEWAY, "Backend"): {
        "spec.endpoints[].unix": (INVALID, "references to a Backend with one answer 500"),
        **{
            f"spec.tls.{name}": (INVALID, "references to it answer 500: OpenSSL's defaults are offered")
            for name in ("ciphers", "ecdhCurves", "signatureAlgorithms")
        },
        "spec.tls.clientCertificateRef": (INVALID, "references to it answer 500: Secrets are not read"),
    },
    (ENVOY_GATEWAY, "SecurityPolicy"): {
        f"spec.{name}": (INVALID, _ALL_OF_POLICY)
        for name in ("apiKeyAuth", "authorization", "basicAuth", "cors", "extAuth", "jwt", "mergeType", "oidc")
    },
    (ENVOY_AI_GATEWAY, "AIServiceBackend"): {
        "spec.backendRef.port": (DONE, "a Backend has its own ports"),
    },
    (ENVOY_AI_GATEWAY, "BackendSecurityPolicy"): {
        f"spec.{name}": (INVALID, _ALL_OF_POLICY)
        for name in (
            "anthropicAPIKey",
            "apiKey",
            "awsCredentials",
            "azureAPIKey",
            "azureCredentials",
            "credentialOverride",
            "gcpCredentials",
            "type",
        )
    },
}

_JSON_VALUE = "JSON; what is none is taken as a string, as in Envoy AI Gateway"

# What there is to say of a field that works.
REMARKS: Mapping[KindName, Mapping[str, str]] = {
    (GATEWAY_API, "Gateway"): {
        "spec.listeners[].port": "without `--listen-on-gateway-ports` all HTTP listeners share `--port`; "
        "of two with one hostname the later is Conflicted",
        "spec.listeners[].protocol": "HTTP; of others the listener is not accepted (UnsupportedProtocol)",
        "spec.listeners[].hostname": "a request belongs to the most specific listener only",
        "spec.gatewayClassName": "not looked at in files",
    },
    (GATEWAY_API, "HTTPRoute"): {
        "spec.parentRefs[].name": "without a Gateway in the files every route is served",
        "spec.hostnames": "a request belongs to the most specific hostname only, as in Envoy",
        "spec.rules[].matches[].path.type": "regular expressions rank between Exact and PathPrefix, as in Envoy",
        "spec.rules[].matches[].path.value": "regular expressions are RE2 and match in full",
        "spec.rules[].matches[].headers[].value": "the model's name is the header `X-Gateway-Model-Name` or "
        "`x-ai-eg-model`, set from the body",
        "spec.rules[].backendRefs[].kind": "Service, InferencePool or Backend",
        "spec.rules[].backendRefs[].port": "of a Service; of other kinds not looked at",
    },
    (INFERENCE, "InferencePool"): {"spec.appProtocol": "`http`; references to others answer 500"},
    (ENVOY_GATEWAY, "Backend"): {
        "spec.type": "Endpoints; references to a DynamicResolver answer 500",
        "spec.endpoints[].fqdn.hostname": "resolved at connect; sent as Host",
        "spec.tls.caCertificateRefs[].kind": "ConfigMap, with `ca.crt`; references to it with others answer 500",
        "spec.tls.wellKnownCACertificates": "System; references to it with others answer 500",
        "spec.tls.sni": "else the fqdn; an IP address must be in the certificate",
        "spec.tls.maxVersion": "references to it with 1.0 or 1.1 answer 500",
        "spec.appProtocols": "references to one with HTTP/2 or wss answer 500",
    },
    (ENVOY_GATEWAY, "ClientTrafficPolicy"): {"spec.connection.bufferLimit": "the limit for request bodies; else 50Mi"},
    (ENVOY_AI_GATEWAY, "AIServiceBackend"): {
        "spec.schema.name": "OpenAI, Anthropic and Cohere pass through; references to others answer 500",
        "spec.bodyMutation.set[].value": _JSON_VALUE,
    },
    (ENVOY_AI_GATEWAY, "AIGatewayRoute"): {
        "spec.rules[].backendRefs[].modelNameOverride": "without effect on an InferencePool; answers keep the client's "
        "name",
        "spec.rules[].backendRefs[].bodyMutation.set[].path": "the name of a member of the top level",
        "spec.rules[].backendRefs[].bodyMutation.set[].value": _JSON_VALUE,
    },
    (INFERENCE_ALPHA, "InferenceModel"): {
        "spec.criticality": "Sheddable is priority -1, Standard 0, Critical 1",
        "spec.targetModels[].name": "one is drawn for each request; answers keep the client's name",
    },
    **{
        (group, "InferenceModelRewrite"): {
            "spec.rules[].matches[].model.value": "exact, before rules without matches",
            "spec.rules[].targets[].weight": "beside one that has a weight, those without are never drawn",
            "spec.poolRef.kind": "InferencePool; others are ResolvedRefs=False and have no effect",
        }
        for group in (INFERENCE_ALPHA, LLM_D)
    },
    ("", "ConfigMap"): {
        "data.baseModel": "must not be blank",
        "data.adapters": "a YAML list of names, in a string",
        "data.ca.crt": "certificates in PEM",
    },
}

# Kinds whose typed model is not the shape of the file.
SHAPES: Mapping[KindName, tuple[str, ...]] = {
    ("", "ConfigMap"): ("data.adapters", "data.baseModel", "data.ca.crt"),
    ("", "Namespace"): ("metadata.labels",),
}
