"""What backendRefs resolve to; what is invalid keeps its weight and says why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.compile import compile_routing
from discovery.resources.collection import Resources
from discovery.resources.decode import decode
from discovery.resources.decoded import combine
from tests.discovery.loading import LoadText, ask, condition_of

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {rules: [{backendRefs: %s}]}
---
"""
AI_ROUTE = """\
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: r}
spec: {rules: [{backendRefs: %s}]}
---
"""
OBJECTS = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: good}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: good, namespace: far}
spec: {endpoints: [{ip: {address: 10.0.0.2, port: 8000}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: sock}
spec: {endpoints: [{unix: {path: /run/x}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: tls}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 443}}], tls: {clientCertificateRef: {name: s}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: h2c}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 80}}], appProtocols: [gateway.envoyproxy.io/h2c]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: dynamic}
spec: {type: DynamicResolver}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: empty}
spec: {}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: port0}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 0}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: badip}
spec: {endpoints: [{ip: {address: '1:2', port: 80}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: badname}
spec: {endpoints: [{fqdn: {hostname: 10.0.0.1, port: 80}}]}
---
apiVersion: v1
kind: Service
metadata: {name: svc}
spec: {ports: [{port: 80}, {port: 81, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: v1
kind: Service
metadata: {name: ext}
spec: {type: ExternalName, ports: [{port: 80}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: h2cpool}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], appProtocol: kubernetes.io/h2c}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: oldpool}
spec: {selector: {app: x}, targetPortNumber: 8000}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {name: openai}
spec: {schema: {name: OpenAI}, backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: good}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {name: bedrock}
spec: {schema: {name: AWSBedrock}, backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: good}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {name: dangling}
spec: {schema: {name: OpenAI}, backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: nowhere}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {name: abroad}
spec: {schema: {name: OpenAI}, backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: good, namespace: far}}
---
"""
EG = "group: gateway.envoyproxy.io, kind: Backend"
GA = "group: inference.networking.k8s.io, kind: InferencePool"
ALPHA = "group: inference.networking.x-k8s.io, kind: InferencePool"


@pytest.mark.parametrize(
    ("ref", "backend"),
    [
        pytest.param(f"{EG}, name: good", "Backend/default/good", id="backend"),
        pytest.param(f"{EG}, name: good, port: 1", "Backend/default/good", id="port-of-a-backend-is-nothing"),
        pytest.param("name: svc, port: 80", "Service/default/svc:80", id="service"),
        pytest.param(f"{GA}, name: pool", "InferencePool/default/pool", id="pool"),
        pytest.param(f"{ALPHA}, name: pool", "InferencePool/default/pool", id="pool-by-the-older-group"),
        pytest.param(
            f"{GA}, name: oldpool, port: 9", "InferencePool/default/oldpool", id="old-pool-by-the-newer-group"
        ),
    ],
)
def test_a_reference_resolves_to_a_backend(load_text: LoadText, ref: str, backend: str) -> None:
    routing = load_text.compiled(ROUTE % f"[{{{ref}}}]" + OBJECTS).routing
    (found,) = routing.rules[0].backend_refs
    assert found.backend is routing.backends[backend]
    assert found.refusal is None
    assert condition_of(routing, "HTTPRoute", "r", "ResolvedRefs").status == "True"


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        pytest.param(f"{EG}, name: nowhere", "BackendNotFound", id="no-such-backend"),
        pytest.param("name: nowhere, port: 80", "BackendNotFound", id="no-such-service"),
        pytest.param("name: svc, port: 99", "BackendNotFound", id="no-such-port"),
        pytest.param(f"{GA}, name: nowhere", "BackendNotFound", id="no-such-pool"),
        pytest.param("group: apps, kind: Deployment, name: x", "InvalidKind", id="kind"),
        pytest.param(
            "group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: openai", "InvalidKind", id="ai-backend"
        ),
        pytest.param(f"{EG}, name: good, namespace: far", "RefNotPermitted", id="no-grant"),
        pytest.param("name: svc, port: 80, namespace: far", "RefNotPermitted", id="no-grant-service"),
        pytest.param(f"{GA}, name: pool, namespace: far", "RefNotPermitted", id="no-grant-pool"),
        pytest.param(f"{EG}, name: sock", "UnsupportedValue", id="unix"),
        pytest.param(f"{EG}, name: dynamic", "UnsupportedValue", id="dynamic-resolver"),
        pytest.param(f"{EG}, name: empty", "UnsupportedValue", id="no-endpoints"),
        pytest.param(f"{EG}, name: port0", "UnsupportedValue", id="port-0"),
        pytest.param(f"{EG}, name: badip", "UnsupportedValue", id="no-ip"),
        pytest.param(f"{EG}, name: badname", "UnsupportedValue", id="ip-as-a-name"),
        pytest.param(f"{EG}, name: tls", "UnsupportedValue", id="tls-is-not-sent-in-clear"),
        pytest.param(f"{EG}, name: h2c", "UnsupportedProtocol", id="h2c"),
        pytest.param("name: svc, port: 81", "UnsupportedProtocol", id="h2c-service"),
        pytest.param(f"{GA}, name: h2cpool", "UnsupportedProtocol", id="h2c-pool"),
        pytest.param("name: ext, port: 80", "UnsupportedValue", id="external-name"),
    ],
)
def test_an_invalid_reference_keeps_its_weight_and_is_answered_with_500(
    load_text: LoadText, ref: str, reason: str
) -> None:
    compiled = load_text.compiled(ROUTE % f"[{{{ref}, weight: 2}}, {{{EG}, name: good, weight: 8}}]" + OBJECTS)
    (rule,) = compiled.routing.rules
    bad, good = rule.backend_refs
    assert (bad.weight, good.weight, rule.total_weight) == (2, 8, 10)
    assert bad.backend is None
    assert bad.refusal is not None
    assert bad.refusal.reason == "invalid_backend_ref"
    assert good.backend is not None
    assert rule.refusal is None
    condition = condition_of(compiled.routing, "HTTPRoute", "r", "ResolvedRefs")
    assert (condition.status, condition.reason) == ("False", reason)
    assert condition_of(compiled.routing, "HTTPRoute", "r", "Accepted").status == "True"
    assert any("spec.rules[0].backendRefs[0]" in str(p) and f"({reason})" in str(p) for p in compiled.problems)


@pytest.mark.parametrize(
    ("refs", "backend", "reason"),
    [
        pytest.param("[{name: openai}]", "AIServiceBackend/default/openai", None, id="openai"),
        pytest.param("[{name: pool, kind: InferencePool}]", "InferencePool/default/pool", None, id="pool"),
        pytest.param("[{name: bedrock}]", None, "UnsupportedProtocol", id="schema"),
        pytest.param("[{name: dangling}]", None, "BackendNotFound", id="dangling"),
        pytest.param("[{name: abroad}]", None, "RefNotPermitted", id="backend-in-another-namespace"),
        pytest.param("[{name: nowhere}]", None, "BackendNotFound", id="no-such-backend"),
        pytest.param("[{name: openai, namespace: far}]", None, "RefNotPermitted", id="no-grant"),
    ],
)
def test_references_of_an_ai_gateway_route(
    load_text: LoadText, refs: str, backend: str | None, reason: str | None
) -> None:
    routing = load_text.compiled(AI_ROUTE % refs + OBJECTS).routing
    (ref,) = routing.rules[0].backend_refs
    assert (ref.backend.id if ref.backend else None) == backend
    condition = condition_of(routing, "AIGatewayRoute", "r", "ResolvedRefs")
    assert condition.reason == (reason or "ResolvedRefs")


@pytest.mark.parametrize(
    ("to", "granted"),
    [
        pytest.param("{group: gateway.envoyproxy.io, kind: Backend}", True, id="all-of-a-kind"),
        pytest.param("{group: gateway.envoyproxy.io, kind: Backend, name: good}", True, id="by-name"),
        pytest.param("{group: gateway.envoyproxy.io, kind: Backend, name: other}", False, id="another-name"),
        pytest.param("{group: '', kind: Service}", False, id="another-kind"),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_reference_grant_in_the_target_s_namespace_permits(
    load_text: LoadText, to: str, version: str, *, granted: bool
) -> None:
    grant = f"""\
apiVersion: gateway.networking.k8s.io/{version}
kind: ReferenceGrant
metadata: {{name: g, namespace: far}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}}]
  to: [{to}]
---
"""
    routing = load_text.compiled(grant + ROUTE % f"[{{{EG}, name: good, namespace: far}}]" + OBJECTS).routing
    assert (routing.rules[0].backend_refs[0].backend is not None) == granted


def test_an_ai_service_backend_needs_a_grant_of_its_own_kind(load_text: LoadText) -> None:
    grant = """\
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: far}
spec:
  from: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, namespace: default}]
  to: [{group: gateway.envoyproxy.io, kind: Backend}]
---
"""
    compiled = load_text.compiled(grant + AI_ROUTE % "[{name: abroad}]" + OBJECTS)
    assert [e.id for e in compiled.membership["AIServiceBackend/default/abroad"]] == ["10.0.0.2:8000"]
    assert compiled.routing.rules[0].backend_refs[0].backend is not None


@pytest.mark.parametrize(
    "refs", [pytest.param("[]", id="none"), pytest.param(f"[{{{EG}, name: good, weight: 0}}]", id="all-weights-0")]
)
def test_a_rule_with_nothing_to_send_to_is_answered_with_500(load_text: LoadText, refs: str) -> None:
    rule = ask(load_text.compiled(ROUTE % refs + OBJECTS).routing)
    assert rule is not None
    assert rule.refusal is not None
    assert rule.refusal.reason == "invalid_backend_ref"


def test_pools_of_both_groups_with_one_name_stay_apart(load_text: LoadText) -> None:
    text = (
        ROUTE % f"[{{{GA}, name: twin}}, {{{ALPHA}, name: twin}}]"
        + """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: twin}
spec: {selector: {matchLabels: {app: new}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: twin}
spec: {selector: {app: old}, targetPortNumber: 8000}
---
apiVersion: v1
kind: Pod
metadata: {name: old-0, labels: {app: old}}
status: {podIP: 10.0.0.9}
"""
    )
    compiled = load_text.compiled(text)
    one, two = (ref.backend for ref in compiled.routing.rules[0].backend_refs)
    assert one is not None
    assert two is not None
    assert compiled.membership[one.id] == ()
    assert [e.address for e in compiled.membership[two.id]] == ["10.0.0.9"]
    assert sum("no ready pods" in str(p) for p in compiled.problems) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1_000_000), st.booleans()), min_size=1, max_size=8))
def test_weights_add_up_whatever_is_invalid(refs: list[tuple[int, bool]]) -> None:
    given_refs = ", ".join(f"{{{EG}, name: {'good' if good else 'bad'}, weight: {weight}}}" for weight, good in refs)
    resources: Resources = combine([decode(ROUTE % f"[{given_refs}]" + OBJECTS, file="f")])[0]
    (rule,) = compile_routing(resources).rules
    assert [ref.weight for ref in rule.backend_refs] == [weight for weight, _ in refs]
    assert [ref.backend is not None for ref in rule.backend_refs] == [good for _, good in refs]
    assert rule.total_weight == sum(weight for weight, _ in refs)
    assert (rule.refusal is not None) == (rule.total_weight == 0)
