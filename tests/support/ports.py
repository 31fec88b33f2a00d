"""Which port may a test use? One that nobody else takes, also after it was given back.

The kernel hands out its own free ports at random, and a test whose server has gone must find nobody there: with the
tests running in several processes now and then it found another test's server. These ports are below the kernel's
range (32768 and up on Linux), each worker has its own, and none comes again before all others did.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _PER_WORKER, _WORKERS = 12_000, 5_000, 4


def _own_ports() -> itertools.cycle[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    first = _FIRST + worker * _PER_WORKER
    start = random.SystemRandom().randrange(_PER_WORKER)  # beside other runs on this machine
    return itertools.cycle([*range(first + start, first + _PER_WORKER), *range(first, first + start)])


_ports = _own_ports()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at."""
    while True:
        port = next(_ports)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do that will use it
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
