"""What does `pointsman serve` take, and how does it start, run and end?"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.commands.options import by_port_option, cluster_options, configuration_options
from app.commands.process import fail, run, say
from app.commands.values import PORT, Duration, Size

if TYPE_CHECKING:
    from app.settings import Settings
    from app.tracing.setup import TracingPipeline


@click.command()
@configuration_options
@click.option(
    "--kubernetes",
    envvar="POINTSMAN_KUBERNETES",
    show_envvar=True,
    is_flag=True,
    help="Follow the cluster, as the pod's service account, else by KUBECONFIG. What files have too is theirs.",
)
@cluster_options
@click.option("--host", envvar="POINTSMAN_HOST", show_envvar=True, default="0.0.0.0", help="Where clients connect.")
@click.option("--port", envvar="POINTSMAN_PORT", show_envvar=True, default=8080, type=PORT, help="The data port.")
@by_port_option
@click.option(
    "--admin-host",
    envvar="POINTSMAN_ADMIN_HOST",
    show_envvar=True,
    default="127.0.0.1",
    help="Where the admin port listens; it tells the whole configuration.",
)
@click.option(
    "--admin-port",
    envvar="POINTSMAN_ADMIN_PORT",
    show_envvar=True,
    default=9090,
    type=PORT,
    help="The admin port: health, metrics, configuration, status.",
)
@click.option(
    "--drain-grace",
    envvar="POINTSMAN_DRAIN_GRACE",
    show_envvar=True,
    default="1s",
    type=Duration(),
    help="How long requests are still taken after SIGTERM.",
)
@click.option(
    "--drain-timeout",
    envvar="POINTSMAN_DRAIN_TIMEOUT",
    show_envvar=True,
    default="600s",
    type=Duration(),
    help="How long running answers may then take.",
)
@click.option(
    "--max-body-memory",
    envvar="POINTSMAN_MAX_BODY_MEMORY",
    show_envvar=True,
    default="512Mi",
    type=Size(),
    help="What all request bodies in memory may take together.",
)
@click.option(
    "--picker-config",
    envvar="POINTSMAN_PICKER_CONFIG",
    show_envvar=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An EndpointPickerConfig: how endpoints of InferencePools are picked.",
)
@click.option(
    "--trust-objective-header",
    envvar="POINTSMAN_TRUST_OBJECTIVE_HEADER",
    show_envvar=True,
    is_flag=True,
    help="Clients may name their InferenceObjective, and with it their priority.",
)
@click.option(
    "--explain-header",
    envvar="POINTSMAN_EXPLAIN_HEADER",
    show_envvar=True,
    is_flag=True,
    help="Requests with `x-pointsman-explain: 1` are told how their endpoint was picked.",
)
def serve(
    paths: tuple[Path, ...],
    model: tuple[str, ...],
    ignore_policy: tuple[str, ...],
    kubernetes: bool,
    namespaces: tuple[str, ...],
    gateway: tuple[str, str] | None,
    controller_name: str | None,
    host: str,
    port: int,
    listen_on_gateway_ports: bool,
    admin_host: str,
    admin_port: int,
    drain_grace: float,
    drain_timeout: float,
    max_body_memory: int,
    picker_config: Path | None,
    trust_objective_header: bool,
    explain_header: bool,
) -> None:
    """Route OpenAI requests by model, as manifests say.

    PATHS are files, or folders whose *.yaml, *.yml and *.json are read.
    """
    from app.settings import Settings
    from discovery.scope import CONTROLLER_NAME

    if not paths and not model and not kubernetes:
        raise fail("nothing to serve: give manifests (files or folders), --model NAME=URL, or --kubernetes", 2)
    if (namespaces or gateway) and not kubernetes:
        raise fail("--namespace and --gateway say what of a cluster is followed: give --kubernetes", 2)
    settings = Settings(
        paths=paths,
        models=model,
        watches_cluster=kubernetes,
        namespaces=namespaces,
        gateway=gateway,
        controller_name=controller_name or CONTROLLER_NAME,
        host=host,
        port=port,
        listens_on_gateway_ports=listen_on_gateway_ports,
        admin_host=admin_host,
        admin_port=admin_port,
        drain_grace_seconds=drain_grace,
        drain_timeout_seconds=drain_timeout,
        max_body_memory_bytes=max_body_memory,
        picker_config=picker_config,
        trusts_objective_header=trust_objective_header,
        tells_picks=explain_header,
        ignored_policies=frozenset(ignore_policy),
    )
    run(lambda: serve_until_stopped(settings))


async def serve_until_stopped(settings: Settings) -> None:
    """Serve until a signal ends it. Raises click's Exit, with its line said, when it cannot start."""
    from app.configuration import ConfigurationRefusedError
    from app.lifespan import Gateway
    from app.logs import LineWriter, configure_logging
    from app.memory import settle_memory
    from app.signals import run_until_signal
    from app.tracing.settings import TracingConfigurationError, read_tracing_settings
    from discovery.sources.kube_access import AccessError

    writer = LineWriter()
    is_readable = sys.stdout.isatty()
    configure_logging(writer, is_readable=is_readable)
    writer.use_loop(asyncio.get_running_loop().call_later)
    pipeline: TracingPipeline | None = None
    try:
        try:
            tracing = read_tracing_settings(os.environ)
            if tracing is not None:
                from app.tracing.setup import TracingPipeline

                pipeline = TracingPipeline(tracing)
        except TracingConfigurationError as error:
            raise fail(str(error), 2) from None
        try:
            gateway = Gateway(
                settings,
                writer=writer,
                is_readable_log=is_readable,
                tracing=None if pipeline is None else pipeline.observer,
            )
        except AccessError as error:
            raise fail(str(error)) from None
        try:
            await gateway.start()
        except ConfigurationRefusedError as refused:
            for problem in refused.problems:
                say(str(problem), is_error=True)
            raise click.exceptions.Exit(1) from None
        except OSError as error:
            raise fail(f"cannot listen: {error.strerror or error}") from None
        settle_memory()
        try:
            await run_until_signal(gateway)
        except OSError as error:
            await gateway.close()
            raise fail(f"cannot listen: {error.strerror or error}") from None
    finally:
        if pipeline is not None:
            await pipeline.close()
        writer.close()
