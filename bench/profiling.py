"""Where does the gateway's time go? Samples it under one load with py-spy, and prints shares as µs of a request."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.client import drive
from bench.loads import Load, Place
from bench.processes import BenchError, Server

_SAMPLES_PER_SECOND = 250
_UNDISTURBED_SECONDS = 2.0
_OWN_LINES, _INCLUSIVE_LINES = 45, 60
_LINE_NUMBER = re.compile(r":\d+\)$")


def profile(
    server: Server, load: Load, *, port: int, place: Place, seconds: float, folder: Path, is_native: bool
) -> str:
    """The functions that a request spends its time in, the most expensive first. Raises BenchError."""
    py_spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if py_spy is None:
        raise BenchError("py-spy is not installed: pip install py-spy")
    # py-spy stops the process for each sample: what a request costs is measured without it.
    cost = drive(load, port=port, seconds=_UNDISTURBED_SECONDS, cpu_seconds=server.cpu_seconds, place=place)
    stacks = folder / "stacks.txt"
    command = [py_spy, "record", "--pid", str(server.pid), "--duration", str(int(seconds)), "--format", "raw"]
    command += ["--rate", str(_SAMPLES_PER_SECOND), "--threads", "--output", str(stacks)]
    command += ["--native"] if is_native else []
    spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        drive(load, port=port, seconds=seconds, cpu_seconds=server.cpu_seconds, place=place)
        code = spy.wait(seconds + 30)
    finally:
        spy.kill()
    if code:
        raise BenchError(f"py-spy failed with {code}; it must be allowed to trace processes")
    microseconds = cost.cpu_per_unit * 1e6
    return _table(stacks.read_text().splitlines(), microseconds, f"{load.title}: {microseconds:.0f} µs a {load.unit}")


def _table(lines: Iterable[str], microseconds: float, title: str) -> str:
    """Shares of the samples in the event loop's thread; the log writer's thread is nearly always idle."""
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    total = 0
    for line in lines:
        stack, _, text = line.rpartition(" ")
        frames = [_LINE_NUMBER.sub(")", frame) for frame in stack.split(";")]
        if "MainThread" not in frames[0] and "process" not in frames[0]:
            continue
        count = int(text)
        total += count
        own[frames[-1]] += count
        inclusive.update(dict.fromkeys(frames, count))
    if not total:
        raise BenchError("py-spy took no samples of the event loop")
    below_loop = {frame: count for frame, count in inclusive.items() if count < 0.95 * total}

    def rows(counts: Iterable[tuple[str, int]]) -> list[str]:
        return [f"{c / total:6.1%} {c / total * microseconds:7.1f} µs  {frame}" for frame, c in counts]

    return "\n".join(
        [
            f"{title}; {total} samples",
            "",
            "own time (a function's Python code and the C code it calls)",
            *rows(own.most_common(_OWN_LINES)),
            "",
            "with what it calls",
            *rows(Counter(below_loop).most_common(_INCLUSIVE_LINES)),
        ]
    )
