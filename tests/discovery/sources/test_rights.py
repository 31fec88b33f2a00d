"""Is it said in one line what may not be read, and is only what matters a warning?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discovery.sources.kube_kinds import watched_kinds
from discovery.sources.kubernetes import KubernetesSource
from tests.support.clusters import QUICK, create_routing, kube_client
from tests.support.kube_api import KubeApi

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def following(api: KubeApi, folder: Path, *, has_other_routes: bool = False) -> AsyncIterator[KubernetesSource]:
    async with kube_client(api, folder) as client:
        source = KubernetesSource(client, times=QUICK, namespaces=["default"])
        source.rights.has_other_routes = has_other_routes
        source.start()
        try:
            async with asyncio.timeout(10):
                yield source
        finally:
            await source.stop()


async def until_listed(source: KubernetesSource) -> None:
    while not source.is_listed:
        await source.changed.wait()
        source.changed.clear()


def refuse(api: KubeApi, *plurals: str) -> None:
    api.denied |= {("list", plural, None) for plural in plurals}


async def until_told(caplog: pytest.LogCaptureFixture) -> str:
    """The one line about rights, once it is there."""
    while not (told := lines(caplog)):
        await asyncio.sleep(0.01)
    (line,) = told
    return line


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "discovery.sources.rights"
    ]


async def test_routes_of_files_need_nothing_of_the_cluster_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with KubeApi() as api:
        refuse(api, *(kind.plural for kind in watched_kinds() if kind.plural != "services"))
        async with following(api, tmp_path, has_other_routes=True) as source:
            await until_listed(source)
            source.routing()
            source.routing()
            await asyncio.sleep(2 * QUICK.refused)  # no warning comes behind it
            assert source.waiting_for() == []
    (line,) = lines(caplog)
    assert line.startswith("INFO not read from the cluster, which is fine since routes come from files: ")
    assert "gateway.networking.k8s.io: gatewayclasses, gateways, httproutes" in line
    assert line.endswith("core: configmaps, namespaces (in default)")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_kinds_that_routes_of_the_cluster_can_do_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with KubeApi() as api:
        create_routing(api)
        refuse(api, "namespaces", "referencegrants")
        async with following(api, tmp_path) as source:
            await until_listed(source)
            source.routing()
    (line,) = lines(caplog)
    assert "fine since routes are served without them" in line
    assert "gateway.networking.k8s.io: referencegrants; core: namespaces" in line


async def test_what_cannot_be_done_without_is_one_warning_with_the_servers_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubeApi() as api:
        create_routing(api)
        refuse(api, "httproutes", "backendtrafficpolicies", "referencegrants")
        async with following(api, tmp_path) as source:
            line = await until_told(caplog)
            assert not source.is_listed
            api.denied.clear()
            await until_listed(source)
    assert line.startswith("WARNING waiting for a Role: the service account must be allowed to list httproutes.")
    assert 'cannot list resource "httproutes"' in line
    assert line.endswith("; and the same of gateway.envoyproxy.io: backendtrafficpolicies (in default)")


async def test_a_right_that_is_taken_away_later_is_a_warning_of_its_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubeApi() as api:
        create_routing(api)
        async with following(api, tmp_path) as source:
            await until_listed(source)
            refuse(api, "httproutes")
            api.denied.add(("watch", "httproutes", None))
            api.end_watches(plural="httproutes")
            while "the last state is used" not in caplog.text:
                await asyncio.sleep(0.01)
            assert source.is_listed
    assert lines(caplog) == []
