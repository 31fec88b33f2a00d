"""Is a question about routing answered the same away from the cluster? `pointsman snapshot` as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cluster_snapshot import trim
from tests.support.clusters import create_routing, gateway, gateway_class, pod, pool, route
from tests.support.kube_api import KubeApi
from tests.support.processes import run_command

pytestmark = pytest.mark.anyio

SECRET = "s3cret-token-value"


def header(name: str, value: str, **more: str) -> dict[str, str]:
    return {"name": name, "value": value, **more}


def fill(api: KubeApi) -> None:
    create_routing(api)
    api.create(pod("qwen-0", "10.0.0.7", annotations={"kubectl.kubernetes.io/last-applied-configuration": SECRET}))
    api.create(pod("unrelated", labels={"app": "unrelated"}))
    api.create(gateway_class("others", "example.com/other"))
    api.create(gateway("theirs", class_name="others"))
    api.create(route("foreign", parents=("theirs",)))
    both = route("both", models={"other": "qwen"}, parents=("theirs", "gateway"))
    setter = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header("Authorization", SECRET)]}}
    both["spec"]["rules"][0]["filters"] = [setter]
    both["spec"]["rules"][0]["matches"][0]["headers"].append(header("x-api-key", SECRET, type="RegularExpression"))
    api.create(both)
    broken = route("broken")
    broken["spec"]["unheardOf"] = 1
    api.create(broken)
    labels = {"inference.networking.k8s.io/bbr-managed": "true"}
    data = {"baseModel": "qwen", "adapters": "- tuned", "password": SECRET}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "maps", "labels": labels}, "data": data})


async def taken(api: KubeApi, folder: Path, *arguments: str) -> tuple[Path, str, str]:
    """The snapshot as a file, its text, and what was said on stderr."""
    env = {"KUBECONFIG": str(api.kubeconfig(folder)), "KUBERNETES_SERVICE_HOST": ""}
    code, out, err = await run_command("snapshot", *arguments, env=env)
    assert code == 0, err
    path = folder / "snapshot.yaml"
    path.write_text(out)
    return path, out, err


async def test_check_and_explain_take_it_and_say_what_the_cluster_s_gateway_would(tmp_path: Path) -> None:
    async with KubeApi() as api:
        fill(api)
        path, text, err = await taken(api, tmp_path)
        code, out, problems = await run_command("check", str(path))
        assert (code, problems) == (0, ""), out
        code, out, _ = await run_command("explain", str(path), "--model", "qwen", "--json")
        assert code == 0
        assert "10.0.0.7:8000" in out
        names = {(obj["kind"], obj["metadata"]["name"]) for obj in map(json.loads, text.split("---\n")[1:])}
        assert {("HTTPRoute", "models"), ("HTTPRoute", "both"), ("Pod", "qwen-0"), ("ConfigMap", "maps")} <= names
        assert not names & {
            ("HTTPRoute", "foreign"),
            ("Gateway", "theirs"),
            ("Pod", "unrelated"),
            ("HTTPRoute", "broken"),
        }
        assert '"theirs"' not in text
        assert "HTTPRoute default/broken is left out: spec.unheardOf" in err
        assert SECRET not in text
        assert "last-applied" not in text and "password" not in text and '"status": {}' not in text
        assert {request.verb for request in api.requests} == {"list"}


async def test_it_keeps_to_namespaces_and_a_gateway_of_choice(tmp_path: Path) -> None:
    async with KubeApi() as api:
        fill(api)
        api.create(pool(namespace="web"))
        path, text, _ = await taken(api, tmp_path, "--gateway", "default/theirs", "--namespace", "default")
        assert '"theirs"' in text and '"foreign"' in text
        assert '"models"' not in text
        assert (await run_command("check", str(path)))[0] == 0
        asked = {request.namespace for request in api.requests if request.kind.is_namespaced}
        assert asked == {"default"}


async def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    async with KubeApi() as api:
        fill(api)
        api.denied.add(("list", "securitypolicies", None))
        _, _, err = await taken(api, tmp_path)
        assert "warning: securitypolicies.gateway.envoyproxy.io may not be read" in err


async def test_without_a_cluster_it_is_one_line(tmp_path: Path) -> None:
    env = {"KUBECONFIG": str(tmp_path / "none"), "KUBERNETES_SERVICE_HOST": ""}
    code, out, err = await run_command("snapshot", env=env)
    assert (code, out) == (1, "")
    assert err.startswith("pointsman: no service account") and err.count("\n") == 1
    async with KubeApi() as api:
        config = api.kubeconfig(tmp_path)
        api.refuse()
        env["KUBECONFIG"] = str(config)
        code, out, err = await run_command("snapshot", env=env)
    assert (code, out) == (1, "")
    assert err.startswith("pointsman: no answer from the API server") and err.count("\n") == 1
    code, _, err = await run_command("serve", "--kubernetes", env={**env, "KUBECONFIG": str(tmp_path / "none")})
    assert code == 1 and err.startswith("pointsman: no service account")
    code, _, err = await run_command("serve", "--gateway", "a/b", "routes.yaml")
    assert code == 2 and "give --kubernetes" in err
    code, _, err = await run_command("serve", "--kubernetes", "--gateway", "ab")
    assert code == 2 and "NAMESPACE/NAME" in err
    code, _, err = await run_command("serve", "--kubernetes", "--namespace", "default,other")
    assert code == 2 and "default,other cannot be the name of a namespace" in err
    code, _, err = await run_command("serve", "--kubernetes", "--controller-name", "pointsman")
    assert code == 2 and "pointsman cannot be the name of a controller" in err


def test_members_of_bodies_that_may_be_credentials_are_masked() -> None:
    mutation = {"set": [{"path": "api_key", "value": SECRET}, {"path": "max_tokens", "value": "7"}]}
    plain = {
        "apiVersion": "v1",
        "kind": "AIServiceBackend",
        "metadata": {"name": "b"},
        "spec": {"bodyMutation": mutation},
    }
    assert trim(plain)["spec"]["bodyMutation"]["set"] == [
        {"path": "api_key", "value": "***"},
        {"path": "max_tokens", "value": "7"},
    ]


def test_of_pods_services_and_slices_only_what_is_read_is_kept() -> None:
    kept: Any = trim(pod("qwen-0"))
    assert kept["spec"] == {"containers": [{"name": "vllm"}]}
    assert kept["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llm", "resourceVersion": "7", "managedFields": []},
        "spec": {"ports": [{"port": 80}], "externalIPs": ["1.1.1.1"]},
        "status": {"loadBalancer": {}},
    }
    expected = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llm"}, "spec": {"ports": [{"port": 80}]}}
    assert trim(service) == expected
