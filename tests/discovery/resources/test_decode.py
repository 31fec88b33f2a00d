"""The three kinds of wrong: refused, invalid, warned; and what is forgiven."""

from __future__ import annotations

import pytest

from discovery.resources.core import Pod, Service
from discovery.resources.decode import decode
from discovery.resources.decoded import combine
from discovery.resources.fields import NOTES, Effect
from discovery.resources.inference import InferencePool
from discovery.resources.kinds import KINDS
from discovery.resources.problem import Problem, Severity
from discovery.resources.schema import load_schema

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec:
"""


AI_ROUTE = """\
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {name: r}
spec:
"""


def lines(text: str) -> list[str]:
    return [str(problem) for problem in decode(text, file="f.yaml").problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            ROUTE + "  rules:\n  - backendRef:\n    - name: x\n",
            'f.yaml:6: HTTPRoute/llm: spec.rules[0].backendRef: unknown field, did you mean "backendRefs"?',
            id="unknown-field",
        ),
        pytest.param(
            ROUTE + "  rules:\n  - backendRefs: [{name: x, port: http}]\n",
            "f.yaml:6: HTTPRoute/llm: spec.rules[0].backendRefs[0].port: must be an integer, not a string",
            id="type",
        ),
        pytest.param("[1]", "f.yaml:1: a Kubernetes object is a mapping with apiVersion, kind and metadata", id="list"),
        pytest.param("kind: Pod\n", "f.yaml:1: Pod: apiVersion: is required", id="no-api-version"),
        pytest.param("apiVersion: v1\nkind: 3\n", "f.yaml:2: kind: must be a string", id="kind-is-no-string"),
        pytest.param("apiVersion: v1\nkind: Pod\n", "f.yaml:1: Pod: metadata.name: is required", id="no-name"),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: Not_A_Name}\n",
            'f.yaml:3: Pod/Not_A_Name: metadata.name: "Not_A_Name" must be lower-case letters',
            id="name",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: here}\n",
            "f.yaml:4: Pod/p: status: podIP must be an IP address",
            id="core-field-that-we-use",
        ),
        pytest.param(
            ROUTE.replace("/v1", "/v1alpha2") + "  rules: []\n",
            "f.yaml:1: HTTPRoute/llm: apiVersion: HTTPRoute has no version v1alpha2, known: v1, v1beta1",
            id="version",
        ),
        pytest.param(
            ROUTE.replace("HTTPRoute", "HttpRoute"),
            'f.yaml:2: HttpRoute/llm: kind: unknown kind, did you mean "HTTPRoute"?',
            id="misspelt-kind",
        ),
        pytest.param(
            AI_ROUTE + "  rules: [{backendRefs: [x]}]\n",
            "f.yaml:5: AIGatewayRoute/r: spec.rules[0].backendRefs[0]: must be a mapping, not a string",
            id="reference-that-is-no-mapping",
        ),
        pytest.param(
            AI_ROUTE.replace("spec:", "spec: 3"), "f.yaml:4: AIGatewayRoute/r: spec: must be a mapping", id="spec"
        ),
        pytest.param(AI_ROUTE.replace("spec:\n", ""), "f.yaml:1: AIGatewayRoute/r: spec: is required", id="no-spec"),
        pytest.param(
            "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata: {name: p}\n",
            "f.yaml:1: InferencePool/p: spec: is required",
            id="pool-without-selector",
        ),
        pytest.param(
            "apiVersion: example.com/v1\nkind: OddPolicy\nmetadata: {}\nspec: {targetRef: {kind: Gateway, name: g}}\n",
            "f.yaml:3: OddPolicy: metadata.name: is required",
            id="unknown-policy-without-name",
        ),
        pytest.param("a: 1\na: 2\n", 'f.yaml:2: the key "a" is there twice', id="yaml"),
    ],
)
def test_what_an_api_server_would_not_store_is_refused_with_its_place(text: str, expected: str) -> None:
    decoded = decode(text, file="f.yaml")
    assert decoded.objects == []
    (problem,) = decoded.problems
    assert problem.severity is Severity.REFUSED
    assert str(problem).startswith(expected)


def test_the_other_objects_of_a_file_are_still_read() -> None:
    good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: good}\n"
    decoded = decode(ROUTE + "  rule: []\n---\n" + good, file="f.yaml")
    assert [resource.name for resource, _ in decoded.objects] == ["good"]
    assert len(decoded.problems) == 1


def test_a_duplicate_is_refused_over_files_and_versions_and_the_first_stays() -> None:
    text = ROUTE + "  rules: [{}]\n"
    resources, problems = combine([decode(text, file="a.yaml"), decode(text.replace("/v1", "/v1beta1"), file="b.yaml")])
    assert len(resources.http_routes) == 1
    assert [str(p) for p in problems] == [
        "b.yaml:1: HTTPRoute/llm: is there twice: namespace default, first at a.yaml:1"
    ]


def test_pools_of_the_two_groups_may_share_a_name() -> None:
    resources, problems = combine([decode(POOLS, file="f.yaml")])
    assert [pool.group for pool in resources.inference_pools] == [
        "inference.networking.k8s.io",
        "inference.networking.x-k8s.io",
    ]
    assert not [p for p in problems if p.severity is not Severity.WARNING]


POOLS = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}, {number: 8001}]}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: p}
spec: {selector: {app: x}, targetPortNumber: 8000}
"""


def test_both_versions_of_a_pool_have_one_internal_form() -> None:
    pools = [resource for resource, _ in decode(POOLS, file="f").objects]
    assert all(isinstance(pool, InferencePool) for pool in pools)
    assert [p.spec.target_ports for p in pools if isinstance(p, InferencePool)] == [(8000, 8001), (8000,)]
    assert [p.spec.match_labels for p in pools if isinstance(p, InferencePool)] == [{"app": "x"}, {"app": "x"}]


def test_lists_are_unpacked_and_their_objects_have_their_own_lines() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Pods\n  metadata: {name: b}\n- kind: Pod\n"  # noqa: E501
    decoded = decode(text, file="f")
    assert [(r.name, o.line) for r, o in decoded.objects] == [("a", 4)]
    assert [p.line for p in decoded.skipped] == [7]
    assert [str(p) for p in decoded.problems] == ["f:10: Pod: apiVersion: is required"]


def test_skipped_kinds_are_listed_once_each() -> None:
    text = "---\n".join(
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: n{number}}}\n"
        for number, kind in enumerate(["Deployment", "Deployment", "StatefulSet"])
    )
    _, problems = combine([decode(text, file="f")])
    assert [str(p) for p in problems] == [
        "warning: f:1: Deployment/n0: skipped: Deployment of apps is not read (2 objects)",
        "warning: f:9: StatefulSet/n2: skipped: StatefulSet of apps is not read",
    ]


def test_an_endpoint_picker_config_among_manifests_is_shown_where_it_belongs() -> None:
    (problem,) = decode("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n", file="f").skipped
    assert problem.message == "skipped: EndpointPickerConfig of llm-d.ai is not read, --picker-config takes it"


def test_a_known_kind_of_an_unknown_group_says_which_group_is_meant() -> None:
    text = "apiVersion: ai-gateway.envoyproxy.io/v1alpha1\nkind: AIGatewayRoute\nmetadata: {name: r}\n"
    _, problems = combine([decode(text, file="f")])
    assert "did you mean aigateway.envoyproxy.io?" in str(problems[0])


def test_removed_fields_are_warnings_and_harmless() -> None:
    text = AI_ROUTE + "  schema: {name: OpenAI}\n  targetRefs: [{name: x}]\n  filterConfig: {}\n  rules: []\n"
    decoded = decode(text, file="f")
    assert len(decoded.objects) == 1
    assert [(p.severity, p.field, p.line) for p in decoded.problems] == [
        (Severity.WARNING, "spec.schema", 5),
        (Severity.WARNING, "spec.filterConfig", 7),
        (Severity.WARNING, "spec.targetRefs", 6),
    ]


@pytest.mark.parametrize(
    "ref",
    [
        pytest.param("{name: x, kind: InferencePool}", id="pool-without-group"),
        pytest.param("{name: x, kind: InferencePool, group: inference.networking.x-k8s.io}", id="pool-of-old-group"),
        pytest.param("{name: x, kind: AIServiceBackend}", id="backend-by-kind"),
        pytest.param("{name: x}", id="name-only"),
    ],
)
def test_an_ai_route_s_backend_ref_may_leave_its_group_out(ref: str) -> None:
    assert lines(AI_ROUTE + f"  rules: [{{backendRefs: [{ref}]}}]\n") == []


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        pytest.param("circuitBreaker: {perEndpoint: {maxConnections: 1}}", True, id="per-endpoint-limit-warns"),
        pytest.param("loadBalancer: {type: Random, zoneAware: {}}", True, id="zones-warn"),
        pytest.param("mergeType: StrategicMerge", False, id="merge-type-restricts"),
        pytest.param("requestBuffer: {limit: 1Mi}", False, id="request-buffer-restricts"),
    ],
)
def test_a_field_that_is_not_implemented_warns_unless_it_restricts(field: str, *, expected: bool) -> None:
    text = f"""\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: p}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}}]
  {field}
"""
    decoded = decode(text, file="f")
    assert len(decoded.objects) == 1
    assert [p.severity for p in decoded.problems] == ([Severity.WARNING] if expected else [])


def test_every_noted_field_is_in_a_schema_unless_it_was_removed() -> None:
    for (group, kind), notes in NOTES.items():
        known = KINDS[group, kind]
        for version in set(known.versions.values()):
            for note in notes:
                schema = load_schema(group, version, kind)
                for step in note.path.replace("[]", ".[]").split("."):
                    assert schema is not None
                    schema = schema["items"] if step == "[]" else schema["properties"].get(step)
                    if schema is None:
                        break
                assert (schema is None) == (note.effect is Effect.REMOVED), f"{kind} {note.path}"


def test_core_kinds_are_read_leniently() -> None:
    text = """\
apiVersion: v1
kind: Service
metadata: {name: s, unheardOf: 1, labels: null}
spec: {selector: null, ports: [{port: 80, targetPort: http, nodePort: null, whatever: {}}], trafficDistribution: x}
status: {loadBalancer: {}}
"""
    ((service, _),) = decode(text, file="f").objects
    assert isinstance(service, Service)
    assert service.spec.selector is None
    assert service.spec.ports[0].target_port == "http"


@pytest.mark.parametrize(
    ("pod", "ready"),
    [
        pytest.param("status: {podIP: 10.0.0.1}", True, id="without-conditions"),
        pytest.param("status: {conditions: [{type: Ready, status: 'True'}]}", True, id="ready"),
        pytest.param("status: {conditions: [{type: Ready, status: 'False'}]}", False, id="unready"),
        pytest.param("status: {conditions: [{type: Initialized, status: 'True'}]}", False, id="no-ready-condition"),
        pytest.param("status: {phase: Succeeded}", False, id="finished"),
    ],
)
def test_readiness_of_a_pod(pod: str, *, ready: bool) -> None:
    ((found, _),) = decode(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n{pod}\n", file="f").objects
    assert isinstance(found, Pod)
    assert found.is_ready is ready


def test_a_problem_reads_like_a_compiler_s() -> None:
    problem = Problem(
        severity=Severity.WARNING, message="m", file="f", line=3, kind="Pod", name="p", field="spec", namespace="n"
    )
    assert str(problem) == "warning: f:3: Pod/p: spec: m"
    assert str(Problem(severity=Severity.REFUSED, message="m", file="f")) == "f: m"
