"""How many instructions does a request take? Counted with valgrind's callgrind: the same figure on a busy machine.

CPU time drifts by a third with what else the machine does; a change worth two per cent needs this. What the kernel does
is not counted, so it is for comparing two trees, not with Envoy.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench.client import drive
from bench.gateway import start_gateway
from bench.loads import Load, Place
from bench.processes import BenchError, Server

_CONCURRENCY = 4  # few, since the requests that are under way at the end are counted in part
_WARM_UP_SECONDS = 4.0
_SECONDS = 12.0
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


def count_instructions(
    tree: Path, load: Load, *, ports: Mapping[str, int], core: set[int], folder: Path, place: Place
) -> float:
    """Instructions per request that the gateway of a tree takes in user space. Raises BenchError."""
    if shutil.which("valgrind") is None:
        raise BenchError("valgrind is not installed")
    output = folder / "callgrind.out"
    output.unlink(missing_ok=True)
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
    server, port = start_gateway(
        ports=ports, core=core, folder=folder, name="pointsman-callgrind", tree=tree, prefix=valgrind
    )
    try:
        at_once = replace(load, settle_seconds=0.0)  # what is counted are requests from the first to the last

        def run(seconds: float) -> int:
            return drive(
                at_once,
                port=port,
                seconds=seconds,
                cpu_seconds=server.cpu_seconds,
                place=place,
                concurrency=_CONCURRENCY,
            ).count

        run(_WARM_UP_SECONDS)
        _switch("on", server)
        count = run(_SECONDS)
        _switch("off", server)
    finally:
        server.stop()
    found = _TOTALS.search(output.read_text()) if output.exists() else None
    if found is None:
        raise BenchError("callgrind wrote no totals")
    return int(found.group(1)) / count


def _switch(word: str, server: Server) -> None:
    command = ["callgrind_control", "--instr=" + word, str(server.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"callgrind_control failed: {done.stderr[-300:]}")
