"""What does `pointsman snapshot` take and print?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from app.commands.options import cluster_options
from app.commands.process import fail, say

if TYPE_CHECKING:
    from discovery.scope import Scope


@click.command()
@cluster_options
def snapshot(namespaces: tuple[str, ...], gateway: tuple[str, str] | None, controller_name: str | None) -> None:
    """Print what a cluster holds, as one file that serve, check and explain take.

    It asks as `serve --kubernetes` does: as the pod's service account, else by KUBECONFIG. Secrets are never read, and
    values of headers that may be credentials are masked.

    \b
    pointsman snapshot > cluster.yaml
    pointsman explain cluster.yaml --model qwen
    """
    from discovery.scope import CONTROLLER_NAME, Scope

    asyncio.run(_snapshot(namespaces, Scope(gateway=gateway, controller_name=controller_name or CONTROLLER_NAME)))


async def _snapshot(namespaces: tuple[str, ...], scope: Scope) -> None:
    from app.cluster_snapshot import ClusterSnapshot
    from discovery.sources.kube_access import AccessError, find_access
    from discovery.sources.kube_client import KubeClient, KubeError

    def warn(text: str) -> None:
        say(f"warning: {text}", is_error=True)

    try:
        client = KubeClient(find_access())
    except AccessError as error:
        raise fail(str(error)) from None
    try:
        documents = await ClusterSnapshot(client, namespaces=namespaces, scope=scope, warn=warn).documents()
    except KubeError as error:
        raise fail(error.message) from None
    finally:
        await client.close()
    for document in documents:
        say(f"---\n{document}")
    if not documents:
        warn("the cluster holds nothing that concerns our Gateways")
