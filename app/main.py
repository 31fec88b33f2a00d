"""What happens to a request, in which order? The chain, as one literal list; a reader opens the files in this order."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.types import ASGIApp

from discovery.backend import Endpoint
from discovery.snapshot import SnapshotStore
from middleware.admission import AdmissionMiddleware
from middleware.circuit_breaking import CircuitBreakingMiddleware
from middleware.endpoint_picking import EndpointPickingMiddleware
from middleware.errors import ErrorsMiddleware
from middleware.model_extraction import BodyMemory, ModelExtractionMiddleware
from middleware.rate_limits import RateLimiter
from middleware.route_matching import RouteMatchingMiddleware
from middleware.scheduling.scheduler import Scheduler
from middleware.shedding import Shedder
from middleware.streaming_proxy import StreamingProxyMiddleware
from middleware.telemetry import ExchangeObserver, TelemetryMiddleware
from middleware.traffic_mirroring import MirrorCopies, TrafficMirroringMiddleware
from middleware.traffic_splitting import TrafficSplittingMiddleware
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry
from middleware.upstream.scraper import MetricsScraper
from middleware.upstream.transport import UpstreamTransport


def build_chain(
    *,
    store: SnapshotStore,
    registry: UpstreamRegistry,
    rules: RuleTrafficRegistry,
    memory: BodyMemory,
    limiter: RateLimiter,
    copies: MirrorCopies,
    scheduler: Scheduler,
    shedder: Shedder,
    scraper: MetricsScraper,
    tells_picks: bool = False,
    by_port: bool = False,
    observers: Sequence[ExchangeObserver],
) -> ASGIApp:
    """The data port's ASGI application. ``by_port``: listeners are told apart by the port that a request came to, too.
    ``tells_picks``: clients may ask how their endpoint was picked."""
    chain = [
        Middleware(TelemetryMiddleware, observers=observers),
        Middleware(ErrorsMiddleware),
        Middleware(ModelExtractionMiddleware, store=store, memory=memory, by_port=by_port),
        Middleware(RouteMatchingMiddleware),
        Middleware(AdmissionMiddleware, limiter=limiter, shedder=shedder),
        Middleware(TrafficSplittingMiddleware),
        Middleware(CircuitBreakingMiddleware, registry=registry, rules=rules),
        Middleware(EndpointPickingMiddleware, scheduler=scheduler, use=scraper, tells_picks=tells_picks),
        Middleware(TrafficMirroringMiddleware, registry=registry, copies=copies),
    ]
    app: ASGIApp = StreamingProxyMiddleware()
    for stage, args, kwargs in reversed(chain):
        app = stage(app, *args, **kwargs)
    return app


def make_transport(endpoint: Endpoint) -> UpstreamTransport:
    """The connections to one endpoint."""
    return UpstreamTransport(
        address=endpoint.address, port=endpoint.port, tls=endpoint.tls, is_confined=endpoint.is_confined
    )
