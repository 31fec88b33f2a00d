"""How does a test say what a pod's metrics are? A small model server whose every answer the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from tests.support.ports import free_port


def vllm_metrics(*, waiting: float = 0, running: float = 0, kv: float = 0.0, more: str = "") -> str:
    """What a vLLM would say."""
    return (
        f'vllm:num_requests_running{{engine="0",model_name="qwen"}} {running}\n'
        f'vllm:num_requests_waiting{{engine="0",model_name="qwen"}} {waiting}\n'
        f'vllm:kv_cache_usage_perc{{engine="0",model_name="qwen"}} {kv}\n{more}'
    )


def lora_metrics(running: str = "", *, limit: int = 4, at: float = 1.0) -> str:
    """A vLLM's line about its adapters, comma-separated."""
    return (
        f'vllm:lora_requests_info{{max_lora="{limit}",running_lora_adapters="{running}",'
        f'waiting_lora_adapters="{running}"}} {at}\n'
    )


class Pod:
    """`async with Pod() as pod:` answers `GET /metrics` with ``metrics`` and everything else with its own name.

    It controls: what the metrics say, with which status, and when (``metrics_may_go``); when other answers start
    (``answers_may_go``). ``asked`` and ``answered`` count; ``requests`` are the bodies.
    """

    def __init__(self, host: str = "127.0.0.1", *, port: int = 0, metrics: str = "") -> None:
        self.host = host
        self.port = port
        self.metrics = metrics or vllm_metrics()
        self.metrics_status = 200
        self.metrics_content: bytes | None = None  # what is sent instead of ``metrics``
        self.metrics_headers = b""
        self.metrics_may_go = asyncio.Event()
        self.metrics_may_go.set()
        self.answers_may_go = asyncio.Event()
        self.answers_may_go.set()
        self.answer_status = 200
        self.asked = 0
        self.requests: list[bytes] = []
        self.heads: list[bytes] = []
        self.running = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    async def __aenter__(self) -> Self:
        self.port = self.port or free_port(self.host)
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=1 << 24)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def until_asked(self, times: int = 1) -> None:
        """Wait until its metrics were asked for ``times`` more times."""
        wanted = self.asked + times
        async with asyncio.timeout(10):
            while self.asked < wanted:
                await self._change()

    async def until_requests(self, count: int) -> None:
        """Wait until it has got ``count`` requests in all."""
        async with asyncio.timeout(10):
            while len(self.requests) < count:
                await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /metrics "):
            self.asked += 1
            self._changed.set()
            await self.metrics_may_go.wait()
            content = self.metrics.encode() if self.metrics_content is None else self.metrics_content
            await self._send(writer, self.metrics_status, content, b"text/plain", self.metrics_headers)
            return
        lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        length = next((int(value) for name, _, value in lines if name.lower() == b"content-length"), 0)
        body = await reader.readexactly(length)
        self.requests.append(body)
        self.heads.append(head)
        self.running += 1
        self._changed.set()
        try:
            await self.answers_may_go.wait()
        finally:
            self.running -= 1
        answer = b'{"object":"chat.completion","pod":"%s:%d"}' % (self.host.encode(), self.port)
        await self._send(writer, self.answer_status, answer, b"application/json")

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, kind: bytes, headers: bytes = b""
    ) -> None:
        line = b"HTTP/1.1 %d -\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
        writer.write(line % (status, kind, len(body), headers))
        writer.write(body)
        await writer.drain()


@asynccontextmanager
async def pods(count: int) -> AsyncIterator[list[Pod]]:
    """So many pods, each at an address of its own and all at one port, as those of a pool are."""
    async with AsyncExitStack() as stack:
        made: list[Pod] = []
        for number in range(count):
            port = made[0].port if made else 0
            made.append(await stack.enter_async_context(Pod(f"127.1.0.{number + 1}", port=port)))
        yield made


def pool_of(
    members: list[Pod],
    *,
    model: str = "qwen",
    failure_mode: str = "FailOpen",
    annotations: str = "",
    labels: str = "",
    more: str = "",
) -> str:
    """Manifests of an HTTPRoute for one model to an InferencePool of these pods, which are named pod-1, pod-2, …"""
    listed = "".join(
        f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: pod-{pod.host.rpartition(".")[2]}, labels: {{app: {model}{labels}}}}}
status: {{podIP: {pod.host}}}"""
        for pod in members
    )
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-{model}}}
spec:
  rules:
  - matches:
    - headers: [{{name: X-Gateway-Model-Name, value: {model}}}]
    backendRefs:
    - {{group: inference.networking.k8s.io, kind: InferencePool, name: pool-{model}}}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: pool-{model}, annotations: {{{annotations}}}}}
spec:
  selector: {{matchLabels: {{app: {model}}}}}
  targetPorts: [{{number: {members[0].port}}}]
  endpointPickerRef: {{name: epp, port: {{number: 9002}}, failureMode: {failure_mode}}}{listed}
---
{more}
"""
