"""Which options do several commands share? What is served, by which ports, and what of a cluster is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from app.commands.values import CONTROLLER, NAMESPACE, ObjectName

Command = TypeVar("Command", bound=Callable[..., None])


def configuration_options(command: Command) -> Command:
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


def by_port_option(command: Command) -> Command:
    """The option that tells listeners apart by their ports."""
    return click.option(
        "--listen-on-gateway-ports",
        envvar="POINTSMAN_LISTEN_ON_GATEWAY_PORTS",
        show_envvar=True,
        is_flag=True,
        help="Each Gateway listener has its own port, instead of all sharing one.",
    )(command)


def cluster_options(command: Command) -> Command:
    """The options that say what of a cluster is read."""
    for decorate in (
        click.option(
            "--controller-name",
            metavar="DOMAIN/PATH",
            type=CONTROLLER,
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
            type=ObjectName(),
            help="This Gateway of the cluster is ours, whatever its class, and no other.",
        ),
        click.option(
            "--namespace",
            "namespaces",
            type=NAMESPACE,
            metavar="NAME",
            multiple=True,
            envvar="POINTSMAN_NAMESPACE",
            show_envvar=True,
            help="Read this namespace of the cluster only. Repeatable; without it all are read.",
        ),
    ):
        command = decorate(command)
    return command
