"""Do the steps of docs/canary.md do what the page says? Its manifest is served and its edits are run as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.processes import PROJECT
from tests.support.raw_client import RawClient

pytestmark = pytest.mark.anyio

PAGE = (PROJECT / "docs" / "canary.md").read_text()
MANIFEST = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
EDITS = [line for line in COMMANDS if line.startswith("sed ")]
QUESTIONS = [line for line in COMMANDS if line.startswith(("curl ", "pointsman check", "pointsman explain"))]

REQUESTS = 400
CLIENTS = 8
BODY = b'{"model": "qwen", "prompt": "hi", "max_tokens": 1}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


async def shares(gateway: RunningGateway) -> Counter[str]:
    start = len(gateway.finished.all)

    async def client() -> None:
        async with RawClient(gateway.port) as raw:
            for _ in range(REQUESTS // CLIENTS):
                await raw.send(POST)
                assert (await raw.answer()).status == 200

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await gateway.finished.next(start + REQUESTS)
    return Counter(exchange.attempts[-1].pick.backend_ref.name for exchange in gateway.finished.all[start:])


async def run(command: str, folder: Path, admin_url: str) -> str:
    """One line of the page, in a shell; the admin port is the test's."""
    command = command.replace("localhost:9090", admin_url.removeprefix("http://"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


async def edit(command: str, folder: Path, gateway: RunningGateway) -> None:
    version = gateway.gateway.store.current.version
    await run(command, folder, gateway.admin_url)
    async with asyncio.timeout(5):
        while gateway.gateway.store.current.version == version:
            await asyncio.sleep(0.02)


async def test_the_drill_of_the_page(tmp_path: Path) -> None:
    assert len(EDITS) == 3
    settings = SimulatorSettings(models=("qwen",), ttft_seconds=0.001, itl_seconds=0.001, recorded_requests=0)
    async with SimulatedModelServer(settings) as stable, SimulatedModelServer(settings) as canary:
        manifest = MANIFEST.replace("8001", str(stable.port)).replace("8002", str(canary.port))
        assert manifest != MANIFEST
        file = tmp_path / "canary.yaml"
        file.write_text(manifest)
        async with running_gateway(folder=tmp_path, configure=lambda s: replace(s, paths=(file,))) as gateway:
            found = await shares(gateway)  # 95/5: 20 expected, and four standard deviations of 4.4
            assert 2 <= found["default/qwen-canary"] <= 40
            for question in QUESTIONS:
                said = await run(question, tmp_path, gateway.admin_url)
                assert said or question.startswith("pointsman check"), question  # which has nothing to say
            await edit(EDITS[0], tmp_path, gateway)
            assert 150 <= (await shares(gateway))["default/qwen-canary"] <= 250
            await edit(EDITS[1], tmp_path, gateway)
            assert await shares(gateway) == {"default/qwen-canary": REQUESTS}
            await edit(EDITS[2], tmp_path, gateway)
            assert await shares(gateway) == {"default/qwen-stable": REQUESTS}
