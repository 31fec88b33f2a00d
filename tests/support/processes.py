"""How does a test run the command as a user does? As a process of its own, ended in any case."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent


async def _start(arguments: Sequence[str], env: dict[str, str] | None, *, stderr: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        cwd=PROJECT,
        env={**os.environ, **(env or {})},
        limit=1 << 20,
    )


async def run_command(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run `pointsman` to its end: exit code, stdout, stderr."""
    process = await _start(arguments, env, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class RunningCommand:
    """A `pointsman` process that serves."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def wait_line(self, part: str) -> str:
        """The next line of its output that contains ``part``."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if part in line:
                    return line
        raise AssertionError(f"the process ended without saying {part!r}: {self.lines}")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def wait(self, seconds: float = 10) -> int:
        """Its exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            self.lines += (await self.process.stdout.read()).decode().splitlines(keepends=True)
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running_command(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[RunningCommand]:
    """Start `pointsman` with these arguments; it is killed at the end of the block if it still runs."""
    process = await _start(arguments, env, stderr=asyncio.subprocess.STDOUT)
    command = RunningCommand(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdout is not None
        await process.stdout.read()
        await process.wait()
