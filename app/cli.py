"""What can be typed? The command `pointsman` and its subcommands. Errors are lines, never tracebacks.

Each subcommand imports what it needs when it runs: `check` starts no server, `simulate` reads no manifests.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from app.settings import Settings
    from app.simulator.settings import SimulatorSettings
    from app.tracing.setup import TracingPipeline
    from discovery.scope import Scope

Command = TypeVar("Command", bound=Callable[..., None])


class _Port(click.IntRange):
    """0 to 65535. Beside a Service named `pointsman` Kubernetes sets POINTSMAN_PORT to that Service's URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).startswith(("tcp://", "udp://")):
            service = "Kubernetes sets this for a Service of that name: set enableServiceLinks: false in the pod"
            self.fail(f"{value} is not a port. {service}", param, ctx)
        return super().convert(value, param, ctx)


PORT = _Port(0, 65535)


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """Seconds, written as 500ms, 30s, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from discovery.resources.quantities import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _ObjectName(click.ParamType):  # type: ignore[type-arg]
    """An object's namespace and name, written as NAMESPACE/NAME."""

    name = "namespace/name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        namespace, separator, name = str(value).partition("/")
        if not separator or not namespace or not name or "/" in name:
            self.fail(f"{value} is not of the form NAMESPACE/NAME", param, ctx)
        return namespace, name


class _Name(click.ParamType):  # type: ignore[type-arg]
    """A name as the API has it. With any other nothing would be found, without a word."""

    def __init__(self, kind: str, pattern: str, longest: int) -> None:
        self.name = kind
        self._pattern = pattern
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if len(text) > self._longest or not re.fullmatch(self._pattern, text):
            self.fail(f"{text} cannot be the name of a {self.name}", param, ctx)
        return text


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMESPACE = _Name("namespace", _LABEL, 63)
_CONTROLLER = _Name("controller", rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", 253)


class _Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, written as 512Mi, 1G, 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from discovery.resources.quantities import parse_quantity

        try:
            return parse_quantity(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _configuration(command: Command) -> Command:
    """The argument and the options that say what is served."""
    for decorate in (
        click.option(
            "--ignore-policy",
            metavar="KIND",
            multiple=True,
            envvar="POINTSMAN_IGNORE_POLICY",
            show_envvar=True,
            help="Serve what a policy of this unimplemented kind targets, without it. Repeatable.",
        ),
        click.option(
            "--model", metavar="NAME=URL[,URL...]", multiple=True, help="A model without a manifest. Repeatable."
        ),
        click.argument("paths", nargs=-1, type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def _by_port(command: Command) -> Command:
    """The option that tells listeners apart by their ports."""
    return click.option(
        "--listen-on-gateway-ports",
        envvar="POINTSMAN_LISTEN_ON_GATEWAY_PORTS",
        show_envvar=True,
        is_flag=True,
        help="Each Gateway listener has its own port, instead of all sharing one.",
    )(command)


def _cluster(command: Command) -> Command:
    """The options that say what of a cluster is read."""
    for decorate in (
        click.option(
            "--controller-name",
            metavar="DOMAIN/PATH",
            type=_CONTROLLER,
            envvar="POINTSMAN_CONTROLLER_NAME",
            show_envvar=True,
            help="Gateways of the cluster are ours whose GatewayClass names this controller; "
            "else pointsman.dev/gatewayclass-controller.",
        ),
        click.option(
            "--gateway",
            metavar="NAMESPACE/NAME",
            envvar="POINTSMAN_GATEWAY",
            show_envvar=True,
            type=_ObjectName(),
            help="This Gateway of the cluster is ours, whatever its class, and no other.",
        ),
        click.option(
            "--namespace",
            "namespaces",
            type=_NAMESPACE,
            metavar="NAME",
            multiple=True,
            envvar="POINTSMAN_NAMESPACE",
            show_envvar=True,
            help="Read this namespace of the cluster only. Repeatable; without it all are read.",
        ),
    ):
        command = decorate(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True})
@click.version_option(package_name="pointsman", prog_name="pointsman")
def cli() -> None:
    """An inference gateway: reads the model name in an OpenAI request and sends the request to the right pod.

    \b
    Try:  pointsman demo
          pointsman check routes.yaml
          pointsman serve routes.yaml
    """


def _say(text: str, *, is_error: bool = False) -> None:
    stream = sys.stderr if is_error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


def _fail(text: str, code: int = 1) -> click.exceptions.Exit:
    _say(f"pointsman: {text}", is_error=True)
    return click.exceptions.Exit(code)


def _end_by_signal(code: int) -> None:
    """Let SIGTERM end the process at once with this exit code, until something takes the signal over.

    In a container we are process 1, and from that the kernel keeps signals without a handler: a pod that is deleted
    while it starts would get ready and run on until its grace period is over.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import uvloop

    _end_by_signal(0)  # nothing is served yet, so there is nothing to drain

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@cli.command()
@_configuration
@click.option(
    "--kubernetes",
    envvar="POINTSMAN_KUBERNETES",
    show_envvar=True,
    is_flag=True,
    help="Follow the cluster, as the pod's service account, else by KUBECONFIG. What files have too is theirs.",
)
@_cluster
@click.option("--host", envvar="POINTSMAN_HOST", show_envvar=True, default="0.0.0.0", help="Where clients connect.")
@click.option("--port", envvar="POINTSMAN_PORT", show_envvar=True, default=8080, type=PORT, help="The data port.")
@_by_port
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
    type=_Duration(),
    help="How long requests are still taken after SIGTERM.",
)
@click.option(
    "--drain-timeout",
    envvar="POINTSMAN_DRAIN_TIMEOUT",
    show_envvar=True,
    default="600s",
    type=_Duration(),
    help="How long running answers may then take.",
)
@click.option(
    "--max-body-memory",
    envvar="POINTSMAN_MAX_BODY_MEMORY",
    show_envvar=True,
    default="512Mi",
    type=_Size(),
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
        raise _fail("nothing to serve: give manifests (files or folders), --model NAME=URL, or --kubernetes", 2)
    if (namespaces or gateway) and not kubernetes:
        raise _fail("--namespace and --gateway say what of a cluster is followed: give --kubernetes", 2)
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
    _run(lambda: _serve(settings))


async def _serve(settings: Settings) -> None:
    from app.configuration import ConfigurationRefusedError
    from app.lifespan import Gateway
    from app.logs import LineWriter, configure_logging
    from app.memory import settle_memory
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
            raise _fail(str(error), 2) from None
        try:
            gateway = Gateway(
                settings,
                writer=writer,
                is_readable_log=is_readable,
                tracing=None if pipeline is None else pipeline.observer,
            )
        except AccessError as error:
            raise _fail(str(error)) from None
        try:
            await gateway.start()
        except ConfigurationRefusedError as refused:
            for problem in refused.problems:
                _say(str(problem), is_error=True)
            raise click.exceptions.Exit(1) from None
        except OSError as error:
            raise _fail(f"cannot listen: {error.strerror or error}") from None
        settle_memory()
        try:
            await gateway.run()
        except OSError as error:
            await gateway.close()
            raise _fail(f"cannot listen: {error.strerror or error}") from None
    finally:
        if pipeline is not None:
            await pipeline.close()
        writer.close()


@cli.command()
@_configuration
@_by_port
@click.option("--json", "as_json", is_flag=True, help="One JSON array of problems instead of lines.")
def check(
    paths: tuple[Path, ...],
    model: tuple[str, ...],
    ignore_policy: tuple[str, ...],
    listen_on_gateway_ports: bool,
    as_json: bool,
) -> None:
    """Say what is wrong with manifests.

    A line per problem:

    \b
    file:line: kind/name: field.path: what is wrong

    Exit code 0 when there is nothing but warnings, else 1.
    """
    from discovery.load import load
    from discovery.resources.problem import Severity

    if not paths and not model:
        raise _fail("nothing to check: give manifests (files or folders)", 2)
    loaded = load(
        paths,
        models=model,
        ignored_policies=frozenset(ignore_policy),
        by_port=listen_on_gateway_ports,
        progress=_progress_bar("documents"),
    )
    compiled = loaded.compile()
    if as_json:
        import orjson

        _say(orjson.dumps([problem.as_dict() for problem in compiled.problems]).decode())
    else:
        for problem in compiled.problems:
            _say(str(problem))
    if any(problem.severity is not Severity.WARNING for problem in compiled.problems):
        raise click.exceptions.Exit(1)
    if not compiled.routing.rules:
        _say("warning: nothing is routed: there is no HTTPRoute or AIGatewayRoute with rules", is_error=as_json)
    elif not as_json:
        _say(f"{len(compiled.routing.rules)} rules, {len(compiled.routing.backends)} backends: nothing wrong")


def _progress_bar(what: str) -> Callable[[int, int], None] | None:
    """Says how far it is, on a terminal only, and nothing of what is done at once."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, in_all: int) -> None:
        is_last = done >= in_all
        if in_all >= 100:
            sys.stderr.write("\r\x1b[K" if is_last else f"\r{done} of {in_all} {what}")
            sys.stderr.flush()

    return show


@cli.command()
@_configuration
@_by_port
@click.option("--port", type=PORT, help="With --listen-on-gateway-ports: the port that the request comes to.")
@click.option("--path", default="/v1/chat/completions", help="The request's path.")
@click.option("--method", default="POST", help="The request's method.")
@click.option("--header", "headers", metavar="NAME:VALUE", multiple=True, help="A header of the request. Repeatable.")
@click.option(
    "--requests", default=0, type=click.IntRange(0, 100_000), help="Draw so often, and count what goes where."
)
@click.option("--json", "as_json", is_flag=True, help="The whole explanation as JSON.")
def explain(
    paths: tuple[Path, ...],
    model: tuple[str, ...],
    ignore_policy: tuple[str, ...],
    listen_on_gateway_ports: bool,
    port: int | None,
    path: str,
    method: str,
    headers: tuple[str, ...],
    requests: int,
    as_json: bool,
) -> None:
    """Say where a request would go, and why.

    --model is the name in the request's body here; NAME=URL adds a model without a manifest.
    """
    from app.admin.explain import Question, explain_as_text
    from app.admin.explain import explain as explain_request
    from app.main import make_transport
    from discovery.load import load
    from discovery.snapshot import Snapshot
    from middleware.rate_limits import RateLimiter
    from middleware.scheduling.scheduler import Scheduler
    from middleware.shedding import Shedder
    from middleware.upstream.registry import UpstreamRegistry

    asked = [name for name in model if "=" not in name]
    served = tuple(name for name in model if "=" in name)
    if not paths and not served:
        raise _fail("nothing to explain by: give manifests (files or folders)", 2)
    if len(asked) > 1:
        raise _fail("one request names one model", 2)
    pairs = []
    for header in headers:
        name, separator, value = header.partition(":")
        if not separator or not name.strip():
            raise _fail(f"--header {header}: not of the form NAME:VALUE", 2)
        pairs.append((name.strip(), value.strip()))
    if (port is not None) != listen_on_gateway_ports:
        raise _fail("--port and --listen-on-gateway-ports belong together", 2)
    loaded = load(paths, models=served, ignored_policies=frozenset(ignore_policy), by_port=listen_on_gateway_ports)
    if loaded.is_refused:
        for problem in loaded.problems:
            _say(str(problem), is_error=True)
        raise click.exceptions.Exit(1)
    compiled = loaded.compile()
    question = Question(
        model=asked[0] if asked else None,
        method=method,
        path=path,
        headers=tuple(pairs),
        requests=requests,
        port=port,
    )
    snapshot = Snapshot(version=1, routing=compiled.routing, membership=compiled.membership)
    registry = UpstreamRegistry(make_transport=make_transport)
    scheduler = Scheduler()
    shedder = Shedder(scheduler=scheduler, registry=registry)
    answer = asyncio.run(
        explain_request(
            question,
            snapshot=snapshot,
            registry=registry,
            limiter=RateLimiter(),
            shedder=shedder,
            scheduler=scheduler,
        )
    )
    if as_json:
        import orjson

        _say(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        _say(explain_as_text(answer))


@cli.command()
@_cluster
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
        _say(f"warning: {text}", is_error=True)

    try:
        client = KubeClient(find_access())
    except AccessError as error:
        raise _fail(str(error)) from None
    try:
        documents = await ClusterSnapshot(client, namespaces=namespaces, scope=scope, warn=warn).documents()
    except KubeError as error:
        raise _fail(error.message) from None
    finally:
        await client.close()
    for document in documents:
        _say(f"---\n{document}")
    if not documents:
        warn("the cluster holds nothing that concerns our Gateways")


@cli.command()
@click.option("--port", required=True, type=PORT, help="Where it listens; 0 takes a free port.")
@click.option(
    "--model", required=True, multiple=True, help="A name it serves. Repeatable; the first is the base model."
)
@click.option("--host", default="127.0.0.1", help="The address it listens on.")
@click.option("--name", default="simulator", help="The pod's name, which its answers tell.")
@click.option("--ttft", default=0.0, type=click.FloatRange(0), help="Seconds to the first token.")
@click.option("--itl", default=0.0, type=click.FloatRange(0), help="Seconds between tokens.")
@click.option(
    "--output-tokens",
    default=16,
    type=click.IntRange(1),
    help="Tokens of an answer to a request without a limit.",
)
@click.option(
    "--max-num-seqs",
    default=256,
    type=click.IntRange(1),
    help="How many requests run at once; others wait.",
)
@click.option(
    "--fail-rate",
    default=0.0,
    type=click.FloatRange(0, 1),
    help="The share of requests that are answered with 500.",
)
@click.option("--prefix-caching", is_flag=True, help="Prompts that begin alike are computed once.")
@click.option(
    "--prefill-rate",
    default=0.0,
    type=click.FloatRange(0),
    help="Prompt tokens computed in a second, one prompt after the other; 0: at once.",
)
@click.option("--kv-blocks", default=8192, type=click.IntRange(2), help="Blocks of its KV cache.")
@click.option("--block-size", default=128, type=click.IntRange(1), help="Tokens in a block.")
@click.option("--adapter", multiple=True, help="A LoRA adapter that it answers to. Repeatable.")
@click.option("--max-loras", default=1, type=click.IntRange(1), help="How many adapters run at once; others wait.")
@click.option("--while-stdin-is-open", is_flag=True, hidden=True, help="End with the process that started this one.")
def simulate(
    port: int,
    model: tuple[str, ...],
    host: str,
    name: str,
    ttft: float,
    itl: float,
    output_tokens: int,
    max_num_seqs: int,
    fail_rate: float,
    prefix_caching: bool,
    prefill_rate: float,
    kv_blocks: int,
    block_size: int,
    adapter: tuple[str, ...],
    max_loras: int,
    while_stdin_is_open: bool,
) -> None:
    """Run a simulated model server, without a GPU."""
    from app.simulator.settings import SimulatorSettings

    settings = SimulatorSettings(
        models=model,
        name=name,
        ttft_seconds=ttft,
        itl_seconds=itl,
        output_tokens=output_tokens,
        max_num_seqs=max_num_seqs,
        fail_rate=fail_rate,
        prefix_caching=prefix_caching,
        prefill_tokens_per_second=prefill_rate,
        num_gpu_blocks=kv_blocks,
        block_size=block_size,
        adapters=adapter,
        max_loras=max_loras,
        recorded_requests=0,
    )
    _run(lambda: _simulate(settings, host, port, while_stdin_is_open=while_stdin_is_open))


async def _simulate(settings: SimulatorSettings, host: str, port: int, *, while_stdin_is_open: bool) -> None:
    from app.simulator.server import SimulatedModelServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if while_stdin_is_open:

        def look_at_stdin() -> None:
            if not os.read(0, 4096):
                asyncio.get_running_loop().remove_reader(0)
                stop.set()

        asyncio.get_running_loop().add_reader(0, look_at_stdin)
    try:
        async with SimulatedModelServer(settings, host=host, port=port) as server:
            _say(f"simulating {', '.join(settings.models)} at {server.url}")
            await stop.wait()
    except OSError as error:
        raise _fail(f"cannot listen: {error.strerror or error}") from None


@cli.command()
@click.option("--host", envvar="POINTSMAN_HOST", show_envvar=True, default="127.0.0.1", help="Where clients connect.")
@click.option("--port", envvar="POINTSMAN_PORT", show_envvar=True, default=8080, type=PORT, help="The data port.")
@click.option(
    "--admin-port", envvar="POINTSMAN_ADMIN_PORT", show_envvar=True, default=9090, type=PORT, help="The admin port."
)
def demo(host: str, port: int, admin_port: int) -> None:
    """Show the gateway at work over simulated pods."""
    from app.demo import DemoError, demo_routes
    from app.settings import Settings

    try:
        routes = demo_routes()
    except DemoError as error:
        raise _fail(str(error)) from None
    settings = Settings(
        paths=(routes,), host=host, port=port, admin_port=admin_port, drain_grace_seconds=0.0, drain_timeout_seconds=5.0
    )
    _run(lambda: _demo(settings))


async def _demo(settings: Settings) -> None:
    from app.demo import WHAT_TO_TRY, DemoError, simulated_pods

    # From the first moment on a signal ends the demo with all its processes; `serve` takes the signals over.
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
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
    except asyncio.CancelledError:
        raise click.exceptions.Exit(0) from None


def main() -> None:
    """The entry point. An interrupt before there is anything to drain ends it without a word."""
    _end_by_signal(128 + signal.SIGTERM)
    try:
        code = cli(prog_name="pointsman", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
