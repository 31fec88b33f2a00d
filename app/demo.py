"""What does `pointsman demo` show? The gateway over three simulated pods, as processes of its own, and what to try.

Each simulated model server is a process, as a pod would be; the gateway runs in this one and ends them with itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

# The pods of routes.yaml: model, pod name, port.
DEMO_PODS = (("qwen", "qwen-0", 8001), ("qwen", "qwen-1", 8002), ("deepseek-r1", "deepseek-r1-0", 8003))
START_LIMIT_SECONDS = 20.0

WHAT_TO_TRY = """\
Pointsman serves {routes}
  qwen          by two simulated pods, qwen-0 and qwen-1
  deepseek-r1   by one, deepseek-r1-0

Try, in another terminal:

  curl {url}/v1/models

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "qwen", "messages": [{{"role": "user", "content": "Which pod are you?"}}]}}'

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "deepseek-r1", "stream": true, "messages": [{{"role": "user", "content": "Count."}}]}}'

  curl -i {url}/v1/chat/completions -d '{{"model": "unknown"}}'

  curl {admin}/metrics | grep ^pointsman      curl {admin}/config      curl {admin}/status

Stop with Ctrl-C.
"""


class DemoError(Exception):
    """The demo cannot run here; the message says why."""


def demo_routes() -> Path:
    """The routes.yaml that the demo serves: in a checkout at its top, in an installed package inside it."""
    for candidate in (Path(__file__).parent / "routes.yaml", Path(__file__).parent.parent / "routes.yaml"):
        if candidate.is_file():
            return candidate
    raise DemoError("routes.yaml is not there; it belongs to the package")


@asynccontextmanager
async def simulated_pods() -> AsyncIterator[None]:
    """Run the demo's pods. Raises DemoError when one does not come up; none is left behind in any case.

    Each holds the other end of a pipe of ours: should this process be killed, the pods end by themselves.
    """
    processes: list[asyncio.subprocess.Process] = []
    try:
        async with asyncio.timeout(START_LIMIT_SECONDS):
            for model, name, port in DEMO_PODS:
                command = [sys.executable, "-m", "app", "simulate", "--port", str(port), "--model", model]
                command += ["--name", name, "--ttft", "0.2", "--itl", "0.03", "--output-tokens", "40"]
                process = await asyncio.create_subprocess_exec(
                    *command,
                    "--while-stdin-is-open",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C reaches the gateway alone, which drains and then ends them
                )
                processes.append(process)
            for process, (_, name, port) in zip(processes, DEMO_PODS, strict=True):
                assert process.stdout is not None
                if not await process.stdout.readline():  # it says where it listens once it does
                    raise DemoError(f"the simulated pod {name} cannot run; is port {port} in use?")
        yield
    except TimeoutError:
        raise DemoError("the simulated model servers did not start in time") from None
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            await process.wait()
