"""The CEL rules of each kind, one broken rule at a time."""

# ruff: noqa: E501 (a table of one-line YAML reads by its columns)

from __future__ import annotations

import textwrap

import pytest

from discovery.resources.decode import decode
from discovery.resources.problem import Severity


def refusals(api_version: str, kind: str, spec: str) -> list[str]:
    text = f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n"
    decoded = decode(text + textwrap.indent(textwrap.dedent(spec), "  "), file="f")
    return [f"{p.field}: {p.message}" for p in decoded.problems if p.severity is Severity.REFUSED]


def check(api_version: str, kind: str, spec: str, expected: str | None) -> None:
    found = refusals(api_version, kind, spec)
    if expected is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param("matches: [{path: {type: Exact, value: v1}}]", "rules[0].matches[0].path.value: must start", id="/"),
        pytest.param("matches: [{path: {value: /a//b}}]", 'rules[0].matches[0].path.value: must not contain "//"', id="//"),
        pytest.param("matches: [{path: {value: /a/./b}}]", 'rules[0].matches[0].path.value: must not contain "/./"', id="/./"),
        pytest.param("matches: [{path: {value: /a/../b}}]", 'rules[0].matches[0].path.value: must not contain "/../"', id="/../"),
        pytest.param("matches: [{path: {value: /a%2fb}}]", 'rules[0].matches[0].path.value: must not contain "%2f"', id="%2f"),
        pytest.param("matches: [{path: {value: /a%2Fb}}]", 'rules[0].matches[0].path.value: must not contain "%2F"', id="%2F"),
        pytest.param("matches: [{path: {value: /a/..}}]", 'rules[0].matches[0].path.value: must not end with "/.."', id="/.."),
        pytest.param("matches: [{path: {value: /a/.}}]", 'rules[0].matches[0].path.value: must not end with "/."', id="/."),
        pytest.param("matches: [{path: {value: '/a b'}}]", "rules[0].matches[0].path.value: must only", id="space"),
        pytest.param("matches: [{path: {type: RegularExpression, value: a//b}}]", None, id="a-regex-is-free"),
        pytest.param("filters: [{type: RequestRedirect, requestRedirect: {}}]\n  backendRefs: [{name: x, port: 80}]", "rules[0].backendRefs: must not be there together", id="redirect-and-backend"),
        pytest.param("filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]", "rules[0].filters: may have either", id="redirect-and-rewrite"),
        pytest.param("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: RequestHeaderModifier, requestHeaderModifier: {}}]", "rules[0].filters[1]: a RequestHeaderModifier filter cannot be repeated", id="repeated-filter"),
        pytest.param("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: x, port: 1}}}, {type: RequestMirror, requestMirror: {backendRef: {name: y, port: 1}}}]", None, id="mirrors-may-repeat"),
        pytest.param("filters: [{type: URLRewrite}]", "rules[0].filters[0].urlRewrite: is required when type is URLRewrite", id="filter-without-its-field"),
        pytest.param("filters: [{type: URLRewrite, urlRewrite: {}, requestRedirect: {}}]", "rules[0].filters[0].requestRedirect: must not be there unless type is RequestRedirect", id="filter-with-another-field"),
        pytest.param("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}]", "rules[0].filters[0].urlRewrite.path.replaceFullPath: is required", id="rewrite-without-path"),
        pytest.param("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /, replacePrefixMatch: /}}}]", "rules[0].filters[0].urlRewrite.path.replacePrefixMatch: must not", id="rewrite-with-both"),
        pytest.param("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]", None, id="prefix-of-the-default-match"),
        pytest.param("matches: [{path: {type: Exact, value: /a}}]\n  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]", "rules[0].filters[0].urlRewrite.path.replacePrefixMatch: needs exactly one", id="prefix-of-an-exact-match"),
        pytest.param("matches: [{}, {}]\n  backendRefs: [{name: x, port: 1, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}]", "rules[0].backendRefs[0].filters[0].urlRewrite.path.replacePrefixMatch: needs", id="prefix-of-two-matches"),
        pytest.param("backendRefs: [{name: x}]", "rules[0].backendRefs[0].port: is required for a reference to a Service", id="service-without-port"),
        pytest.param("timeouts: {request: 1s, backendRequest: 2s}", "rules[0].timeouts.backendRequest: cannot be longer", id="timeouts"),
        pytest.param("timeouts: {request: 0s, backendRequest: 2s}", None, id="no-request-timeout"),
        pytest.param("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: x, port: 1}, percent: 1, fraction: {numerator: 1}}}]", "rules[0].filters[0].requestMirror: may have only one", id="mirror-share"),
        pytest.param("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: x, port: 1}, fraction: {numerator: 101}}}]", "rules[0].filters[0].requestMirror.fraction.numerator: must not", id="mirror-fraction"),
        pytest.param("filters: [{type: CORS, cors: {allowOrigins: ['*', 'http://a.b']}}]", "rules[0].filters[0].cors.allowOrigins: cannot have", id="cors"),
        pytest.param("filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: x, port: 1}}}]", "rules[0].filters[0].externalAuth.http: must be there", id="external-auth"),
        pytest.param("sessionPersistence: {type: Header}", "rules[0].sessionPersistence.header: must be there", id="session-header"),
        pytest.param("sessionPersistence: {cookie: {lifetimeType: Permanent}}", "rules[0].sessionPersistence.absoluteTimeout: is required", id="session-lifetime"),
        pytest.param("name: a\n- name: a", 'rules[1].name: "a" is the name of another rule', id="rule-names"),
        pytest.param("name: a\n- {}\n- {}", None, id="rules-without-names"),
    ],
)  # fmt: skip
def test_http_route_rules(rule: str, expected: str | None) -> None:
    full = None if expected is None else f"spec.{expected}"
    check("gateway.networking.k8s.io/v1", "HTTPRoute", f"rules:\n- {rule}\n", full)


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        pytest.param("[{name: g}, {name: g}]", "spec.parentRefs[1]: sectionName or port must be specified", id="twice"),
        pytest.param("[{name: g, sectionName: a}, {name: g, sectionName: a}]", "spec.parentRefs[1]: sectionName or port must be unique", id="same-section"),
        pytest.param("[{name: g, sectionName: a}, {name: g}]", "spec.parentRefs[1]: sectionName or port must be spec", id="one-without"),
        pytest.param("[{name: g, sectionName: a}, {name: g, sectionName: b}, {name: h}]", None, id="told-apart"),
    ],
)  # fmt: skip
def test_two_references_to_one_parent_tell_its_listeners_apart(refs: str, expected: str | None) -> None:
    check("gateway.networking.k8s.io/v1", "HTTPRoute", f"parentRefs: {refs}\n", expected)
    check("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", f"parentRefs: {refs}\nrules: []\n", None)  # no such rule


def test_a_route_has_at_most_128_matches() -> None:
    rule = "- matches: [" + ", ".join(["{}"] * 43) + "]\n"
    check(
        "gateway.networking.k8s.io/v1", "HTTPRoute", "rules:\n" + rule * 3, "spec.rules: must have at most 128 matches"
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("[{name: a, port: 80, protocol: HTTP, tls: {options: {a: b}}}]", "spec.listeners[0].tls: must not", id="tls-on-http"),
        pytest.param("[{name: a, port: 80, protocol: TCP, hostname: a.b}]", "spec.listeners[0].hostname: must not", id="tcp-hostname"),
        pytest.param("[{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}]", "spec.listeners[0].tls.mode: must be Terminate", id="https-mode"),
        pytest.param("[{name: a, port: 443, protocol: TLS}]", "spec.listeners[0].tls.mode: is required", id="tls-mode"),
        pytest.param("[{name: a, port: 443, protocol: HTTPS, tls: {}}]", "spec.listeners[0].tls: certificateRefs or options", id="no-certificate"),
        pytest.param("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]", "spec.listeners[1]: has the port", id="same-place"),
        pytest.param("[{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]", 'spec.listeners[1]: is there twice: name "a"', id="same-name"),
        pytest.param("[{name: a, port: 80, protocol: HTTP}]\naddresses: [{}, {type: Hostname, value: a.b}]", None, id="addresses"),
        pytest.param("[{name: a, port: 80, protocol: HTTP}]\naddresses: [{type: Hostname, value: '%'}]", "spec.addresses[0].value: is not a hostname", id="address"),
        pytest.param("[{name: a, port: 80, protocol: HTTP}]\naddresses: [{value: 1.2.3.4}, {value: 1.2.3.4}]", "spec.addresses[1].value: IPAddress values must be unique", id="same-address"),
        pytest.param("[{name: a, port: 80, protocol: HTTP}]\ninfrastructure: {labels: {'a b': c}}", 'spec.infrastructure.labels["a b"]: is not a qualified name', id="label"),
    ],
)  # fmt: skip
def test_gateway_rules(spec: str, expected: str | None) -> None:
    check("gateway.networking.k8s.io/v1", "Gateway", f"gatewayClassName: c\nlisteners: {spec}\n", expected)


TARGET = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]\n"


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        pytest.param("Backend", "endpoints: [{}]", "spec.endpoints[0]: exactly one of", id="endpoint-of-no-kind"),
        pytest.param("Backend", "endpoints: [{ip: {address: 1.1.1.1, port: 1}, unix: {path: /a}}]", "spec.endpoints[0]: exactly one", id="two-kinds"),
        pytest.param("Backend", "endpoints: [{ip: {address: 1.1.1.1, port: 1}}, {fqdn: {hostname: a, port: 1}}]", "spec.endpoints: fqdn", id="mixed"),
        pytest.param("Backend", "type: DynamicResolver\nendpoints: [{unix: {path: /a}}]", "spec.endpoints: must not", id="resolver"),
        pytest.param("Backend", f"endpoints: [{{unix: {{path: /{'a' * 108}}}}}]", "spec.endpoints[0].unix.path: must have at most 108", id="unix-path"),
        pytest.param("Backend", "tls: {caCertificateRefs: [{group: '', kind: C, name: n}], wellKnownCACertificates: System}", "spec.tls: must not have both", id="tls-authorities"),
        pytest.param("Backend", "tls: {insecureSkipVerify: true, wellKnownCACertificates: System}", "spec.tls.insecureSkipVerify: must not", id="tls-skip"),
        pytest.param("BackendTrafficPolicy", "{}", "spec.targetRefs: either targetRef or targetRefs", id="no-target"),
        pytest.param("BackendTrafficPolicy", "targetRefs: [{group: x, kind: Gateway, name: g}]", "spec.targetRefs[0].group: must be", id="target-group"),
        pytest.param("BackendTrafficPolicy", "targetRefs: [{group: gateway.networking.k8s.io, kind: Service, name: g}]", "spec.targetRefs[0].kind: must be one of", id="target-kind"),
        pytest.param("BackendTrafficPolicy", TARGET + "compression: []\ncompressor: []", "spec.compression: must not", id="compression"),
        pytest.param("BackendTrafficPolicy", TARGET + "requestBuffer: {limit: 1Mi}\nhttpUpgrade: [{type: websocket}]", "spec.requestBuffer: must not", id="buffer-and-upgrade"),
        pytest.param("BackendTrafficPolicy", "targetSelectors: [{kind: TCPRoute}]\nadmissionControl: {}", "spec.targetSelectors[0].kind: admissionControl", id="admission-target"),
        pytest.param("BackendTrafficPolicy", TARGET + "mergeType: Replace", "spec.mergeType: Replace is not allowed", id="merge-type"),
        pytest.param("BackendTrafficPolicy", TARGET + "timeout: {http: {requestTimeout: 1.5h}}", "spec.timeout.http.requestTimeout:", id="duration"),
        pytest.param("ClientTrafficPolicy", "targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: g}", "spec.targetRef.kind: must be one of Gateway", id="client-target"),
        pytest.param("ClientTrafficPolicy", TARGET + "connection: {connectionLimit: {closeDelay: 1s}}", "spec.connection.connectionLimit.closeDelay: can only", id="close-delay"),
        pytest.param("ClientTrafficPolicy", TARGET + "headers: {preserveXRequestID: true, requestID: Disable}", "spec.headers.preserveXRequestID: must not", id="request-id"),
        pytest.param("ClientTrafficPolicy", TARGET + "clientIPDetection: {customHeader: {name: x}, xForwardedFor: {numTrustedHops: 1}}", "spec.clientIPDetection: customHeader must not", id="client-ip"),
        pytest.param("ClientTrafficPolicy", TARGET + "connection: {bufferLimit: lots}", "spec.connection.bufferLimit:", id="buffer-limit"),
        pytest.param("SecurityPolicy", "targetRef: {group: gateway.networking.k8s.io, kind: UDPRoute, name: g}", "spec.targetRef.kind: must be one of", id="security-target"),
    ],
)  # fmt: skip
def test_envoy_gateway_rules(kind: str, spec: str, expected: str) -> None:
    found = refusals("gateway.envoyproxy.io/v1alpha1", kind, spec)
    assert found
    assert found[0].startswith(expected)


POOL = "group: inference.networking.k8s.io, kind: InferencePool"


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        pytest.param("AIGatewayRoute", "parentRefs: [{name: s, kind: Service}]\nrules: []", "spec.parentRefs[0].kind: only Gateway", id="parent-kind"),
        pytest.param("AIGatewayRoute", "rules: [{name: route-not-found}]", "spec.rules[0].name: route-not-found is reserved", id="reserved-name"),
        pytest.param("AIGatewayRoute", "rules: [{backendRefs: [{name: a, kind: Service}]}]", "spec.rules[0].backendRefs[0]: group and kind", id="kind-alone"),
        pytest.param("AIGatewayRoute", "rules: [{backendRefs: [{name: a, group: x, kind: Y}]}]", "spec.rules[0].backendRefs[0]: only InferencePool", id="other-kind"),
        pytest.param("AIGatewayRoute", f"rules: [{{backendRefs: [{{name: a, {POOL}}}, {{name: b}}]}}]", "spec.rules[0].backendRefs: InferencePool and", id="mixed"),
        pytest.param("AIGatewayRoute", f"rules: [{{backendRefs: [{{name: a, {POOL}}}, {{name: b, {POOL}}}]}}]", "spec.rules[0].backendRefs: only one", id="two-pools"),
        pytest.param("AIGatewayRoute", "rules: [{timeouts: {request: 1s, backendRequest: 2s}}]", "spec.rules[0].timeouts.backendRequest:", id="timeouts"),
        pytest.param("AIServiceBackend", "schema: {name: OpenAI}\nbackendRef: {name: b, kind: Service, port: 80}", "spec.backendRef: must be a Backend", id="service"),
    ],
)  # fmt: skip
def test_ai_gateway_rules(kind: str, spec: str, expected: str) -> None:
    for version in ("v1alpha1", "v1beta1"):
        check(f"aigateway.envoyproxy.io/{version}", kind, spec, expected)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("targetPorts: [{number: 1}, {number: 1}]", "spec.targetPorts[1].number: port number must be unique", id="ports"),
        pytest.param("targetPorts: [{number: 1}]\nendpointPickerRef: {name: e}", "spec.endpointPickerRef.port: is required", id="picker-port"),
        pytest.param("targetPorts: [{number: 1}]\nendpointPickerRef: {name: e, kind: Other}", None, id="other-picker"),
        pytest.param("targetPorts: []", "spec.targetPorts: must have at least 1 item", id="no-port"),
    ],
)  # fmt: skip
def test_inference_pool_rules(spec: str, expected: str | None) -> None:
    spec = f"selector: {{matchLabels: {{app: x}}}}\n{spec}\n"
    check("inference.networking.k8s.io/v1", "InferencePool", spec, expected)


def test_inference_model_weights_are_all_or_none() -> None:
    spec = "modelName: m\npoolRef: {name: p}\ntargetModels: [{name: a, weight: 1}, {name: b}]\n"
    check("inference.networking.x-k8s.io/v1alpha2", "InferenceModel", spec, "spec.targetModels: weights must be set")
