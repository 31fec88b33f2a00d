"""Does the command do what its help says? As processes, with real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import route_to
from tests.support.ports import free_port
from tests.support.processes import run_command, running_command
from tests.support.raw_client import RawClient
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

BODY = b'{"model":"qwen","stream":true,"messages":[{"role":"user","content":"hi"}]}'
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(BODY), BODY)
)


def serve_arguments(manifests: Path, *more: str) -> tuple[list[str], int, int]:
    port, admin_port = free_port(), free_port()
    arguments = ["serve", str(manifests), "--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port)]
    return [*arguments, *more], port, admin_port


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return tmp_path / "routes.yaml"


async def test_help_names_every_command() -> None:
    code, out, _ = await run_command("--help")
    assert code == 0
    for command in ("serve", "check", "explain", "snapshot", "simulate", "demo"):
        assert command in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["serve"], 2, "nothing to serve", id="serve-nothing"),
        pytest.param(["check"], 2, "nothing to check", id="check-nothing"),
        pytest.param(["serve", "/nowhere.yaml"], 1, "/nowhere.yaml: no such file or folder", id="missing-file"),
        pytest.param(["serve", "--model", "qwen=http://x/path"], 1, "path", id="url-with-path"),
        pytest.param(["serve", "x.yaml", "--drain-timeout", "soon"], 2, "soon", id="bad-duration"),
        pytest.param(["serve", "x.yaml", "--max-body-memory", "much"], 2, "much", id="bad-size"),
        pytest.param(["serve", "x.yaml", "--port", "70000"], 2, "70000", id="bad-port"),
        pytest.param(
            ["serve", "x.yaml", "--picker-config", "/no.yaml"], 1, "/no.yaml: no such file", id="no-picker-file"
        ),
        pytest.param(["serve", "x.yaml", "--picker-config", "/"], 2, "is a directory", id="picker-folder"),
        pytest.param(["simulate", "--port", "1"], 2, "--model", id="simulate-without-a-model"),
    ],
)
async def test_errors_are_lines_and_never_tracebacks(arguments: list[str], code: int, said: str) -> None:
    got, out, err = await run_command(*arguments)
    assert got == code
    assert said in out + err
    assert "Traceback" not in out + err


async def test_check_prints_file_line_and_field_and_exits_1(manifests: Path) -> None:
    manifests.write_text(route_to(("127.0.0.1", 1)).replace("backendRefs", "backendRef"))
    code, out, err = await run_command("check", str(manifests))
    assert code == 1
    assert f"{manifests}:" in out
    assert "HTTPRoute/route-qwen: spec.rules[0].backendRef" in out
    assert "Traceback" not in err


async def test_check_of_what_is_right_exits_0_and_so_do_warnings(manifests: Path) -> None:
    manifests.write_text(route_to(("127.0.0.1", 1)))
    assert (await run_command("check", str(manifests)))[0] == 0
    manifests.write_text(manifests.read_text() + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    code, out, _ = await run_command("check", str(manifests))
    assert code == 0
    assert out.startswith("warning: ")


async def test_serve_refuses_what_an_api_server_would_not_store(manifests: Path) -> None:
    head = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\n"
    manifests.write_text(head + "spec: {a: 1}\n")
    code, _, err = await run_command("serve", str(manifests), "--port", "0", "--admin-port", "0")
    assert code == 1
    assert f"{manifests}:4: HTTPRoute/x: spec.a" in err
    assert "Traceback" not in err


async def test_a_service_of_our_name_in_the_environment_is_told_apart_from_a_port(manifests: Path) -> None:
    code, out, err = await run_command("serve", str(manifests), env={"POINTSMAN_PORT": "tcp://10.96.0.7:80"})
    assert (code, out) == (2, "")
    assert "(env var: 'POINTSMAN_PORT')" in err
    assert "enableServiceLinks: false" in err


async def test_a_signal_while_it_still_starts_ends_it_at_once(manifests: Path) -> None:
    # As process 1 of a container it would otherwise not even notice.
    os.mkfifo(manifests)
    arguments, _, _ = serve_arguments(manifests)
    async with running_command(*arguments) as command:
        with await asyncio.to_thread(manifests.open, "wb"):  # opens once the command reads
            command.signal()
            assert await command.wait() == 0
    assert command.lines == []


async def test_serve_says_when_its_port_is_taken(manifests: Path) -> None:
    manifests.write_text(route_to(("127.0.0.1", 1)))

    async def nothing(peer: Conversation) -> None:
        await peer.until_closed()

    async with RawUpstream(nothing) as taken:
        arguments = ("--host", "127.0.0.1", "--port", str(taken.port), "--admin-port", "0")
        code, _, err = await run_command("serve", str(manifests), *arguments)
    assert code == 1
    assert "cannot listen" in err
    assert "Traceback" not in err


async def test_a_model_can_be_served_without_a_manifest() -> None:
    port = free_port()
    async with SimulatedModelServer(SimulatorSettings(models=("qwen",))) as server:
        arguments = ("--host", "127.0.0.1", "--port", str(port), "--admin-port", str(free_port()))
        async with running_command("serve", "--model", f"qwen={server.url}", *arguments) as command:
            await command.wait_line("serving")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.post("/v1/completions", json={"model": "qwen", "prompt": "hi"})
                assert answer.status_code == 200
            command.signal()
            assert await command.wait() == 0


async def test_simulate_serves_until_sigterm() -> None:
    port = free_port()
    async with running_command("simulate", "--port", str(port), "--model", "qwen") as command:
        await command.wait_line("simulating")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/health")).status_code == 200
        command.signal()
        assert await command.wait() == 0


async def test_sigterm_takes_requests_for_the_grace_time_and_lets_streams_end(manifests: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=0.05, itl_seconds=0.1, output_tokens=20)
    async with SimulatedModelServer(settings) as server:
        manifests.write_text(route_to(("127.0.0.1", server.port)))
        arguments, port, admin_port = serve_arguments(manifests, "--drain-grace", "500ms")
        async with (
            running_command(*arguments) as command,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin_port}") as admin,
        ):
            await command.wait_line("serving")
            assert (await admin.get("/readyz")).status_code == 200
            async with RawClient(port) as stream, RawClient(port) as idle:
                await stream.send(POST)
                await stream.head()
                await stream.chunk()
                command.signal()
                await command.wait_line("draining")
                assert (await admin.get("/readyz")).status_code == 503
                assert (await admin.get("/healthz")).status_code == 200
                # In the grace time new connections and idle ones are still served, for the last time.
                await idle.send(b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n")
                answer = await idle.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                received = b""
                is_refused = False
                while chunk := await stream.chunk():
                    received += chunk
                    if not is_refused:
                        try:
                            _, writer = await asyncio.open_connection("127.0.0.1", port)
                            writer.close()
                        except ConnectionRefusedError:
                            is_refused = True
                            # The data port is closed, its stream goes on, and the admin port still answers.
                            assert (await admin.get("/healthz")).status_code == 200
                assert is_refused
                assert received.endswith(b"data: [DONE]\n\n")
            assert await command.wait() == 0


async def test_after_the_drain_timeout_what_is_left_is_cut_as_a_broken_stream(manifests: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), itl_seconds=0.05, output_tokens=10_000)
    async with SimulatedModelServer(settings) as server:
        manifests.write_text(route_to(("127.0.0.1", server.port)))
        arguments, port, _ = serve_arguments(manifests, "--drain-grace", "10ms", "--drain-timeout", "300ms")
        async with running_command(*arguments) as command:
            await command.wait_line("serving")
            async with RawClient(port) as stream:
                await stream.send(POST)
                await stream.head()
                command.signal()
                received = b""
                with pytest.raises(asyncio.IncompleteReadError):
                    while chunk := await stream.chunk():
                        received += chunk
                assert b"event: error\n" in received
            assert await command.wait() == 0


async def test_a_second_signal_cuts_at_once(manifests: Path) -> None:
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=60)
    async with SimulatedModelServer(settings) as server:
        manifests.write_text(route_to(("127.0.0.1", server.port)))
        arguments, port, _ = serve_arguments(manifests)
        async with running_command(*arguments) as command:
            await command.wait_line("serving")
            async with RawClient(port) as client:
                await client.send(POST)
                await server.engine.until(lambda engine: engine.running == 1)
                command.signal(signal.SIGINT)
                await command.wait_line("draining")
                command.signal(signal.SIGTERM)
                answer = await client.answer()
                assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "upstream_unavailable")
            assert await command.wait(5) == 0
            await server.engine.until(lambda engine: engine.running == 0)
