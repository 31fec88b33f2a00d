"""What does `pointsman explain` take and print?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from app.commands.options import by_port_option, configuration_options
from app.commands.process import fail, say
from app.commands.values import PORT


@click.command()
@configuration_options
@by_port_option
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
    from app.admin.explain import Question
    from app.admin.explain import explain as explain_request
    from app.admin.explain_text import explain_as_text
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
        raise fail("nothing to explain by: give manifests (files or folders)", 2)
    if len(asked) > 1:
        raise fail("one request names one model", 2)
    pairs = []
    for header in headers:
        name, separator, value = header.partition(":")
        if not separator or not name.strip():
            raise fail(f"--header {header}: not of the form NAME:VALUE", 2)
        pairs.append((name.strip(), value.strip()))
    if (port is not None) != listen_on_gateway_ports:
        raise fail("--port and --listen-on-gateway-ports belong together", 2)
    loaded = load(paths, models=served, ignored_policies=frozenset(ignore_policy), by_port=listen_on_gateway_ports)
    if loaded.is_refused:
        for problem in loaded.problems:
            say(str(problem), is_error=True)
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

        say(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        say(explain_as_text(answer))
