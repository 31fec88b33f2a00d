"""Which servers are compared, and how do rounds go over them? Upstream, our gateway, Envoy, the gateway of a tree."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from bench.client import drive
from bench.envoy import start_envoy
from bench.gateway import PROJECT, start_gateway
from bench.loads import Load, Place
from bench.memory import MemoryUse, measure_memory
from bench.processes import Server, cores
from bench.report import DIRECT, ENVOY, LoadResult

_ALONE_SECONDS = 0.2


class Servers:
    """The servers of one benchmark. A context manager: at its end every process that it started is ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.measured_core, self.other_core = cores()
        self.upstream_ports: dict[str, int] = {}
        self._running: dict[str, tuple[Server, int | None]] = {}  # the upstream has a port per behaviour

    def __enter__(self) -> Servers:
        os.sched_setaffinity(0, self.other_core)
        upstream = Server(
            name="upstream",
            command=[sys.executable, "-m", "bench.upstream"],
            core=self.other_core,
            output=self._folder / "upstream.log",
            directory=PROJECT,
        )
        self._add(DIRECT, upstream, None)
        try:
            self.upstream_ports = json.loads(upstream.wait_line())
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_gateway(
        self,
        name: str,
        tree: Path,
        manifest: str | None = None,
        *,
        module: str = "app",
        prefix: Sequence[str] = (),
    ) -> Server:
        """Start the gateway of a source tree, with a manifest of its own or the usual one."""
        server, port = start_gateway(
            ports=self.upstream_ports,
            core=self.measured_core,
            folder=self._folder,
            name=name,
            tree=tree,
            manifest=manifest,
            module=module,
            prefix=prefix,
        )
        self._add(name, server, port)
        return server

    def start_envoy(self, binary: Path) -> None:
        """Start Envoy."""
        server, port = start_envoy(
            binary=binary, ports=self.upstream_ports, core=self.measured_core, folder=self._folder
        )
        self._add(ENVOY, server, port)

    def _add(self, name: str, server: Server, port: int | None) -> None:
        self._stack.callback(server.stop)
        self._running[name] = (server, port)

    def port(self, name: str, load: Load) -> int:
        """Where a load reaches a server."""
        port = self._running[name][1]
        return self.upstream_ports[load.behaviour.value] if port is None else port

    def round(
        self,
        result: LoadResult,
        *,
        seconds: float,
        place: Place,
        asked: str | None = None,
        renamed: Collection[str] = (),
    ) -> None:
        """Run one load once against each server, one right after the other. ``asked`` is the model in place of the
        usual ones; of the servers that are ``renamed`` answers must name it."""
        load = result.load
        for name, (server, _) in self._running.items():
            port = self.port(name, load)
            gc.collect()
            window = seconds * load.window
            run = partial(
                drive,
                load,
                port=port,
                cpu_seconds=server.cpu_seconds,
                place=place,
                name=asked,
                is_renamed=name in renamed,
            )
            measured = run(seconds=window)
            result.under_load.setdefault(name, []).append(measured)
            if load.unit == "request":
                alone = run(seconds=_ALONE_SECONDS, concurrency=1)
                result.alone.setdefault(name, []).append(alone)

    def memory(self, streams: int) -> dict[str, MemoryUse]:
        """Idle memory and memory per stream of each gateway. Comes first: it wants processes that did nothing yet."""
        return {
            name: measure_memory(server, port=port, streams=streams)
            for name, (server, port) in self._running.items()
            if port is not None
        }
