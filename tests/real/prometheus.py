"""How does a test ask a real Prometheus? The server of Debian's package `prometheus`, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_port

SCRAPE_SECONDS = 0.5


def command(name: str) -> str:
    """Where a command of the package is."""
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed: apt-get install prometheus"
    return found


class Prometheus:
    """Its HTTP API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.at = time.time()  # the moment that queries ask about

    async def get(self, path: str, **parameters: str | float) -> Any:
        """The data of an answer. Raises AssertionError with Prometheus' complaint."""
        answer = (await self._client.get(f"/api/v1/{path}", params=parameters)).json()
        assert answer["status"] == "success", answer.get("error")
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The instant vector of an expression: labels and values."""
        data = await self.get("query", query=expression, time=self.at)
        assert data["resultType"] == "vector", expression
        return [(item["metric"], float(item["value"][1])) for item in data["result"]]

    async def scraped(self, count: int) -> None:
        """Wait until every target has been scraped so many times."""
        async with asyncio.timeout(60):
            while True:
                found = [value for _, value in await self._now("count_over_time(up[10m])")]
                if found and min(found) >= count:
                    break
                await asyncio.sleep(SCRAPE_SECONDS)

    async def _now(self, expression: str) -> list[tuple[dict[str, str], float]]:
        self.at = time.time()
        return await self.query(expression)


@asynccontextmanager
async def running_prometheus(targets: Sequence[str], *, folder: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes ``targets`` (host:port) twice a second."""
    port = free_port()
    configuration = folder / "prometheus.yml"
    listed = ", ".join(f'"{target}"' for target in targets)
    configuration.write_text(
        f"global: {{scrape_interval: {SCRAPE_SECONDS * 1000:.0f}ms, scrape_timeout: {SCRAPE_SECONDS * 1000:.0f}ms}}\n"
        f"scrape_configs: [{{job_name: pointsman, static_configs: [{{targets: [{listed}]}}]}}]\n"
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            command("prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get("/-/ready")).status_code == 200:
                            break
                    assert process.returncode is None, (folder / "prometheus.log").read_text()[-2000:]
                    await asyncio.sleep(0.1)
            yield Prometheus(client)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
