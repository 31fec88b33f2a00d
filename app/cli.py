"""What can be typed? The command `pointsman` and its subcommands. Errors are lines, never tracebacks.

Each subcommand imports what it needs when it runs: `check` starts no server, `simulate` reads no manifests.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.settings import Settings

cli = typer.Typer(
    name="pointsman",
    help="An inference gateway: reads the model name in an OpenAI request and sends the request to the right pod.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Manifests: files, or folders whose *.yaml, *.yml and *.json are read.", show_default=False),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME=URL[,URL...]", help="Serve a model without a manifest; repeatable."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore-policy", metavar="KIND", help="Serve targets of this policy kind without it; repeatable."),
]


def _say(text: str, *, is_error: bool = False) -> None:
    stream = sys.stderr if is_error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


def _fail(text: str, code: int = 1) -> typer.Exit:
    _say(f"pointsman: {text}", is_error=True)
    return typer.Exit(code)


def _duration(text: str) -> float:
    from discovery.resources.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _size(text: str) -> int:
    from discovery.resources.quantities import parse_quantity

    try:
        return parse_quantity(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _run(main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@cli.command()
def serve(
    paths: PathsArgument = None,
    *,
    model: ModelOption = None,
    host: Annotated[str, typer.Option(envvar="POINTSMAN_HOST", help="Where the data port listens.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(envvar="POINTSMAN_PORT", min=0, max=65535, help="The data port.")] = 8080,
    admin_host: Annotated[
        str, typer.Option(envvar="POINTSMAN_ADMIN_HOST", help="Where the admin port listens.")
    ] = "127.0.0.1",
    admin_port: Annotated[
        int, typer.Option(envvar="POINTSMAN_ADMIN_PORT", min=0, max=65535, help="Health, metrics, configuration.")
    ] = 9090,
    drain_grace: Annotated[
        str, typer.Option(envvar="POINTSMAN_DRAIN_GRACE", help="How long requests are still taken after SIGTERM.")
    ] = "1s",
    drain_timeout: Annotated[
        str, typer.Option(envvar="POINTSMAN_DRAIN_TIMEOUT", help="How long running answers may then take.")
    ] = "600s",
    max_body_memory: Annotated[
        str, typer.Option(envvar="POINTSMAN_MAX_BODY_MEMORY", help="Limit of all request bodies in memory together.")
    ] = "512Mi",
    ignore_policy: IgnoreOption = None,
) -> None:
    """Serve the manifests in PATHS: route OpenAI requests by model to the endpoints they name."""
    from app.settings import Settings

    if not paths and not model:
        raise _fail("nothing to serve: give manifests (files or folders), or --model NAME=URL", 2)
    settings = Settings(
        paths=tuple(paths or ()),
        models=tuple(model or ()),
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        drain_grace_seconds=_duration(drain_grace),
        drain_timeout_seconds=_duration(drain_timeout),
        max_body_memory_bytes=_size(max_body_memory),
        ignored_policies=frozenset(ignore_policy or ()),
    )
    _run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from app.lifespan import ConfigurationRefusedError, Gateway
    from app.logs import LineWriter, configure_logging

    writer = LineWriter()
    is_readable = sys.stdout.isatty()
    configure_logging(writer, is_readable=is_readable)
    writer.use_loop(asyncio.get_running_loop().call_later)
    try:
        gateway = Gateway(settings, writer=writer, is_readable_log=is_readable)
        try:
            await gateway.start()
        except ConfigurationRefusedError as refused:
            for problem in refused.problems:
                _say(str(problem), is_error=True)
            raise typer.Exit(1) from None
        except OSError as error:
            raise _fail(f"cannot listen: {error.strerror or error}") from None
        _settle_memory()
        await gateway.run()
    finally:
        writer.close()


def _settle_memory() -> None:
    """Keep the garbage collector from walking over what was made at start, and from looking too often.

    A request leaves no reference cycles; what the collector finds are those of rare errors.
    """
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@cli.command()
def check(paths: PathsArgument = None, *, model: ModelOption = None, ignore_policy: IgnoreOption = None) -> None:
    """Say what is wrong with manifests, a line per problem; exit 0 when nothing but warnings is, else 1."""
    from discovery.load import load
    from discovery.resources.problem import Severity

    if not paths and not model:
        raise _fail("nothing to check: give manifests (files or folders)", 2)
    loaded = load(tuple(paths or ()), models=tuple(model or ()), ignored_policies=frozenset(ignore_policy or ()))
    compiled = loaded.compile()
    for problem in compiled.problems:
        _say(str(problem))
    if any(problem.severity is not Severity.WARNING for problem in compiled.problems):
        raise typer.Exit(1)
    _say(f"{len(compiled.routing.rules)} rules, {len(compiled.routing.backends)} backends: nothing wrong")


@cli.command()
def simulate(
    *,
    model: Annotated[list[str], typer.Option("--model", help="A name it serves; repeatable, the first is the base.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0 takes a free port.")],
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="The pod's name, which its answers tell.")] = "simulator",
    ttft: Annotated[float, typer.Option(min=0, help="Seconds to the first token.")] = 0.0,
    itl: Annotated[float, typer.Option(min=0, help="Seconds between tokens.")] = 0.0,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer to a request without a limit.")] = 16,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="How many requests run at once; others wait.")] = 256,
    fail_rate: Annotated[float, typer.Option(min=0, max=1, help="The share of requests answered with 500.")] = 0.0,
) -> None:
    """Run one simulated model server: it behaves like vLLM, and needs no GPU."""
    from app.simulator.settings import SimulatorSettings

    settings = SimulatorSettings(
        models=tuple(model),
        name=name,
        ttft_seconds=ttft,
        itl_seconds=itl,
        output_tokens=output_tokens,
        max_num_seqs=max_num_seqs,
        fail_rate=fail_rate,
        recorded_requests=0,
    )
    _run(_simulate(settings, host, port))


async def _simulate(settings: Any, host: str, port: int) -> None:
    import signal

    from app.simulator.server import SimulatedModelServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with SimulatedModelServer(settings, host=host, port=port) as server:
            _say(f"simulating {', '.join(settings.models)} at {server.url}")
            await stop.wait()
    except OSError as error:
        raise _fail(f"cannot listen: {error.strerror or error}") from None


@cli.command()
def demo(
    *,
    host: Annotated[str, typer.Option(envvar="POINTSMAN_HOST", help="Where the gateway listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="POINTSMAN_PORT", min=1, max=65535, help="The data port.")] = 8080,
    admin_port: Annotated[
        int, typer.Option(envvar="POINTSMAN_ADMIN_PORT", min=1, max=65535, help="The admin port.")
    ] = 9090,
) -> None:
    """Run the gateway over three simulated pods, and print what to try."""
    from app.demo import DemoError, demo_routes
    from app.settings import Settings

    try:
        routes = demo_routes()
    except DemoError as error:
        raise _fail(str(error)) from None
    settings = Settings(
        paths=(routes,), host=host, port=port, admin_port=admin_port, drain_grace_seconds=0.0, drain_timeout_seconds=5.0
    )
    _run(_demo(settings))


async def _demo(settings: Settings) -> None:
    from app.demo import WHAT_TO_TRY, DemoError, simulated_pods

    try:
        async with simulated_pods():
            _say(
                WHAT_TO_TRY.format(
                    routes=settings.paths[0],
                    url=f"http://{settings.host}:{settings.port}",
                    admin=f"http://{settings.admin_host}:{settings.admin_port}",
                )
            )
            await _serve(settings)
    except DemoError as error:
        raise _fail(str(error)) from None


def main() -> None:
    """The entry point."""
    cli()
