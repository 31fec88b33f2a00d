"""What can be typed? The command `pointsman` and its subcommands. Errors are lines, never tracebacks.

Each subcommand imports what it needs when it runs: `check` starts no server, `simulate` reads no manifests.
"""

from __future__ import annotations

import signal
import sys

import click

from app.commands.process import end_by_signal


class _Subcommands(click.Group):
    """Imports a subcommand when it is asked for: a gateway has no use for the options of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["check", "demo", "explain", "serve", "simulate", "snapshot"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        match cmd_name:
            case "check":
                from app.commands.check import check

                return check
            case "demo":
                from app.commands.demo import demo

                return demo
            case "explain":
                from app.commands.explain import explain

                return explain
            case "serve":
                from app.commands.serve import serve

                return serve
            case "simulate":
                from app.commands.simulate import simulate

                return simulate
            case "snapshot":
                from app.commands.snapshot import snapshot

                return snapshot
        return None


@click.group(
    cls=_Subcommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.version_option(package_name="pointsman", prog_name="pointsman")
def cli() -> None:
    """An inference gateway: reads the model name in an OpenAI request and sends the request to the right pod.

    \b
    Try:  pointsman demo
          pointsman check routes.yaml
          pointsman serve routes.yaml
    """


def main() -> None:
    """The entry point. An interrupt before there is anything to drain ends it without a word."""
    end_by_signal(128 + signal.SIGTERM)
    try:
        code = cli(prog_name="pointsman", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
