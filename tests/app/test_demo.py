"""Does `pointsman demo` show what it says, and leave nothing behind?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from app.demo import DEMO_PODS, demo_routes
from discovery.load import load
from tests.support.ports import free_port
from tests.support.processes import running_command

pytestmark = pytest.mark.anyio


def test_routes_yaml_has_nothing_wrong_and_names_the_demos_pods() -> None:
    compiled = load([demo_routes()]).compile()
    assert [problem for problem in compiled.problems if "endpointPickerRef" not in problem.field] == []
    endpoints = {
        (backend.rpartition("/")[2], endpoint.pod, endpoint.port)
        for backend, members in compiled.membership.items()
        for endpoint in members
    }
    assert endpoints == {(model, f"default/{name}", port) for model, name, port in DEMO_PODS}


@pytest.mark.usefixtures("ports_8001_to_8003")
async def test_the_demo_answers_for_both_models_and_ends_with_all_its_processes() -> None:
    port = free_port()
    arguments = ("demo", "--port", str(port), "--admin-port", str(free_port()))
    async with running_command(*arguments) as command:
        await command.wait_line("Ctrl-C")
        await command.wait_line("serving")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:

            async def who_answers(model: str) -> str:
                body = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
                answer = await client.post("/v1/chat/completions", json=body)
                return str(answer.json()["system_fingerprint"]).removeprefix("vllm-0.32.0-")

            # At once: of two endpoints the one with fewer requests gets the next, so both get some.
            pods = await asyncio.gather(*(who_answers(model) for model in ("qwen",) * 8 + ("deepseek-r1",)))
            assert set(pods) == {name for _, name, _ in DEMO_PODS}
            body = {"model": "qwen", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
            async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = [line async for line in stream.aiter_lines() if line]
            assert lines[-1] == "data: [DONE]"
        command.signal()
        assert await command.wait(15) == 0
    for _, _, pod_port in DEMO_PODS:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", pod_port)


def test_the_routes_are_found_in_a_checkout() -> None:
    assert demo_routes() == Path(__file__).parent.parent.parent / "routes.yaml"
