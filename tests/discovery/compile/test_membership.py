"""Endpoints of each backend: pods, slices, addresses, names; and what stays the same object over reloads."""

from __future__ import annotations

import pytest

from discovery.compile import compile_membership
from discovery.compile.membership import path_rewrites
from discovery.filters import ReplacePrefix
from discovery.resources.envoy_ai_gateway import VersionedSchema
from tests.discovery.loading import LoadText


def pod(name: str, ip: str = "10.0.0.1", metadata: str = "", rest: str = "", labels: str = "app: x") -> str:
    return f"""\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{labels}}}{metadata}}}
status: {{podIP: '{ip}'{rest}}}
---
"""


POOL = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}, {number: 8001}]}
---
"""


def of(load_text: LoadText, text: str, backend: str) -> list[str]:
    return [endpoint.id for endpoint in load_text.compiled(text).membership[backend]]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param(pod("a"), ["default/a/10.0.0.1:8000", "default/a/10.0.0.1:8001"], id="each-port-of-each-pod"),
        pytest.param(pod("a", metadata=", uid: u1"), ["u1/10.0.0.1:8000", "u1/10.0.0.1:8001"], id="uid"),
        pytest.param(pod("a", "fd00::1"), ["default/a/[fd00::1]:8000", "default/a/[fd00::1]:8001"], id="ipv6"),
        pytest.param(pod("a", rest=", conditions: [{type: Ready, status: 'False'}]"), [], id="unready"),
        pytest.param(pod("a", metadata=', deletionTimestamp: "2026-01-01T00:00:00Z"'), [], id="terminating"),
        pytest.param(pod("a", labels="app: y"), [], id="other-labels"),
        pytest.param(pod("a", metadata=", namespace: other"), [], id="other-namespace"),
        pytest.param(pod("a", ip=""), [], id="without-an-address"),
        pytest.param(
            pod("a", metadata=", annotations: {inference.networking.k8s.io/active-ports: '8001, 9000'}"),
            ["default/a/10.0.0.1:8001"],
            id="active-ports",
        ),
        pytest.param(
            pod("a", metadata=", annotations: {llm-d.ai/active-ports: '8000'}"),
            ["default/a/10.0.0.1:8000"],
            id="active-ports-by-their-newer-name",
        ),
    ],
)
def test_a_pool_is_its_ready_pods_at_its_ports(load_text: LoadText, pods: str, expected: list[str]) -> None:
    assert of(load_text, POOL + pods, "InferencePool/default/pool") == expected


@pytest.mark.parametrize(
    ("labels", "engine"),
    [
        ("app: x", None),
        ("app: x, inference.networking.k8s.io/engine-type: sglang", "sglang"),
        ("app: x, inference.networking.k8s.io/engine-type: sglang, llm-d.ai/engine-type: trtllm-serve", "trtllm-serve"),
    ],
    ids=["no-label", "label", "the-newer-name-first"],
)
def test_the_label_of_a_pod_says_whose_metrics_it_has(load_text: LoadText, labels: str, engine: str | None) -> None:
    membership = load_text.compiled(POOL + pod("a", labels=labels)).membership
    assert {endpoint.engine for endpoint in membership["InferencePool/default/pool"]} == {engine}


def test_an_endpoint_has_what_the_request_path_needs(load_text: LoadText) -> None:
    endpoint = load_text.compiled(POOL + pod("a", "fd00::1")).membership["InferencePool/default/pool"][0]
    assert (endpoint.address, endpoint.port, endpoint.pod, endpoint.host) == ("fd00::1", 8000, "default/a", None)
    assert str(endpoint.url) == "http://[fd00::1]:8000/"


BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [%s]}
---
"""


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param("{ip: {address: 10.0.0.1, port: 80}}", [("10.0.0.1:80", None)], id="ip"),
        pytest.param("{ip: {address: 'FD00:0:0:0:0:0:0:1', port: 80}}", [("[fd00::1]:80", None)], id="ipv6"),
        pytest.param("{fqdn: {hostname: a.com, port: 80}}", [("a.com:80", b"a.com")], id="name"),
        pytest.param("{fqdn: {hostname: a.com, port: 81}}", [("a.com:81", b"a.com:81")], id="name-and-port"),
        pytest.param(
            "{ip: {address: 10.0.0.1, port: 80}}, {ip: {address: 10.0.0.1, port: 80}}",
            [("10.0.0.1:80", None)],
            id="twice-is-once",
        ),
        pytest.param("{unix: {path: /run/x}}", [], id="unix"),
    ],
)
def test_a_backend_is_its_addresses(
    load_text: LoadText, endpoints: str, expected: list[tuple[str, bytes | None]]
) -> None:
    found = load_text.compiled(BACKEND % endpoints).membership["Backend/default/b"]
    assert [(e.id, e.host) for e in found] == expected


SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {%s ports: [{name: http, port: 80, targetPort: %s}]}
---
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: metrics, port: 9090}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: p, uid: u1}}
- {addresses: [10.0.0.2]}
- {addresses: [10.0.0.3], conditions: {ready: false}}
- {addresses: [10.0.0.4], conditions: {ready: true, terminating: true}}
---
"""
NAMED_PORT = pod("a").replace("status:", "spec: {containers: [{ports: [{name: web, containerPort: 8088}]}]}\nstatus:")


SIX = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-6, labels: {kubernetes.io/service-name: s}}
addressType: IPv6
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: ["fd00::1"], targetRef: {kind: Pod, name: p, uid: u1}}
- {addresses: ["fd00::7"], targetRef: {kind: Pod, name: six, uid: u7}}
---
"""
BOTH = ["u1/10.0.0.1:8080", "10.0.0.2:8080", "u7/[fd00::7]:8080"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(SERVICE % ("", 8080) + SIX + SLICE, BOTH, id="dual-stack"),
        pytest.param(SERVICE % ("", 8080) + SLICE, ["u1/10.0.0.1:8080", "10.0.0.2:8080"], id="slices-first"),
        pytest.param(SERVICE % ("selector: {app: x},", 8080) + pod("a"), ["default/a/10.0.0.1:8080"], id="else-pods"),
        pytest.param(
            SERVICE % ("selector: {app: x},", "web") + NAMED_PORT, ["default/a/10.0.0.1:8088"], id="named-port"
        ),
        pytest.param(SERVICE % ("selector: {app: x},", "no") + NAMED_PORT, [], id="no-such-named-port"),
        pytest.param(
            SERVICE % ("selector: {app: x},", 8080) + pod("a", rest=", phase: Failed"), [], id="pods-but-none-ready"
        ),
        pytest.param(SERVICE % ("selector: {app: x},", 8080), ["s.default.svc.cluster.local:80"], id="else-its-name"),
        pytest.param(SERVICE % ("", 8080) + pod("a"), ["s.default.svc.cluster.local:80"], id="no-selector"),
        pytest.param(
            SERVICE % ("clusterIP: None,", 8080), ["s.default.svc.cluster.local:8080"], id="headless-by-its-target-port"
        ),
    ],
)
def test_a_service_is_its_slices_else_its_pods_else_its_name(
    load_text: LoadText, text: str, expected: list[str]
) -> None:
    assert of(load_text, text, "Service/default/s:80") == expected


AI_BACKEND = """\
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {name: %s, labels: {app: x}}
spec: {schema: {name: %s}, backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: b}}
---
"""
OLD_POOL = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: pool}
spec: {selector: {app: x}}
---
"""


def test_a_pool_without_a_port_is_the_ai_service_backends_with_its_labels(load_text: LoadText) -> None:
    text = OLD_POOL + pod("a") + BACKEND % "{ip: {address: 10.0.0.7, port: 80}}"
    text += AI_BACKEND % ("z", "Anthropic") + AI_BACKEND % ("unsupported", "AWSBedrock")
    (endpoint,) = load_text.compiled(text).membership["InferencePool/default/pool"]
    assert endpoint.id == "10.0.0.7:80"
    assert endpoint.path_rewrites == (ReplacePrefix(prefix=b"/anthropic", replacement=b""),)


@pytest.mark.parametrize(
    ("schema", "prefix", "expected"),
    [
        pytest.param("OpenAI", None, [], id="openai"),
        pytest.param("OpenAI", "/v1/", [], id="openai-v1"),
        pytest.param("OpenAI", "v1beta/openai", [(b"/v1", b"/v1beta/openai")], id="openai-prefix"),
        pytest.param("OpenAI", "/", [(b"/v1", b"")], id="openai-root"),
        pytest.param("Anthropic", None, [(b"/anthropic", b"")], id="anthropic"),
        pytest.param(
            "Anthropic",
            "/api",
            [(b"/anthropic/v1", b"/api"), (b"/anthropic", b""), (b"/v1", b"/api")],
            id="anthropic-prefix",
        ),
        pytest.param("Cohere", None, [(b"/cohere", b"")], id="cohere"),
        pytest.param(
            "Cohere", "/api", [(b"/cohere/v2", b"/api"), (b"/cohere", b""), (b"/v2", b"/api")], id="cohere-prefix"
        ),
    ],
)
def test_a_schema_s_prefix_stands_where_the_api_has_its_version(
    schema: str, prefix: str | None, expected: list[tuple[bytes, bytes]]
) -> None:
    rewrites = path_rewrites(VersionedSchema(name=schema, prefix=prefix))
    assert [(rewrite.prefix, rewrite.replacement) for rewrite in rewrites] == expected


def test_the_same_inputs_give_the_same_membership_and_a_change_keeps_the_rest(load_text: LoadText) -> None:
    text = POOL + pod("a") + BACKEND % "{ip: {address: 10.0.0.7, port: 80}}"
    first = compile_membership(load_text(text).resources)
    assert compile_membership(load_text("# moved\n" + text).resources, previous=first) is first
    second = compile_membership(load_text(text + pod("b", "10.0.0.2")).resources, previous=first)
    assert second is not first
    assert second["Backend/default/b"] is first["Backend/default/b"]
    assert len(second["InferencePool/default/pool"]) == 4
    assert second["InferencePool/default/pool"][0].url is first["InferencePool/default/pool"][0].url
    assert "InferencePool/default/pool" not in compile_membership(load_text("# nothing").resources, previous=first)
