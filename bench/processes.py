"""How are servers started, watched and ended? One class for a child process, and what /proc says of it."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_START_SECONDS = 60.0  # under valgrind; else it is one
_STOP_SECONDS = 10.0


class BenchError(Exception):
    """The measurement cannot be trusted or made; the text says why."""


def cores() -> tuple[set[int], set[int]]:
    """The core for what is measured, and the one for load generator and upstream; the same when there is but one."""
    available = sorted(os.sched_getaffinity(0))
    return {available[0]}, {available[-1]}


@contextlib.contextmanager
def pinned(to: set[int]) -> Iterator[None]:
    """Children started inside inherit this affinity; threads that they start do as well."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_files() -> None:
    """Raise the limit of open files as far as we may: a thousand streams take two thousand sockets of the gateway."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A port that nobody listens on at 127.0.0.1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def stolen_seconds() -> float:
    """CPU time that the hypervisor gave to others since boot, of all cores together."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


class Server:
    """A child process that listens. Ended by `stop`, and only it."""

    def __init__(self, *, name: str, command: Sequence[str], core: set[int], output: Path, directory: Path) -> None:
        self.name = name
        self._output = output
        with output.open("wb") as file, pinned(core):
            self._process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid

    def wait_listening(self, port: int) -> None:
        """Return once connections are taken. Raises BenchError when the process ends or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        tail = self.output()[-2000:].decode(errors="replace")
        self.stop()
        raise BenchError(f"{self.name} does not listen on port {port}:\n{tail}")

    def output(self) -> bytes:
        """What the process wrote to its stdout and stderr."""
        return self._output.read_bytes()

    def wait_line(self) -> bytes:
        """The first line that the process writes. Raises BenchError when none comes."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            line, end, _ = self.output().partition(b"\n")
            if end:
                return line
            time.sleep(0.02)
        self.stop()
        raise BenchError(f"{self.name} did not start:\n{self.output()[-2000:].decode(errors='replace')}")

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far, exact to the nanosecond (schedstat, not clock ticks)."""
        nanoseconds = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_bytes().split()[0])
        return nanoseconds / 1e9

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]) * resource.getpagesize()

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
