"""How does a command speak, fail and end? Lines, exit codes and signals, the same for each."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click


def say(text: str, *, is_error: bool = False) -> None:
    """Print a line, at once: who reads it through a pipe may wait for it."""
    stream = sys.stderr if is_error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


def fail(text: str, code: int = 1) -> click.exceptions.Exit:
    """Print what went wrong; the caller raises what this returns, and the command ends with the code."""
    say(f"pointsman: {text}", is_error=True)
    return click.exceptions.Exit(code)


def end_by_signal(code: int) -> None:
    """Let SIGTERM end the process at once with this exit code, until something takes the signal over.

    In a container we are process 1, and from that the kernel keeps signals without a handler: a pod that is deleted
    while it starts would get ready and run on until its grace period is over.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command that serves, until it returns."""
    import uvloop

    end_by_signal(0)  # nothing is served yet, so there is nothing to drain

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
