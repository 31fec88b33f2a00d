"""What is told of files and a cluster together, when, and how often?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from discovery.scope import Scope
from discovery.sources.combined import CombinedSource
from discovery.sources.files import FileSource
from discovery.sources.kubernetes import KubernetesSource
from discovery.sources.source import SourceState
from tests.support.clusters import QUICK, create_routing, kube_client, pod, pool, route
from tests.support.kube_api import KubeApi

pytestmark = pytest.mark.anyio

States = AsyncGenerator[SourceState, None]


@contextlib.asynccontextmanager
async def told(api: KubeApi, folder: Path, *paths: Path, pace_seconds: float = 0.0) -> AsyncIterator[States]:
    """What the source tells."""
    async with kube_client(api, folder) as client:
        files = FileSource(paths, poll_seconds=0.05, settle_seconds=0.01)
        files.read()
        cluster = KubernetesSource(client, times=QUICK)
        source = CombinedSource(files, cluster, Scope(), pace_seconds=pace_seconds)
        async with asyncio.timeout(15), aclosing(source.watch()) as states:
            yield states


def names(state: SourceState) -> set[str]:
    return {found.name for found in state.resources.pods}


async def test_the_first_state_is_whole(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        for number in range(3):
            api.create(pod(f"qwen-{number}"))
        async with told(api, tmp_path) as states:
            first = await anext(states)
            assert names(first) == {"qwen-0", "qwen-1", "qwen-2"}
            assert [r.name for r in first.resources.http_routes] == ["models"]
            assert not first.is_membership_only


async def test_a_change_of_pods_leaves_everything_else_the_same_objects(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        async with told(api, tmp_path) as states:
            first = await anext(states)
            api.create(pod("qwen-0"))
            second = await anext(states)
            assert names(second) == {"qwen-0"}
            assert second.is_membership_only
            assert all(
                one is other
                for one, other in zip(first.resources.routing_inputs(), second.resources.routing_inputs(), strict=True)
            )
            api.terminate("pods", "qwen-0")
            await anext(states)
            api.delete("pods", "qwen-0")
            third = await anext(states)
            assert names(third) == set()
            assert len(third.deleted_pods) == 1


async def test_a_pod_that_vanishes_is_asked_for_before_it_counts_as_deleted(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        relabelled = api.create(pod("relabelled"))["metadata"]["uid"]
        gone = api.create(pod("gone"))["metadata"]["uid"]
        async with told(api, tmp_path) as states:
            await anext(states)
            moved = api.get("pods", "relabelled")
            api.update({**moved, "metadata": {**moved["metadata"], "labels": {"app": "other"}}})
            api.delete("pods", "gone")  # without the steps that a kubelet takes
            async for state in states:
                if state.deleted_pods:
                    assert state.deleted_pods == {gone} != {relabelled}
                    break


async def test_a_new_pool_comes_with_its_pods(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        async with told(api, tmp_path) as states:
            await anext(states)
            api.create(pool("llama"))
            api.create(pod("llama-0", labels={"app": "llama"}))
            api.create(route("more", models={"llama": "llama"}))
            async for state in states:
                if any(found.name == "llama" for found in state.resources.inference_pools):
                    assert names(state) == {"llama-0"}
                    break


async def test_many_changes_are_few_states_and_the_last_one_has_them_all(tmp_path: Path) -> None:
    async with KubeApi() as api:
        create_routing(api)
        async with told(api, tmp_path, pace_seconds=0.2) as states:
            await anext(states)
            count = 0

            async def change() -> None:
                for number in range(100):
                    api.create(pod(f"qwen-{number}"))
                    await asyncio.sleep(0.005)

            changing = asyncio.create_task(change())
            async for state in states:
                count += 1
                if len(names(state)) == 100:
                    break
            await changing
            assert count <= 12  # of 100 changes


async def test_files_that_are_refused_keep_their_last_state_and_the_cluster_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    good = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: from-file}
spec: {rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: qwen}]}]}
"""
    file.write_text(good)
    async with KubeApi() as api:
        create_routing(api)
        async with told(api, tmp_path, file) as states:
            first = await anext(states)
            assert [r.name for r in first.resources.http_routes] == ["from-file", "models"]
            file.write_text("kind: [")
            refused = await anext(states)
            assert any(problem.severity.name == "REFUSED" for problem in refused.problems)
            api.create(pod("qwen-0"))
            async for state in states:
                assert [r.name for r in state.resources.http_routes] == ["from-file", "models"]
                assert not any(problem.severity.name == "REFUSED" for problem in state.problems)
                if names(state) == {"qwen-0"}:
                    break
            file.write_text(good.replace("from-file", "edited"))
            async for state in states:
                if [r.name for r in state.resources.http_routes] == ["edited", "models"]:
                    break


async def test_closing_ends_every_watch_and_watching_again_goes_on(tmp_path: Path) -> None:
    async with KubeApi() as api, kube_client(api, tmp_path) as client:
        create_routing(api)
        api.create(pod("qwen-0"))
        cluster = KubernetesSource(client, times=QUICK)
        source = CombinedSource(FileSource([]), cluster, Scope())
        for _ in range(2):
            async with asyncio.timeout(10), aclosing(source.watch()) as states:
                assert names(await anext(states)) == {"qwen-0"}
        before = {task for task in asyncio.all_tasks() if "Reflector" in repr(task.get_coro())}
        assert not before
