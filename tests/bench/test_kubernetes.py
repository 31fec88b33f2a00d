"""Does the benchmark of a cluster still run? With the smallest counts; the figures themselves are not judged."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads CPU and memory from /proc")


def test_every_figure_is_printed() -> None:
    command = [sys.executable, "-m", "bench.kubernetes", "--pods", "20", "--routes", "20", "--rate", "50"]
    command += ["--idle", "0.2", "--rounds", "1", "--seconds", "0.5", "--settle", "0.5"]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    for part in (
        "20 pods and 20 routes",
        "to the first request",
        "memory:",
        "at rest, pods that refuse",
        "at rest, pods that tell",
        "the same from a file",
        "pod events a second",
    ):
        assert part in run.stdout
