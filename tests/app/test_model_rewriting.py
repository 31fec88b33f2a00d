"""Is a canary by name invisible to its clients? Over real sockets, with raw upstreams and the SDKs that people use."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from app.simulator.server import SimulatedModelServer
from app.simulator.settings import SimulatorSettings
from tests.support.gateway import RunningGateway, pool_at, running_gateway
from tests.support.processes import run_command
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream, Script

pytestmark = pytest.mark.anyio

POOL = "{group: inference.networking.k8s.io, kind: InferencePool, name: %s}"
BODY = b'{"stream": true,"model":"food","n":1.50,"model" : "food"}'


def post(body: bytes = BODY, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Length: {len(body)}", *headers))
    return f"POST /v1/x HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode() + body


def route(to: str = "p", filters: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  rules:
  - backendRefs: [{POOL % to}]
    {filters}
---
"""


def inference_model(targets: str, *, at: str = "p", name: str = "food") -> str:
    return f"""
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}-{at}}}
spec: {{modelName: {name}, poolRef: {{name: {at}}}, targetModels: {targets}}}
---
"""


def canary(port: int, *addresses: str, targets: str = "[{name: food-v2}]") -> str:
    return route() + pool_at("p", port, *(addresses or ("127.0.0.1",))) + inference_model(targets)


async def asked_of(peer: Conversation) -> bytes:
    """The next request for a model; a pool's pods are also asked for their metrics."""
    while not (request := await peer.request()).startswith(b"POST"):
        await peer.answer(status="404 Not Found")
    return request


# -- bytes ----------------------------------------------------------------------------------------------------------


async def test_the_pod_sees_its_own_name_and_the_client_sees_its_own(tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def pod(peer: Conversation) -> None:
        while True:
            requests.append(await asked_of(peer))
            body = b'{"id":"1","model":"food-v2","text":"\\"model\\":\\"food-v2\\"","input":{"model":"food-v2"}}'
            await peer.answer(body, headers='content-type: application/json\r\netag: "1"\r\n')

    async with (
        RawUpstream(pod) as upstream,
        running_gateway(canary(upstream.port), folder=tmp_path) as gateway,
    ):
        answer = await ask(
            gateway.port,
            post(
                BODY, "Accept-Encoding: gzip", "X-Gateway-Model-Name-Rewrite: evil", "X-Llm-D-Model-Name-Rewrite: evil"
            ),
        )
        assert answer.body == (
            b'{"id":"1","model":"food","text":"\\"model\\":\\"food-v2\\"","input":{"model":"food-v2"}}'
        )
        assert answer.headers["transfer-encoding"] == "chunked"
        assert not {"content-length", "etag"} & answer.headers.keys()
        head, _, body = requests[0].partition(b"\r\n\r\n")
        assert body == b'{"stream": true,"model":"food-v2","n":1.50,"model" : "food-v2"}'
        lines = head.lower().split(b"\r\n")
        assert b"content-length: %d" % len(body) in lines
        assert b"accept-encoding: identity" in lines
        assert b"x-gateway-model-name: food-v2" in lines
        assert b"evil" not in head
        exchange = await gateway.finished.next()
        assert (exchange.model, exchange.attempts[0].model) == ("food", "food-v2")


async def test_other_models_of_the_pool_are_not_touched(tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def pod(peer: Conversation) -> None:
        while True:
            requests.append(await asked_of(peer))
            await peer.answer(b'{"model":"food-v2"}', headers="content-type: application/json\r\n")

    async with (
        RawUpstream(pod) as upstream,
        running_gateway(canary(upstream.port), folder=tmp_path) as gateway,
    ):
        body = b'{"model":"drink"}'
        answer = await ask(gateway.port, post(body, "Accept-Encoding: gzip"))
        assert answer.body == b'{"model":"food-v2"}'
        assert answer.headers["content-length"] == "19"
        assert requests[0].endswith(body)
        assert b"accept-encoding: gzip" in requests[0].lower()


async def test_a_name_that_comes_in_two_pieces_waits_for_the_second_and_nothing_else_does(tmp_path: Path) -> None:
    may_go_on = asyncio.Event()

    async def pod(peer: Conversation) -> None:
        await asked_of(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b'data: {"model":"fo', b'od-v2","n":1}\n\ndata: {"mo', b'del":"food-v2"}\n\n'):
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await may_go_on.wait()
            may_go_on.clear()
        await peer.send(b"0\r\n\r\n")
        await peer.until_closed()

    async with (
        RawUpstream(pod) as upstream,
        running_gateway(canary(upstream.port), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        for expected in (b'data: {"model":', b'"food","n":1}\n\ndata: {', b'"model":"food"}\n\n'):
            assert await client.chunk() == expected
            may_go_on.set()
        assert await client.chunk() == b""


async def test_what_was_held_back_goes_before_the_error_of_a_stream_that_breaks(tmp_path: Path) -> None:
    async def pod(peer: Conversation) -> None:
        await asked_of(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await peer.send(b'12\r\ndata: {"model":"fo\r\n')
        await asyncio.sleep(0.05)
        peer.reset()

    async with (
        RawUpstream(pod) as upstream,
        running_gateway(canary(upstream.port), folder=tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(post())
        await client.head()
        received = b""
        with pytest.raises(asyncio.IncompleteReadError):
            while True:
                received += await client.chunk()
        text, _, event = received.partition(b"\n\n")
        assert text == b'data: {"model":"fo'
        assert json.loads(event.partition(b"data: ")[2])["error"]["code"] == "upstream_reset"


async def test_an_answer_that_is_encoded_all_the_same_passes_as_it_is(tmp_path: Path) -> None:
    encoded = gzip.compress(b'{"model":"food-v2"}')

    async def pod(peer: Conversation) -> None:
        while True:
            await asked_of(peer)
            await peer.answer(encoded, headers="content-type: application/json\r\ncontent-encoding: gzip\r\n")

    async with (
        RawUpstream(pod) as upstream,
        running_gateway(canary(upstream.port), folder=tmp_path) as gateway,
    ):
        answer = await ask(gateway.port, post())
        assert answer.body == encoded
        assert answer.headers["content-length"] == str(len(encoded))


# -- draws and retries ----------------------------------------------------------------------------------------------


def model_in(request: bytes) -> str:
    return str(json.loads(request.partition(b"\r\n\r\n")[2])["model"])


async def test_a_retry_asks_for_the_same_model_in_the_clients_own_bytes(tmp_path: Path) -> None:
    tries: list[str] = []

    async def pod(peer: Conversation) -> None:
        while True:
            tries.append(model_in(await asked_of(peer)))
            if len(tries) % 2:
                await peer.answer(b"busy", status="503 Service Unavailable")
            else:
                await peer.answer(b"{}")

    async with RawUpstream(pod, host="127.1.0.1") as one, RawUpstream(pod, host="127.1.0.2", port=one.port):
        manifests = canary(one.port, "127.1.0.1", "127.1.0.2", targets="[{name: a, weight: 1}, {name: bb, weight: 1}]")
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            for _ in range(40):
                assert (await ask(gateway.port, post())).status == 200
    pairs = Counter(zip(tries[::2], tries[1::2], strict=True))
    assert pairs.keys() == {("a", "a"), ("bb", "bb")}


async def test_a_mirror_asks_for_what_its_own_pool_makes_of_the_name(tmp_path: Path) -> None:
    asked: dict[str, asyncio.Queue[str]] = {"p": asyncio.Queue(), "q": asyncio.Queue(), "s": asyncio.Queue()}

    def pod(name: str) -> Script:
        async def serve(peer: Conversation) -> None:
            while True:
                asked[name].put_nowait(model_in(await asked_of(peer)))
                await peer.answer(b"{}")

        return serve

    filters = "filters:" + "".join(
        f"\n    - {{type: RequestMirror, requestMirror: {{backendRef: {POOL % name}}}}}" for name in ("q", "s")
    )
    async with RawUpstream(pod("p")) as p, RawUpstream(pod("q")) as q, RawUpstream(pod("s")) as s:
        pools = (pool_at(name, upstream.port, upstream.host) for name, upstream in (("p", p), ("q", q), ("s", s)))
        manifests = route(filters=filters) + "".join(pools)
        manifests += inference_model("[{name: primary-v2}]") + inference_model("[{name: mirror-v3}]", at="q")
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            assert (await ask(gateway.port, post())).status == 200
            async with asyncio.timeout(5):
                assert [await asked[name].get() for name in "pqs"] == ["primary-v2", "mirror-v3", "food"]


# -- AIGatewayRoute -------------------------------------------------------------------------------------------------


async def test_override_and_body_mutation_of_an_ai_gateway_route(tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def pod(peer: Conversation) -> None:
        while True:
            requests.append(await asked_of(peer))
            await peer.answer(b'{"model":"big"}', headers="content-type: application/json\r\n")

    async with RawUpstream(pod) as upstream:
        manifests = f"""
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {{name: ai}}
spec:
  rules:
  - matches: [{{headers: [{{name: x-ai-eg-model, value: food}}]}}]
    backendRefs:
    - name: b
      modelNameOverride: big
      bodyMutation: {{set: [{{path: service_tier, value: '"scale"'}}], remove: [user]}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {{name: b}}
spec:
  schema: {{name: OpenAI}}
  backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: b}}
  bodyMutation: {{set: [{{path: temperature, value: '0.0'}}, {{path: service_tier, value: '"flex"'}}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {upstream.port}}}}}]}}
"""
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            answer = await ask(gateway.port, post(b'{"user":"me", "temperature":1, "model":"food"}'))
            assert answer.body == b'{"model":"food"}'
            _, _, body = requests[0].partition(b"\r\n\r\n")
            assert body == b'{ "temperature":0.0, "model":"big","service_tier":"scale"}'


async def test_another_backend_is_asked_for_its_own_model_in_the_clients_own_bytes(tmp_path: Path) -> None:
    """A model that gets smaller when its first choice has no room: one request, two backends, two overrides."""
    bodies: list[bytes] = []

    async def pod(peer: Conversation) -> None:
        while True:
            bodies.append((await asked_of(peer)).partition(b"\r\n\r\n")[2])
            if len(bodies) == 1:
                await peer.answer(b"busy", status="503 Service Unavailable")
            else:
                await peer.answer(b'{"model":"small-model"}', headers="content-type: application/json\r\n")

    async with RawUpstream(pod) as one, RawUpstream(pod) as two:
        manifests = """
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {name: ai}
spec:
  rules:
  - backendRefs:
    - {name: b0, modelNameOverride: big, bodyMutation: {set: [{path: n, value: "2"}]}}
    - {name: b1, modelNameOverride: small-model, priority: 1}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: retry}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: ai}]
  retry: {numRetries: 2, numAttemptsPerPriority: 1}
---
"""
        for number, upstream in enumerate((one, two)):
            manifests += f"""
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {{name: b{number}}}
spec:
  schema: {{name: OpenAI}}
  backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: b{number}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b{number}}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {upstream.port}}}}}]}}
---
"""
        async with running_gateway(manifests, folder=tmp_path) as gateway:
            answer = await ask(gateway.port, post(b'{"n":1.0,"model":"food"}'))
            assert answer.body == b'{"model":"food"}'
            assert bodies == [b'{"n":2,"model":"big"}', b'{"n":1.0,"model":"small-model"}']
            exchange = await gateway.finished.next()
            assert [attempt.model for attempt in exchange.attempts] == ["big", "small-model"]
            (record,) = gateway.log_records()
            assert (record["model"], record["upstream_model"]) == ("food", "small-model")


# -- SDKs -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def canary_gateway(folder: Path) -> AsyncIterator[RunningGateway]:
    """A gateway whose one model server serves nothing but food-v2: every answer is proof that it was asked for it."""
    settings = SimulatorSettings(models=("food-v2",), output_tokens=8)
    async with (
        SimulatedModelServer(settings) as server,
        running_gateway(canary(server.port), folder=folder) as gateway,
    ):
        yield gateway


@asynccontextmanager
async def openai_client(folder: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        canary_gateway(folder) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield client


async def test_openai_chat_and_completions(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        chat = await client.chat.completions.create(model="food", messages=[{"role": "user", "content": "food-v2"}])
        assert chat.model == "food"
        assert chat.choices[0].message.content
        async with await client.chat.completions.create(
            model="food",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        ) as chunks:
            assert {chunk.model async for chunk in chunks} == {"food"}
        assert (await client.completions.create(model="food", prompt="hi")).model == "food"
        async with await client.completions.create(model="food", prompt="hi", stream=True) as pieces:
            assert {piece.model async for piece in pieces} == {"food"}
        assert (await client.embeddings.create(model="food", input=["a", "b"])).model == "food"


async def test_openai_responses(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        assert (await client.responses.create(model="food", input="hi")).model == "food"
        async with client.responses.stream(model="food", input="hi") as stream:
            named = [event.response.model async for event in stream if hasattr(event, "response")]
            assert len(named) >= 3
            assert set(named) == {"food"}
            assert (await stream.get_final_response()).model == "food"


async def test_openai_forms_and_models(tmp_path: Path) -> None:
    async with openai_client(tmp_path) as client:
        audio = io.BytesIO(b"RIFF" + bytes(100_000))
        audio.name = "speech.wav"
        assert (await client.audio.transcriptions.create(model="food", file=audio)).text
        assert [model.id async for model in client.models.list()] == ["food"]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("food-v2")


async def test_anthropic_messages(tmp_path: Path) -> None:
    async with (
        canary_gateway(tmp_path) as gateway,
        anthropic.AsyncAnthropic(base_url=gateway.url, api_key="key", max_retries=0) as client,
    ):
        answer = await client.messages.create(model="food", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
        assert answer.model == "food"
        async with client.messages.stream(
            model="food", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            assert (await stream.get_final_message()).model == "food"


# -- seeing it ------------------------------------------------------------------------------------------------------


async def test_metrics_count_every_try_by_the_model_that_was_asked_for(tmp_path: Path) -> None:
    async def pod(peer: Conversation) -> None:
        while True:
            status = "500 Oops" if model_in(await asked_of(peer)) == "food-v2" else "200 OK"
            await peer.answer(status=status)

    targets = "[{name: food, weight: 1}, {name: food-v2, weight: 1}]"
    async with (
        RawUpstream(pod) as upstream,
        running_gateway(canary(upstream.port, targets=targets), folder=tmp_path) as gateway,
    ):
        statuses: Counter[int] = Counter()
        while len(statuses) < 2:
            statuses[(await ask(gateway.port, post())).status] += 1
        metrics = await gateway.metrics()
    labels = 'backend="default/p",code="%d",model="food",route="default/r",rule="0",target_model="%s"'
    for status, name in ((200, "food"), (500, "food-v2")):
        assert f"pointsman_rewritten_attempts_total{{{labels % (status, name)}}} {statuses[status]}.0" in metrics


async def test_explain_shows_what_a_name_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "canary.yaml"
    file.write_text(canary(8000, targets="[{name: food, weight: 3}, {name: food-v2, weight: 1}]"))
    arguments = ("explain", str(file), "--model", "food", "--requests", "400")
    code, out, _ = await run_command(*arguments, "--json")
    explained = json.loads(out)
    assert code == 0
    (arm,) = explained["arms"]
    assert arm["asksFor"]["targets"] == [{"model": "food", "share": 0.75}, {"model": "food-v2", "share": 0.25}]
    drawn = explained["draws"]["models"]
    assert sum(drawn.values()) == 400
    assert drawn["food"] > drawn["food-v2"] > 0
    _, text, _ = await run_command(*arguments)
    assert "asks for: food (75.0%), food-v2 (25.0%), says InferenceModel default/food-p" in text
    assert " as food-v2" in text


async def test_config_shows_the_rewrites(tmp_path: Path) -> None:
    async with (
        running_gateway(canary(1, targets="[{name: a, weight: 3}, {name: b, weight: 1}]"), folder=tmp_path) as gateway,
        httpx.AsyncClient(base_url=gateway.admin_url) as client,
    ):
        (rule,) = (await client.get("/config")).json()["rules"]
        (ref,) = rule["backendRefs"]
        assert ref["modelRewrites"]["byModel"]["food"] == {
            "source": "InferenceModel default/food-p",
            "targets": [{"model": "a", "share": 0.75}, {"model": "b", "share": 0.25}],
        }
