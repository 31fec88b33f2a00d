"""What does `pointsman check` take and print?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from app.commands.options import by_port_option, configuration_options
from app.commands.process import fail, say


@click.command()
@configuration_options
@by_port_option
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
    from discovery.resources.problem import Severity, told_once

    if not paths and not model:
        raise fail("nothing to check: give manifests (files or folders)", 2)
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

        say(orjson.dumps([problem.as_dict() for problem in compiled.problems]).decode())
    else:
        for problem in told_once(compiled.problems):
            say(str(problem))
    if any(problem.severity is not Severity.WARNING for problem in compiled.problems):
        raise click.exceptions.Exit(1)
    if not compiled.routing.rules:
        say("warning: nothing is routed: there is no HTTPRoute or AIGatewayRoute with rules", is_error=as_json)
    elif not as_json:
        say(f"{len(compiled.routing.rules)} rules, {len(compiled.routing.backends)} backends: nothing wrong")


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
