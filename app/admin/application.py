"""What does the admin port answer? Health, readiness, metrics, the configuration in use and what became of each
object."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import prometheus_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.metrics import Metrics
from discovery.describe import describe, describe_statuses
from discovery.snapshot import SnapshotStore


def build_admin(*, store: SnapshotStore, metrics: Metrics, is_draining: Callable[[], bool]) -> Starlette:
    """The admin port's ASGI application."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if is_draining():
            return PlainTextResponse("draining\n", status_code=503)
        if not store.is_ready:
            return PlainTextResponse("no configuration yet\n", status_code=503)
        return PlainTextResponse("ok\n")

    async def show_metrics(request: Request) -> Response:
        return Response(metrics.render(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def config(request: Request) -> Response:
        return _json(describe(store.current))

    async def status(request: Request) -> Response:
        return _json(describe_statuses(store.current.routing))

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", show_metrics),
            Route("/config", config),
            Route("/status", status),
        ]
    )


def _json(value: object) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_INDENT_2), media_type="application/json")
