"""Does each request go to the pod that will answer it first? Over real HTTP, with pods whose metrics a test sets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from app.settings import Settings
from middleware.scheduling.load import Knowledge, Load
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.pods import Pod, lora_metrics, pods, pool_of, vllm_metrics

pytestmark = pytest.mark.anyio

LONG = "a long system prompt that many requests share " * 40  # 1,840 bytes: seven blocks


class Picking:
    """A gateway over a pool, and what it did."""

    def __init__(self, gateway: RunningGateway, client: httpx.AsyncClient, members: list[Pod]) -> None:
        self.gateway = gateway
        self.client = client
        self.members = members

    async def ask(self, content: str = "hello", *, headers: dict[str, str] | None = None, **more: object) -> str:
        """Send a chat request; the host of the pod that answered."""
        answer = await self.post(content, headers=headers, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["pod"]).partition(":")[0]

    async def post(
        self, content: str = "hello", *, headers: dict[str, str] | None = None, **more: object
    ) -> httpx.Response:
        """Send a chat request."""
        body = {"model": "qwen", "messages": [{"role": "user", "content": content}], **more}
        return await self.client.post("/v1/chat/completions", content=orjson.dumps(body), headers=headers)

    def loads(self) -> dict[str, Load]:
        """What is known of each pod."""
        return {upstream.label.partition(":")[0]: upstream.load for upstream in self.gateway.gateway.registry}

    async def until(self, predicate: Callable[[dict[str, Load]], bool]) -> None:
        """Wait until something is known."""
        async with asyncio.timeout(10):
            while not predicate(self.loads()):
                await asyncio.sleep(0.005)

    async def until_known(self) -> None:
        """Wait until all metrics were read, and read again after they were set."""
        self.gateway.gateway.scraper.touch("InferencePool/default/pool-qwen")  # as under traffic: every 50 ms
        for pod in self.members:
            await pod.until_asked(2)
        await self.until(lambda loads: all(load.knowledge is Knowledge.FRESH for load in loads.values()))


@asynccontextmanager
async def picking(
    members: list[Pod],
    folder: Path,
    *,
    configure: Callable[[Settings], Settings] = lambda settings: settings,
    failure_mode: str = "FailOpen",
    annotations: str = "",
    more: str = "",
) -> AsyncIterator[Picking]:
    manifests = pool_of(members, failure_mode=failure_mode, annotations=annotations, more=more)
    async with running_gateway(manifests, folder=folder, configure=configure) as gateway:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=gateway.url, limits=limits, timeout=20) as client:
            yield Picking(gateway, client, members)


async def test_the_shortest_queue_and_the_emptiest_cache_win(tmp_path: Path) -> None:
    async with pods(3) as members, picking(members, tmp_path) as one:
        members[0].metrics = vllm_metrics(waiting=3, kv=0.1)
        members[1].metrics = vllm_metrics(waiting=0, kv=0.9)
        members[2].metrics = vllm_metrics(waiting=0, kv=0.2)
        await one.until_known()
        assert {await one.ask() for _ in range(10)} == {members[2].host}
        members[2].metrics = vllm_metrics(waiting=5, kv=0.2)
        members[0].metrics = vllm_metrics(waiting=0, kv=0.1)
        await one.until_known()
        assert {await one.ask() for _ in range(10)} == {members[0].host}


async def test_a_burst_spreads_over_equal_pods(tmp_path: Path) -> None:
    async with pods(5) as members, picking(members, tmp_path) as one:
        await one.until_known()
        for pod in members:
            pod.answers_may_go.clear()
        requests = [asyncio.create_task(one.ask(f"{LONG} {number}")) for number in range(200)]
        async with asyncio.timeout(20):
            while sum(len(pod.requests) for pod in members) < 200:
                await asyncio.sleep(0.01)
        for pod in members:
            pod.answers_may_go.set()
        spread = Counter(await asyncio.gather(*requests))
        assert len(spread) == 5
        assert all(28 <= count <= 52 for count in spread.values()), spread


async def test_conversations_and_shared_prompts_stay_where_their_cache_is(tmp_path: Path) -> None:
    async with pods(4) as members, picking(members, tmp_path) as one:
        await one.until_known()
        homes = {}
        for conversation in range(6):
            homes[conversation] = await one.ask(f"conversation {conversation} " + LONG)
        for turn in range(4):
            for conversation, home in homes.items():
                assert await one.ask(f"conversation {conversation} " + LONG + f" and turn {turn}") == home


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/completions", {"prompt": LONG}, id="completions"),
        pytest.param("/v1/responses", {"input": LONG}, id="responses"),
        pytest.param("/v1/messages", {"system": LONG, "messages": [{"role": "user", "content": "hi"}]}, id="messages"),
    ],
)
async def test_every_interface_has_affinity(tmp_path: Path, path: str, body: dict[str, object]) -> None:
    async with pods(4) as members, picking(members, tmp_path) as one:
        await one.until_known()
        answers = [await one.client.post(path, json={"model": "qwen", **body}) for _ in range(8)]
        assert len({answer.json()["pod"] for answer in answers}) == 1


async def test_by_load_alone_prompts_are_not_looked_at(tmp_path: Path) -> None:
    annotations = "inference.networking.x-k8s.io/routing-strategy: DEFAULT"
    async with pods(4) as members, picking(members, tmp_path, annotations=annotations) as one:
        await one.until_known()
        assert len({await one.ask(LONG) for _ in range(30)}) > 1


async def test_an_adapter_s_requests_go_where_it_runs_and_then_where_there_is_room(tmp_path: Path) -> None:
    async with pods(3) as members, picking(members, tmp_path) as one:
        members[0].metrics = vllm_metrics(more=lora_metrics("other-1,other-2", limit=2))
        members[1].metrics = vllm_metrics(more=lora_metrics("", limit=2))
        members[2].metrics = vllm_metrics(more=lora_metrics("qwen", limit=2))
        await one.until_known()
        assert {await one.ask() for _ in range(8)} == {members[2].host}
        members[2].metrics = vllm_metrics(more=lora_metrics("other-3,other-4", limit=2, at=2.0))
        await one.until_known()
        assert {await one.ask() for _ in range(8)} == {members[1].host}


async def test_a_pod_whose_metrics_hang_gets_nothing_while_others_are_known(tmp_path: Path) -> None:
    async with pods(3) as members:
        members[1].metrics_may_go.clear()
        async with picking(members, tmp_path) as one:
            await one.until(lambda loads: loads[members[1].host].knowledge is Knowledge.STALE)
            assert members[1].host not in {await one.ask() for _ in range(20)}


@pytest.mark.parametrize("metrics", [vllm_metrics(kv=float("nan")), vllm_metrics(waiting=-5), "x" * 10_000_000])
async def test_a_pod_that_lies_gets_nothing_while_others_are_believed(tmp_path: Path, metrics: str) -> None:
    async with pods(3) as members:
        members[0].metrics = metrics
        async with picking(members, tmp_path) as one:
            await one.until(lambda loads: loads[members[0].host].knowledge is Knowledge.STALE)
            assert members[0].host not in {await one.ask() for _ in range(20)}


async def test_a_frozen_pod_is_not_idle(tmp_path: Path) -> None:
    async with pods(2) as members, picking(members, tmp_path) as one:
        frozen, well = members
        well.metrics = vllm_metrics(waiting=9)
        await one.until_known()
        frozen.answers_may_go.clear()
        stuck = [asyncio.create_task(one.ask(str(number))) for number in range(2)]
        await frozen.until_requests(2)
        frozen.metrics = vllm_metrics(running=2)  # and that is what it says from here on
        well.metrics = vllm_metrics(waiting=1)
        await one.until_known()
        assert one.loads()[frozen.host].queue == 0
        one.gateway.gateway.scraper.silence_limit_seconds = 0.1
        await one.until(lambda loads: loads[frozen.host].is_silent)
        assert one.loads()[frozen.host].queue == 2
        assert await one.ask() == well.host
        frozen.answers_may_go.set()
        await asyncio.gather(*stuck)


async def test_pods_come_and_go(tmp_path: Path) -> None:
    async with pods(4) as members, picking(members[:2], tmp_path) as one:
        await one.until_known()
        home = next(pod for pod in members if pod.host == "127.1.0.1")
        while await one.ask(LONG + "x") != home.host:  # until the prompt is at home there
            await one.ask("something else")
            one.gateway.gateway.scheduler.index.forget(one.loads()["127.1.0.2"])
        (tmp_path / "manifests.yaml").write_text(pool_of(members[1:]))
        one.members = members[1:]
        await one.until(lambda loads: set(loads) == {pod.host for pod in members[1:]})
        await one.until_known()
        served = {await one.ask(LONG + "x") for _ in range(6)}
        assert len(served) == 1  # a new home
        assert home.host not in served
        seen = {await one.ask(str(number)) for number in range(60)}
        assert seen == {pod.host for pod in members[1:]}


@pytest.mark.parametrize("mode", ["FailOpen", "FailClose"])
async def test_when_nothing_is_known_the_pool_s_failure_mode_decides(tmp_path: Path, mode: str) -> None:
    async with pods(2) as members:
        for pod in members:
            pod.metrics_status = 500
        async with picking(members, tmp_path, failure_mode=mode) as one:
            await one.until(lambda loads: all(load.knowledge is Knowledge.STALE for load in loads.values()))
            answer = await one.post()
            if mode == "FailOpen":
                assert answer.status_code == 200
            else:
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_endpoints")
                assert answer.headers["retry-after"]
                members[1].metrics_status = 200
                await one.until(lambda loads: loads[members[1].host].knowledge is Knowledge.FRESH)
                assert await one.ask() == members[1].host


async def test_pods_without_metrics_are_served_whatever_the_failure_mode(tmp_path: Path) -> None:
    async with pods(2) as members:
        for pod in members:
            pod.metrics_status = 404
        async with picking(members, tmp_path, failure_mode="FailClose") as one:
            await one.until(lambda loads: all(load.knowledge is Knowledge.NONE for load in loads.values()))
            assert {await one.ask(str(number)) for number in range(30)} == {pod.host for pod in members}


async def test_what_fails_is_tried_at_the_next_best_pod(tmp_path: Path) -> None:
    async with pods(3) as members, picking(members, tmp_path) as one:
        members[0].metrics = vllm_metrics(kv=0.0)
        members[1].metrics = vllm_metrics(kv=0.5)
        members[2].metrics = vllm_metrics(kv=0.9)
        await one.until_known()
        members[0].answer_status = 503
        assert await one.ask(LONG) == members[1].host
        members[0].answer_status = 200
        assert await one.ask(LONG) == members[1].host  # where the prompt is now


SHEDDABLE = """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -1, poolRef: {name: pool-qwen}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: chat}
spec: {priority: 10, poolRef: {name: pool-qwen}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: qwen}
spec: {modelName: qwen, criticality: %s, poolRef: {group: inference.networking.k8s.io, name: pool-qwen}}
"""
OBJECTIVE = "x-gateway-inference-objective"


def trusting(settings: Settings) -> Settings:
    return replace(settings, trusts_objective_header=True)


async def test_requests_below_priority_0_are_shed_when_the_pool_is_saturated(tmp_path: Path) -> None:
    more = SHEDDABLE % "Standard"
    async with pods(2) as members, picking(members, tmp_path, configure=trusting, more=more) as one:
        await one.until_known()
        assert await one.ask(headers={OBJECTIVE: "batch"})
        for pod in members:
            pod.metrics = vllm_metrics(waiting=5)
        await one.until_known()
        shed = await one.post(headers={OBJECTIVE: "batch"})
        assert (shed.status_code, shed.json()["error"]["code"]) == (429, "saturated")
        assert shed.headers["retry-after"] == "1"
        assert shed.json()["error"]["type"] == "rate_limit_error"
        for objective in ("chat", "unknown", ""):
            assert await one.ask(headers={OBJECTIVE: objective})
        assert await one.ask()
        assert all(OBJECTIVE.encode() not in head.lower() for pod in members for head in pod.heads)


async def test_an_objective_is_not_believed_by_default(tmp_path: Path) -> None:
    async with pods(1) as members, picking(members, tmp_path, more=SHEDDABLE % "Standard") as one:
        members[0].metrics = vllm_metrics(kv=0.9)
        await one.until_known()
        assert await one.ask(headers={OBJECTIVE: "batch"})


async def test_a_sheddable_model_is_shed(tmp_path: Path) -> None:
    more = SHEDDABLE % "Sheddable"
    async with pods(1) as members, picking(members, tmp_path, configure=trusting, more=more) as one:
        members[0].metrics = vllm_metrics(kv=0.9)
        await one.until_known()
        assert (await one.post()).status_code == 429
        assert await one.ask(headers={OBJECTIVE: "chat"})


async def test_an_answer_tells_how_its_pod_was_picked(tmp_path: Path) -> None:
    def telling(settings: Settings) -> Settings:
        return replace(settings, tells_picks=True)

    async with pods(3) as members, picking(members, tmp_path, configure=telling) as one:
        members[0].metrics = vllm_metrics(waiting=2, kv=0.5)
        members[1].metrics = vllm_metrics(waiting=1, kv=0.25)
        await one.until_known()
        answer = await one.post(LONG, headers={"x-pointsman-explain": "1"})
        assert answer.headers["x-gateway-destination-endpoint-served"] == f"{members[2].host}:{members[2].port}"
        told = orjson.loads(answer.headers["x-pointsman-explain"])
        assert (told["backend"], told["endpoint"]) == ("default/pool-qwen", "default/pod-3")
        assert [endpoint["total"] for endpoint in told["endpoints"]] == [4.0, 2.5, 1.0]
        assert told["endpoints"][1]["scores"] == {
            "queue-scorer": 0.5,
            "kv-cache-utilization-scorer": 0.75,
            "prefix-cache-scorer": 0.0,
            "lora-affinity-scorer": 0.0,
        }
        plain = await one.post()
        assert "x-pointsman-explain" not in plain.headers
        assert all(b"x-pointsman" not in head for pod in members for head in pod.heads)


async def test_without_the_flag_nothing_is_told(tmp_path: Path) -> None:
    async with pods(1) as members, picking(members, tmp_path) as one:
        answer = await one.post(headers={"x-pointsman-explain": "1"})
        assert "x-pointsman-explain" not in answer.headers
        assert "x-gateway-destination-endpoint-served" not in answer.headers


async def test_explain_shows_the_score_table(tmp_path: Path) -> None:
    more = SHEDDABLE % "Standard"
    async with pods(3) as members:
        members[2].metrics_status = 500
        async with picking(members, tmp_path, more=more) as one:
            members[0].metrics = vllm_metrics(waiting=10, kv=0.5)
            await one.until(lambda loads: loads[members[0].host].waiting == 10)
            await one.until(lambda loads: loads[members[2].host].knowledge is Knowledge.STALE)
            body = {"model": "qwen", "messages": [{"role": "user", "content": LONG}]}
            assert await one.ask(LONG) == members[1].host
            async with httpx.AsyncClient(base_url=one.gateway.admin_url) as client:
                headers = b'{"x-gateway-inference-objective": "batch"}'
                question = b'{"requests": 20, "headers": %b, "body": %b}' % (headers, orjson.dumps(body))
                answer = (await client.post("/explain", content=question)).json()
            (arm,) = answer["arms"]
            first, second, third = arm["endpoints"]
            assert first["load"]["queue"] == 10
            assert (first["scores"]["queue-scorer"], first["scores"]["prefix-cache-scorer"]) == (0.0, 0.0)
            assert second["scores"]["prefix-cache-scorer"] == 1.0
            assert second["total"] == 2 + 2 + 3
            assert (third["load"]["metrics"], third["leftOut"]) == ("stale", "stale")
            assert third["load"]["lastFailure"] == "status 500"
            assert arm["wouldPick"] == f"{members[1].host}:{members[1].port}"
            assert answer["draws"]["endpoints"] == {"default/pod-2": 20}
            assert answer["admission"] == {"objective": "batch", "priority": -1, "saturation": 1.0, "isShed": True}


PICKER = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: %s}]
"""


async def test_a_picker_config_is_used_and_reloaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "picker.yml.conf"
    file.write_text(PICKER % "kv-cache-utilization-scorer")

    def with_picker(settings: Settings) -> Settings:
        return replace(settings, picker_config=file)

    async with pods(2) as members, picking(members, tmp_path, configure=with_picker) as one:
        members[0].metrics = vllm_metrics(waiting=0, kv=0.9)
        members[1].metrics = vllm_metrics(waiting=9, kv=0.1)
        await one.until_known()
        assert {await one.ask(LONG) for _ in range(5)} == {members[1].host}
        scheduler = one.gateway.gateway.scheduler
        used = scheduler.configuration
        file.write_text(PICKER % "no-such-scorer")
        async with asyncio.timeout(5):
            while "the new EndpointPickerConfig is refused" not in caplog.text:
                await asyncio.sleep(0.02)
        assert scheduler.configuration is used
        file.write_text(PICKER % "queue-scorer")
        async with asyncio.timeout(5):
            while scheduler.configuration is used:
                await asyncio.sleep(0.02)
        assert {await one.ask(LONG) for _ in range(5)} == {members[0].host}


LOAD_BALANCER = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: balance}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: ROUTE}]
  loadBalancer: {type: TYPE}
---
"""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("RoundRobin", {"127.1.0.1": 5, "127.1.0.2": 5}, id="what-is-asked-for-holds-in-a-pool-too"),
        pytest.param("LeastRequest", {"127.1.0.2": 10}, id="envoys-default-leaves-it-to-the-profile"),
    ],
)
async def test_a_load_balancer_that_a_policy_asks_for(tmp_path: Path, kind: str, expected: dict[str, int]) -> None:
    more = LOAD_BALANCER.replace("TYPE", kind).replace("ROUTE", "route-qwen")
    async with pods(2) as members, picking(members, tmp_path, more=more) as one:
        members[0].metrics = vllm_metrics(waiting=4, kv=0.9)
        await one.until_known()
        assert Counter([await one.ask() for _ in range(10)]) == expected
