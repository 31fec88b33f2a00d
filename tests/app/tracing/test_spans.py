"""Does a collector see what happened to a request? Real sockets on all sides: client, model server, collector."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from tests.app.test_model_rewriting import route as pool_route
from tests.support.gateway import pool_at, route_to, running_gateway
from tests.support.otlp import SeenSpan, receiving, tracing_to
from tests.support.raw_client import RawClient, ask
from tests.support.raw_upstream import Conversation, RawUpstream

pytestmark = pytest.mark.anyio

BODY = b'{"model":"qwen","max_tokens":9,"messages":[{"role":"user","content":"PROMPT-TEXT"}]}'
USAGE = (
    b'{"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":64,"prompt_tokens_details":{"cached_tokens":16}}}'
)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"


def post(body: bytes = BODY, *, headers: str = "", path: str = "/v1/chat/completions?key=QUERY-SECRET") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: gw.example:8080\r\nUser-Agent: test/1\r\nX-Request-Id: complaint-1\r\n"
        f"Authorization: Bearer SECRET-KEY\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def child(spans: list[SeenSpan], kind: str) -> list[SeenSpan]:
    (server,) = [span for span in spans if span.kind == "SERVER"]
    found = [span for span in spans if span.kind == kind and span.parent_id == server.span_id]
    assert all(span.trace_id == server.trace_id for span in found)
    return found


def server_span(spans: list[SeenSpan]) -> SeenSpan:
    (server,) = [span for span in spans if span.kind == "SERVER"]
    return server


def sent_header(request: bytes, name: str) -> list[str]:
    lines = [line.partition(b":") for line in request.split(b"\r\n\r\n")[0].split(b"\r\n")]
    return [value.strip().decode() for key, _, value in lines if key.decode().lower() == name]


class Recorded:
    """An upstream's script that keeps the requests and answers each."""

    def __init__(self, answer: bytes = USAGE, *, status: str = "200 OK") -> None:
        self.requests: list[bytes] = []
        self.answer, self.status = answer, status

    async def __call__(self, peer: Conversation) -> None:
        while True:
            self.requests.append(await peer.request())
            await peer.answer(self.answer, status=self.status)


async def test_a_request_is_one_trace_with_its_decision_and_its_attempt(tmp_path: Path) -> None:
    script = Recorded()
    async with receiving() as collector, RawUpstream(script) as upstream, tracing_to(collector.port) as pipeline:
        manifests = route_to((upstream.host, upstream.port))
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
            headers = f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01\r\ntracestate: a=b\r\nbaggage: k=v;p\r\n"
            answer = await ask(running.port, post(headers=headers))
            spans = await collector.wait_spans(3)
            (line,) = [record for record in running.log_records() if record["message"] == "request"]
    assert answer.status == 200
    server = server_span(spans)
    assert (server.name, server.trace_id, server.parent_id) == ("POST /v1/chat/completions", TRACE_ID, PARENT_ID)
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "http.request.body.size": len(BODY),
        "http.response.body.size": len(USAGE),
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "server.address": "gw.example",
        "server.port": 8080,
        "user_agent.original": "test/1",
        "pointsman.request_id": "complaint-1",
        "pointsman.model": "qwen",
        "pointsman.route": "default/route-qwen",
        "pointsman.rule": "0",
        "pointsman.backend": "default/backend-qwen",
        "pointsman.endpoint": f"{upstream.host}:{upstream.port}",
        "pointsman.attempts": 1,
    }
    assert not server.is_error
    assert [event.name for event in server.events] == ["request read", "first byte"]
    (decision,) = child(spans, "INTERNAL")
    assert decision.name == "decide"
    assert decision.attributes["pointsman.arms"] == ["default/backend-qwen weight=1 priority=0"]
    assert decision.attributes["pointsman.rule"] == "0"
    (attempt,) = child(spans, "CLIENT")
    assert attempt.name == "chat qwen"
    time_to_first = attempt.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(time_to_first, float)
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "qwen",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.usage.input_tokens": 31,
        "gen_ai.usage.output_tokens": 64,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": upstream.host,
        "server.port": upstream.port,
        "pointsman.backend": "default/backend-qwen",
        "pointsman.endpoint": f"{upstream.host}:{upstream.port}",
        "pointsman.outcome": "answered",
    }
    assert server.start <= decision.start <= decision.end <= attempt.start <= attempt.end <= server.end
    # The model server goes on where the attempt's span is.
    (request,) = script.requests
    assert sent_header(request, "traceparent") == [f"00-{TRACE_ID}-{attempt.span_id}-01"]
    assert sent_header(request, "tracestate") == ["a=b"]
    assert sent_header(request, "baggage") == ["k=v;p"]
    assert line["trace_id"] == TRACE_ID
    assert collector.paths == ["/v1/traces"] * len(collector.paths)
    assert collector.resource["service.name"] == "pointsman"
    for secret in (b"PROMPT-TEXT", b"QUERY-SECRET", b"SECRET-KEY"):
        assert secret not in collector.raw


async def test_a_retry_is_seen_with_what_failed_and_what_it_cost(tmp_path: Path) -> None:
    busy, good = Recorded(b"busy", status="503 Busy"), Recorded()
    async with receiving() as collector, RawUpstream(busy) as first, RawUpstream(good, host="127.0.0.2") as second:
        manifests = route_to((first.host, first.port), (second.host, second.port))
        async with (
            tracing_to(collector.port) as pipeline,
            running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running,
        ):
            spans: list[SeenSpan] = []
            while not busy.requests:  # which of the two comes first is drawn
                collector.spans.clear()
                assert (await ask(running.port, post())).status == 200
                spans = await collector.wait_spans(4 if busy.requests else 3)
    refused, answered = child(spans, "CLIENT")
    assert (refused.attributes["http.response.status_code"], refused.attributes["error.type"]) == (503, "503")
    assert refused.is_error
    assert (answered.attributes["http.request.resend_count"], answered.is_error) == (1, False)
    assert "gen_ai.usage.input_tokens" not in refused.attributes
    server = server_span(spans)
    assert [event.name for event in server.events] == ["request read", "retry", "first byte"]
    retry = server.events[1]
    assert retry.attributes["http.response.status_code"] == 503
    assert retry.attributes["pointsman.endpoint"] == f"{first.host}:{first.port}"
    assert (server.attributes["pointsman.attempts"], server.is_error) == (2, False)
    assert sent_header(busy.requests[-1], "traceparent")[0].split("-")[2] == refused.span_id
    assert sent_header(good.requests[-1], "traceparent")[0].split("-")[2] == answered.span_id


async def test_an_ejection_is_an_event_of_the_attempt_that_caused_it(tmp_path: Path) -> None:
    async with receiving() as collector, RawUpstream(Recorded(b"no", status="500 No")) as upstream:
        manifests = route_to((upstream.host, upstream.port))
        async with (
            tracing_to(collector.port) as pipeline,
            running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running,
        ):
            for _ in range(5):
                assert (await ask(running.port, post())).status == 500
            spans = await collector.wait_spans(15)
    attempts = [span for span in spans if span.kind == "CLIENT"]
    assert [[event.name for event in span.events] for span in attempts] == [["first byte"]] * 4 + [
        ["first byte", "ejection"]
    ]
    assert all(span.is_error for span in spans if span.kind == "SERVER")


async def test_a_client_that_leaves_is_an_event_and_no_error(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def silent(peer: Conversation) -> None:
        await peer.request()
        began.set()
        await peer.until_closed()

    async with receiving() as collector, RawUpstream(silent) as upstream, tracing_to(collector.port) as pipeline:
        manifests = route_to((upstream.host, upstream.port))
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
            async with RawClient(running.port) as client:
                await client.send(post())
                await began.wait()
                client.reset()
            spans = await collector.wait_spans(3)
    server = server_span(spans)
    assert [event.name for event in server.events] == ["request read", "client left"]
    assert server.attributes["pointsman.reason"] == "client_closed"
    assert "http.response.status_code" not in server.attributes
    (attempt,) = child(spans, "CLIENT")
    assert attempt.attributes["pointsman.outcome"] == "abandoned"
    for span in (server, attempt):
        assert not span.is_error
        assert "error.type" not in span.attributes


async def test_what_is_refused_before_it_is_routed_is_one_span_with_the_reason(tmp_path: Path) -> None:
    async with receiving() as collector, tracing_to(collector.port) as pipeline:
        async with running_gateway(route_to(("127.0.0.1", 9)), folder=tmp_path, tracing=pipeline.observer) as running:
            assert (await ask(running.port, post(b'{"model":"unknown"}'))).status == 404
            async with RawClient(running.port) as client:
                await client.send(b"GARBAGE\r\n\r\n")
                await client.rest()
            spans = await collector.wait_spans(2)
    assert {span.kind for span in spans} == {"SERVER"}
    assert spans[0].attributes["pointsman.reason"] == "model_not_found"
    # A client's mistake is no error of a server, say the conventions.
    assert (spans[0].is_error, spans[1].name) == (False, "HTTP")
    assert "error.type" not in spans[0].attributes


async def test_a_method_that_the_conventions_do_not_know_names_no_span(tmp_path: Path) -> None:
    async with receiving() as collector, RawUpstream(Recorded()) as upstream, tracing_to(collector.port) as pipeline:
        manifests = route_to((upstream.host, upstream.port))
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
            await ask(running.port, post().replace(b"POST ", b"LINK ", 1))
            spans = await collector.wait_spans(3)
    server = server_span(spans)
    assert server.name == "HTTP /v1/chat/completions"
    for span in (server, *child(spans, "CLIENT")):
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.attributes["http.request.method_original"] == "LINK"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("[::1]:8080", {"server.address": "::1", "server.port": 8080}),
        ("[::1]", {"server.address": "::1"}),
        ("gw.example", {"server.address": "gw.example"}),
    ],
)
async def test_the_host_that_was_asked_for(tmp_path: Path, host: str, expected: dict[str, object]) -> None:
    async with receiving() as collector, tracing_to(collector.port) as pipeline:
        async with running_gateway(route_to(("127.0.0.1", 9)), folder=tmp_path, tracing=pipeline.observer) as running:
            await ask(running.port, post(b'{"model":"none"}').replace(b"gw.example:8080", host.encode()))
            (span,) = await collector.wait_spans(1)
    assert {name: value for name, value in span.attributes.items() if name.startswith("server.")} == expected


async def test_numbers_that_no_collector_takes_do_not_cost_the_batch(tmp_path: Path) -> None:
    script = Recorded(b'{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":3}}')
    async with receiving() as collector, RawUpstream(script) as upstream, tracing_to(collector.port) as pipeline:
        manifests = route_to((upstream.host, upstream.port))
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
            await ask(running.port, post(b'{"model":"qwen","seed":18446744073709551615,"max_tokens":7}'))
            (attempt,) = child(await collector.wait_spans(3), "CLIENT")
    assert attempt.attributes["gen_ai.request.max_tokens"] == 7
    assert "gen_ai.request.seed" not in attempt.attributes


async def test_a_mirror_has_a_trace_of_its_own_that_is_linked(tmp_path: Path) -> None:
    script, shadow = Recorded(), Recorded()
    async with receiving() as collector, RawUpstream(script) as upstream, RawUpstream(shadow) as mirror:
        rule = (
            "filters:\n- {type: RequestMirror, requestMirror: {backendRef: "
            "{group: gateway.envoyproxy.io, kind: Backend, name: mirror}}}"
        )
        manifests = route_to((upstream.host, upstream.port), rule=rule) + (
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {name: mirror}\n"
            f"spec:\n  endpoints: [{{ip: {{address: {mirror.host}, port: {mirror.port}}}}}]\n"
        )
        async with (
            tracing_to(collector.port) as pipeline,
            running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running,
        ):
            await ask(running.port, post())
            spans = await collector.wait_spans(4)
    server = server_span(spans)
    (copy,) = [span for span in spans if span.name == "mirror chat qwen"]
    assert copy.trace_id != server.trace_id
    assert copy.links == ((server.trace_id, server.span_id),)
    assert copy.attributes["pointsman.is_mirror"] is True
    assert copy.attributes["http.response.status_code"] == 200
    assert "gen_ai.usage.input_tokens" not in copy.attributes  # counted once, with the primary
    assert sent_header(shadow.requests[0], "traceparent") == [f"00-{copy.trace_id}-{copy.span_id}-03"]


@pytest.mark.parametrize("parent", ["", f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-00\r\n"], ids=["own", "the client's"])
async def test_what_is_not_sampled_leaves_identifiers_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    script = Recorded()
    async with receiving() as collector, RawUpstream(script) as upstream:
        async with tracing_to(collector.port) as pipeline:
            manifests = route_to((upstream.host, upstream.port))
            async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
                await ask(running.port, post(headers=parent))
                await running.finished.next()
        assert not collector.paths
    (traceparent,) = sent_header(script.requests[0], "traceparent")
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, int(flags, 16) & 1) == ("00", 0)
    assert (trace_id == TRACE_ID) is bool(parent)
    assert span_id != PARENT_ID


async def test_without_tracing_the_clients_identifiers_pass_unchanged(tmp_path: Path) -> None:
    script = Recorded()
    async with RawUpstream(script) as upstream:
        async with running_gateway(route_to((upstream.host, upstream.port)), folder=tmp_path) as running:
            await ask(running.port, post(headers="traceparent: as-it-came\r\ntracestate: x=y\r\nbaggage: k=v\r\n"))
            (line,) = [record for record in running.log_records() if record["message"] == "request"]
    assert sent_header(script.requests[0], "traceparent") == ["as-it-came"]
    assert sent_header(script.requests[0], "tracestate") == ["x=y"]
    assert sent_header(script.requests[0], "baggage") == ["k=v"]
    assert line["trace_id"] is None


async def test_a_stream_that_breaks_is_an_error_with_the_reason(tmp_path: Path) -> None:
    async def broken(peer: Conversation) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"9\r\ndata: 1\n\n\r\n"
        )
        peer.reset()

    async with receiving() as collector, RawUpstream(broken) as upstream, tracing_to(collector.port) as pipeline:
        manifests = route_to((upstream.host, upstream.port))
        async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
            async with RawClient(running.port) as client:
                await client.send(post(orjson.dumps({"model": "qwen", "stream": True})))
                await client.rest()
            spans = await collector.wait_spans(3)
    server = server_span(spans)
    assert (server.is_error, server.attributes["error.type"], server.attributes["pointsman.flag"]) == (
        True,
        "upstream_reset",
        "UC",
    )
    (attempt,) = child(spans, "CLIENT")
    assert (attempt.attributes["gen_ai.request.stream"], attempt.attributes["error.type"]) == (True, "broken")


async def test_the_decision_has_the_scores_behind_the_pick(tmp_path: Path) -> None:
    async def pod(peer: Conversation) -> None:
        while True:
            if (await peer.request()).startswith(b"POST"):
                await peer.answer(USAGE)
            else:
                await peer.answer(status="404 Not Found")

    async with receiving() as collector, RawUpstream(pod) as one, RawUpstream(pod, host="127.0.0.2", port=one.port):
        manifests = pool_route() + pool_at("p", one.port, "127.0.0.1", "127.0.0.2")
        async with (
            tracing_to(collector.port) as pipeline,
            running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running,
        ):
            answer = await ask(running.port, post())
            spans = await collector.wait_spans(3)
    assert "x-pointsman-explain" not in answer.headers  # seen in the trace, told to nobody
    (decision,) = child(spans, "INTERNAL")
    scores = decision.attributes["pointsman.scores"]
    assert isinstance(scores, list)
    assert sorted(line.split()[0] for line in scores) == ["default/p-0", "default/p-1"]
    assert "total=" in scores[0]
    assert "queue-scorer=" in scores[0]
    (attempt,) = child(spans, "CLIENT")
    assert str(attempt.attributes["pointsman.pod"]) == scores[0].split()[0]


async def test_of_many_requests_the_share_is_sampled_and_every_trace_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    script = Recorded()
    async with receiving() as collector, RawUpstream(script) as upstream:
        async with tracing_to(collector.port) as pipeline:
            manifests = route_to((upstream.host, upstream.port))
            async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
                for number in range(60):
                    parent = "traceparent: nonsense\r\n" if number % 3 == 0 else ""
                    await ask(running.port, post(headers=parent))
                await running.finished.next(60)
    told = [sent_header(request, "traceparent")[0].split("-") for request in script.requests]
    assert len({trace_id for _, trace_id, _, _ in told}) == 60
    sampled = {trace_id for _, trace_id, _, flags in told if int(flags, 16) & 1}
    assert 5 < len(sampled) < 55
    assert {span.trace_id for span in collector.spans} == sampled


@pytest.mark.parametrize("arg", ["0", "1"], ids=["unsampled", "sampled"])
async def test_other_propagators_say_it_in_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arg: str) -> None:
    """Two of them; that both are the same keeps the test from needing a package."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", arg)
    script = Recorded()
    async with receiving() as collector, RawUpstream(script) as upstream:
        async with tracing_to(collector.port, OTEL_PROPAGATORS="tracecontext,tracecontext") as pipeline:
            manifests = route_to((upstream.host, upstream.port))
            async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
                await ask(
                    running.port, post(headers=f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01\r\ntracestate: a=b\r\n")
                )
                await running.finished.next()
    (told,) = sent_header(script.requests[0], "traceparent")
    assert told.startswith(f"00-{TRACE_ID}-")
    assert (told.endswith("-01"), PARENT_ID in told) == (arg == "1", False)
    assert sent_header(script.requests[0], "tracestate") == ["a=b"]


async def test_without_propagators_every_trace_is_our_own_and_headers_pass_unchanged(tmp_path: Path) -> None:
    script = Recorded()
    async with receiving() as collector, RawUpstream(script) as upstream:
        async with tracing_to(collector.port, OTEL_PROPAGATORS="none") as pipeline:
            manifests = route_to((upstream.host, upstream.port))
            async with running_gateway(manifests, folder=tmp_path, tracing=pipeline.observer) as running:
                await ask(running.port, post(headers=f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01\r\n"))
                spans = await collector.wait_spans(3)
    assert sent_header(script.requests[0], "traceparent") == [f"00-{TRACE_ID}-{PARENT_ID}-01"]
    assert server_span(spans).trace_id != TRACE_ID
