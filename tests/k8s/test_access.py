"""What may the gateway do in the cluster, and who may talk to it? Nothing more than it needs, and no Secret ever."""

from __future__ import annotations

from typing import Any

import pytest

from discovery.resources.kinds import KINDS
from discovery.sources.kube_kinds import WatchedKind, watched_kinds
from tests.k8s.kustomize import K8S, ROOTS, Manifest, build, find, gateways, of_kind, pod_of

READ = {"get", "list", "watch"}

every_root = pytest.mark.parametrize("root", [pytest.param(root, id=root or "k8s") for root in ROOTS])


def rules(objects: tuple[Manifest, ...]) -> list[tuple[str, str, set[str], str]]:
    """Every (group, resource, verbs, kind of role)."""
    return [
        (group, resource, set(rule["verbs"]), role["kind"])
        for role in [*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]


@every_root
def test_nothing_is_written_but_status_and_leases(root: str) -> None:
    for group, resource, verbs, role in rules(build(K8S / root)):
        assert "*" not in {group, resource, *verbs}
        assert resource != "secrets"
        if resource.endswith("/status"):
            assert verbs == {"patch"}
        elif (group, resource) == ("coordination.k8s.io", "leases"):
            assert role == "Role", "in its own namespace only"
            assert verbs == {"get", "create", "update"}
        else:
            assert verbs == READ, resource


def kinds_that_are_read() -> set[tuple[str, str]]:
    """Group and plural of every kind. Kinds that we know and do not use yet are among them, so that the version that
    does needs no other role."""
    known = [WatchedKind(group=kind.group, kind=kind.kind, versions=()) for kind in KINDS.values()]
    return {(kind.group, kind.plural) for kind in (*known, *watched_kinds())}


def test_the_base_only_asks_where_pods_are_and_in_its_own_namespace_alone() -> None:
    objects = build(K8S)
    assert not of_kind(objects, "ClusterRole")
    assert {(group, resource) for group, resource, _, _ in rules(objects)} == {
        ("", "pods"),
        ("", "services"),
        ("discovery.k8s.io", "endpointslices"),
    }


def test_cluster_routes_may_read_every_kind_that_we_read() -> None:
    every = rules(build(K8S / "overlays/cluster-routes"))
    assert {(group, resource) for group, resource, verbs, _ in every if verbs == READ} == kinds_that_are_read()


@every_root
def test_roles_are_bound_to_the_account_that_the_gateway_runs_as(root: str) -> None:
    objects = build(K8S / root)
    accounts = {pod_of(deployment)["serviceAccountName"] for deployment, _ in gateways(objects)}
    assert accounts == {account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")}
    bound = set()
    for binding in [*of_kind(objects, "RoleBinding"), *of_kind(objects, "ClusterRoleBinding")]:
        find(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
        (subject,) = binding["subjects"]
        bound.add(subject["name"])
    assert bound == accounts


def labels_match(selector: Any, deployment: Manifest) -> bool:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    return bool((selector.get("matchLabels", selector)).items() <= labels.items())


@every_root
def test_every_selector_finds_the_pods_of_exactly_one_deployment(root: str) -> None:
    objects = build(K8S / root)
    deployments = of_kind(objects, "Deployment")
    selectors = [
        (each, each["spec"]["selector"])
        for kind in ("Service", "Deployment", "PodDisruptionBudget")
        for each in of_kind(objects, kind)
    ]
    selectors += [(each, each["spec"]["podSelector"]) for each in of_kind(objects, "NetworkPolicy")]
    selectors += [
        (each, spread["labelSelector"])
        for each in deployments
        for spread in pod_of(each).get("topologySpreadConstraints", ())
    ]
    for each, selector in selectors:
        found = [deployment for deployment in deployments if labels_match(selector, deployment)]
        assert len(found) == 1, each["metadata"]
        if each["kind"] == "Deployment":
            assert found == [each]


def test_the_gateway_of_the_base_is_not_mistaken_for_one_of_the_demo() -> None:
    service = find(build(K8S), "Service")
    for deployment in of_kind(build(K8S / "overlays/demo"), "Deployment"):
        assert not labels_match(service["spec"]["selector"], deployment)


@every_root
def test_the_admin_port_is_in_no_service_and_open_to_prometheus_alone(root: str) -> None:
    objects = build(K8S / root)
    for deployment, container in gateways(objects):
        ports = {port["name"] for port in container["ports"]}
        (service,) = [
            each for each in of_kind(objects, "Service") if labels_match(each["spec"]["selector"], deployment)
        ]
        assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
        (policy,) = [
            each for each in of_kind(objects, "NetworkPolicy") if labels_match(each["spec"]["podSelector"], deployment)
        ]
        clients, prometheus = policy["spec"]["ingress"]
        assert [port["port"] for port in clients["ports"]] == ["http"]
        assert [port["port"] for port in prometheus["ports"]] == ["admin"]
        assert prometheus["from"] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ]
        assert ports == {"http", "admin"}


@every_root
def test_the_gateway_reaches_dns_the_api_server_and_model_servers_and_nothing_else(root: str) -> None:
    for policy in of_kind(build(K8S / root), "NetworkPolicy"):
        model_servers, dns, api_server = policy["spec"]["egress"]
        is_cluster_wide = root == "overlays/cluster-routes"
        peer: dict[str, Any] = {"podSelector": {}, "namespaceSelector": {}} if is_cluster_wide else {"podSelector": {}}
        assert model_servers == {"to": [peer]}
        assert {port["port"] for port in dns["ports"]} == {53}
        assert {port["port"] for port in api_server["ports"]} == {443, 6443}
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
