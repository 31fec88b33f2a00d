"""Does the benchmark of routing still run? With the smallest counts; the figures themselves are not judged."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.picking import hash_microseconds, pick_microseconds
from bench.routing import Run, capacity, chart, table, verdicts
from tests.support.processes import PROJECT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads CPU from /proc and binds all of 127.0.0.0/8")


def run(*milliseconds: float) -> Run:
    return Run(seconds=2.0, first_tokens=[value / 1000 for value in milliseconds], hits=30, queries=40)


RESULTS = {0.8: {"least request": run(*range(100, 1200, 100)), "default profile": run(*range(50, 600, 50))}}


def test_the_report() -> None:
    first, head, least, ours = table(RESULTS, 50.0)
    assert "capacity 50.0 requests/s" in first
    assert head.split() == ["load", "picked", "by", "TTFT", "p50", "p90", "p99", "hit", "rate", "goodput"]
    assert least.split() == ["80%", "least", "request", "600", "ms", "1000", "1100", "75%", "5.0", "/", "s"]
    assert ours.split()[-3:] == ["5.5", "/", "s"]
    title, longest, half = chart(RESULTS, width=10)
    assert (title, longest.count("█"), half.count("█")) == ("TTFT p90", 10, 5)
    assert verdicts(RESULTS) == ["80%: p90 is 0.50 of least request's, at most 0.5 is allowed: kept"]


def test_the_capacity_is_the_same_each_time() -> None:
    assert capacity(400) == capacity(400) > 1


def test_what_is_measured_of_picking_can_be_done() -> None:
    assert pick_microseconds(3) > 0
    assert hash_microseconds() > 0


def test_a_whole_run() -> None:
    command = [sys.executable, "-m", "bench.routing", "--seconds", "1", "--loads", "0.5"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    assert done.stdout.count("50%") == 4 + 4 + 1
