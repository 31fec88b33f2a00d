"""The snapshot and the conditions as JSON, with credentials masked."""

from __future__ import annotations

import json

from discovery.describe import describe, describe_statuses
from discovery.shown import MASK
from discovery.snapshot import Snapshot
from tests.discovery.loading import LoadText

TEXT = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, generation: 3}
spec:
  hostnames: [a.com]
  rules:
  - matches:
    - path: {type: Exact, value: /a}
      method: GET
      headers: [{name: x-api-key, value: sk-secret-1}, {name: x-team, type: RegularExpression, value: r.*}]
      queryParams: [{name: q, value: v}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: Authorization, value: Bearer sk-secret-2}, {name: x-plain, value: seen}]
        add: [{name: x-auth-token, value: sk-secret-3}]
        remove: [x-gone]
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: set-cookie, value: sk-secret-4}]}
    - {type: URLRewrite, urlRewrite: {hostname: b.com, path: {type: ReplaceFullPath, replaceFullPath: /full}}}
    backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: b}
    - {group: gateway.envoyproxy.io, kind: Backend, name: nowhere}
  - filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
  - {}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{fqdn: {hostname: b.com, port: 81}}]}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: ai}
spec: {schema: {name: OpenAI, prefix: /p}, backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: b}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: r}
spec: {rules: [{backendRefs: [{name: ai}]}, {backendRefs: [{name: pool, kind: InferencePool}]}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}}
status: {podIP: 10.0.0.1}
"""


def test_the_whole_snapshot_is_json_and_holds_no_credential(load_text: LoadText) -> None:
    compiled = load_text.compiled(TEXT)
    snapshot = Snapshot(version=7, routing=compiled.routing, membership=compiled.membership)
    described = describe(snapshot)
    text = json.dumps(described)
    assert "sk-secret" not in text
    assert text.count(f'"{MASK}"') == 4
    assert described["version"] == 7
    assert described["backends"]["Backend/default/b"]["endpoints"] == [
        {"id": "b.com:81", "address": "b.com", "port": 81, "host": "b.com:81"}
    ]
    assert described["backends"]["AIServiceBackend/default/ai"]["endpoints"][0]["pathRewrites"] == [
        {"prefix": "/v1", "replacePrefixMatch": "/p"}
    ]
    assert described["backends"]["InferencePool/default/pool"]["endpoints"][0]["pod"] == "default/p"
    first, redirect, empty = described["rules"][:3]
    assert first["filters"]["path"] == {"replaceFullPath": "/full"}
    assert first["filters"]["host"] == "b.com"
    assert first["backendRefs"][1]["refusal"]["reason"] == "invalid_backend_ref"
    assert redirect["redirect"]["path"] == {"prefix": "/", "replacePrefixMatch": "/"}
    assert empty["refusal"]["reason"] == "invalid_backend_ref"
    (listener,) = described["listeners"]
    assert listener["matches"][0] == {
        "rule": "HTTPRoute/default/r/0",
        "path": {"type": "Exact", "value": "/a"},
        "hostnames": ["a.com"],
        "method": "GET",
        "headers": [
            {"name": "x-api-key", "type": "Exact", "value": MASK},
            {"name": "x-team", "type": "RegularExpression", "value": "r.*"},
        ],
        "queryParams": [{"name": "q", "type": "Exact", "value": "v"}],
    }


def test_conditions_have_the_shape_of_a_kubernetes_status(load_text: LoadText) -> None:
    statuses = describe_statuses(load_text.compiled(TEXT).routing)
    json.dumps(statuses)
    route = next(s for s in statuses if s["kind"] == "HTTPRoute")
    assert route["conditions"] == [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": 3},
        {
            "type": "ResolvedRefs",
            "status": "False",
            "reason": "BackendNotFound",
            "message": "spec.rules[0].backendRefs[1]: there is no Backend default/nowhere",
            "observedGeneration": 3,
        },
    ]


def test_attached_routes_and_parents_are_shown(load_text: LoadText) -> None:
    gateway = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: c, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
    statuses = describe_statuses(load_text.compiled(gateway).routing)
    assert [(s.get("parent"), s.get("attachedRoutes")) for s in statuses] == [(None, None), ("default/gw/http", 0)]


def test_mirrors_and_supported_kinds_are_shown(load_text: LoadText) -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}, percent: 5}}"
    text = f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec: {{gatewayClassName: c, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: copy}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec: {{rules: [{{filters: [{mirror}], backendRefs: [{{name: copy, port: 80}}]}}]}}
"""
    compiled = load_text.compiled(text)
    described = describe(Snapshot(version=1, routing=compiled.routing, membership=compiled.membership))
    assert described["rules"][0]["mirrors"] == [
        {
            "name": "default/copy",
            "backend": "Service/default/copy:80",
            "fraction": {"numerator": 5, "denominator": 100},
        }
    ]
    (listener,) = [s for s in describe_statuses(compiled.routing) if s.get("parent") == "default/gw/http"]
    assert listener["supportedKinds"][0] == {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}
