"""Does the benchmark still run? Its whole path with the smallest counts; the figures themselves are not judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads CPU and memory from /proc")

# A gateway of sorts: whatever is asked, it answers 200 with a stream of one event that says nothing.
_EMPTY_ANSWERS = r"""
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"a\r\ndata: {}\n\n\r\n0\r\n\r\n")

http.server.ThreadingHTTPServer.request_queue_size = 64
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=45, check=False)


def test_every_load_is_measured_and_reported(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = _bench("--no-envoy", "--rounds", "1", "--seconds", "0.1", "--streams", "20", "--json", str(file))
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(file.read_text())
    assert list(figures["loads"]) == ["json", "burst", "1mb", "paced"]
    for load in figures["loads"].values():
        assert list(load["servers"]) == ["direct", "pointsman"]
        ours = load["servers"]["pointsman"]
        assert ours["count"][0] > 0
        assert ours["cpu_us"][0] > 0
        assert load["unit"] in done.stdout
    assert 0 < figures["memory"]["pointsman"]["idle"] < 500_000_000


def test_a_gateway_that_answers_wrongly_is_no_fast_gateway(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(_EMPTY_ANSWERS)
    done = _bench("--no-envoy", "--rounds", "1", "--seconds", "0.1", "--streams", "1", "--tree", str(tmp_path))
    assert done.returncode == 1
    assert "a wrong answer" in done.stderr


def test_the_cost_of_rewriting_is_measured_and_reported() -> None:
    command = [sys.executable, "-m", "bench.rewriting", "--rounds", "1", "--seconds", "0.1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=45, check=False)
    assert done.returncode == 0, done.stderr
    assert "every other event" in done.stdout
    assert done.stdout.count("and a rewrite") == 2


def test_the_cost_of_being_watched_is_measured_and_reported() -> None:
    command = [sys.executable, "-m", "bench.observing", "--rounds", "2", "--seconds", "0.1", "--models", "100"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=45, check=False)
    assert done.returncode == 0, done.stderr
    assert "noting a chunk" in done.stdout
    assert done.stdout.count("CPU per request unobserved") == 2
    assert "a scrape of 100 models" in done.stdout
