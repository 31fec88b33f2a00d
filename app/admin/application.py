"""What does the admin port answer? Health, readiness, metrics, the configuration in use and what became of each
object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.admin.explain import MAX_REQUESTS, Question, explain
from app.admin.status import describe_status
from app.exposition import OPENMETRICS, TEXT, wants_openmetrics
from app.metrics import Metrics
from discovery.describe import describe
from discovery.snapshot import SnapshotStore
from middleware.rate_limits import RateLimiter
from middleware.scheduling.scheduler import Scheduler
from middleware.shedding import Shedder
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry


def build_admin(
    *,
    store: SnapshotStore,
    registry: UpstreamRegistry,
    limiter: RateLimiter,
    shedder: Shedder,
    scheduler: Scheduler,
    rules: RuleTrafficRegistry,
    metrics: Metrics,
    is_draining: Callable[[], bool],
    waiting_for: Callable[[], Sequence[str]] = tuple,
) -> Starlette:
    """The admin port's ASGI application."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if is_draining():
            return PlainTextResponse("draining\n", status_code=503)
        if not store.is_ready:
            reasons = "".join(f"{reason}\n" for reason in waiting_for())
            return PlainTextResponse(f"no configuration yet\n{reasons}", status_code=503)
        return PlainTextResponse("ok\n")

    async def show_metrics(request: Request) -> Response:
        is_openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        return StreamingResponse(
            metrics.render(is_openmetrics=is_openmetrics),
            headers={"content-type": OPENMETRICS if is_openmetrics else TEXT},
        )

    async def config(request: Request) -> Response:
        # In a thread: a snapshot never changes, and one of 10,000 models takes a tenth of a second to tell.
        return _json(await asyncio.to_thread(describe, store.current))

    async def status(request: Request) -> Response:
        return _json(await describe_status(store.current, registry=registry, rules=rules))

    async def explain_request(request: Request) -> Response:
        try:
            question = _asked.decode(await request.body()).as_question()
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            return _json({"error": str(error)}, status=400)
        return _json(
            await explain(
                question,
                snapshot=store.current,
                registry=registry,
                limiter=limiter,
                shedder=shedder,
                scheduler=scheduler,
            )
        )

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", show_metrics),
            Route("/config", config),
            Route("/status", status),
            Route("/explain", explain_request, methods=["POST"]),
        ]
    )


class AskedQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /explain: a request to explain. ``headers`` is an object of names and values; ``body`` is the
    request's own JSON, taken as it stands there, and its model goes before ``model``."""

    model: str | None = None
    body: msgspec.Raw = msgspec.Raw()
    method: str = "POST"
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    requests: Annotated[int, msgspec.Meta(ge=0, le=MAX_REQUESTS)] = 0
    port: int | None = None

    def as_question(self) -> Question:
        """The same for `explain`."""
        return Question(
            model=self.model,
            method=self.method,
            path=self.path,
            headers=tuple(self.headers.items()),
            requests=self.requests,
            port=self.port,
            body=bytes(self.body) or None,
        )


_asked = msgspec.json.Decoder(AskedQuestion)


def _json(value: object, *, status: int = 200) -> Response:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    return Response(body, status_code=status, media_type="application/json")
